"""Verification of a ledger's signatures: that what a device has signed stands in the rows.

A chain of hashes shows that nothing was changed, unless somebody has computed the chain anew; who can write to the
folder can do that. Nobody but the device can sign anew. Each signature covers the blocks of one batch; a block is
packed again from its rows, and has to have the hash that was signed.

Promises: in an outbox whose batches are signed each row that no signature covers is named, and each block that is not
what was signed. A ledger without signatures has no finding. The trap: who has signed is known as far as the lab is. A
ledger that was written anew as a whole, signed by another lab, says so by that lab's name: compare it.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ether.errors import DecodeError, LedgerError
from ether.ledger.sqlite import DATABASE, Connection, SqliteError
from ether.ledger.verify_records import VerifyFinding, ranges
from ether.wire.entries import Entry, first_of, kept_signature, pack_entries
from ether.wire.json_text import loads

_ENTRY = "row, number, kind, topic, id, seq, time, parents, context, content_type, payload, more, sha256, source, run"
_MOST_LISTED = 20

Content = Callable[[str], bytes]
"""The payload with a hash, from objects/. Raises `LedgerError`."""


@dataclass(frozen=True, slots=True)
class SignedRows:
    """What the signatures of one volume say."""

    entries: int = 0
    """How many rows of outboxes there are, gaps not counted."""
    signed: int = 0
    """How many of them are what a device has signed."""
    signers: tuple[str, ...] = ()
    """The devices, each with its lab."""
    findings: tuple[VerifyFinding, ...] = ()


@dataclass
class _Outbox:
    """What is known of one signed outbox."""

    source: str
    signer: str
    covered: set[int] = field(default_factory=set)
    """Rows that are what was signed, and those of blocks of which rows were deleted."""
    first: int = 0
    """The first row that came with a signature."""


class SignatureCheck:
    """Verifies the signatures of one volume."""

    def __init__(self, connection: Connection, content: Content) -> None:
        self._connection, self._content = connection, content
        self._outboxes: dict[str, _Outbox] = {}
        self._signers: dict[str, tuple[Any, bytes, str] | None] = {}
        self._wrong: dict[str, set[int]] = {}
        self._verified = 0

    def run(self) -> SignedRows:
        """Verify all of them. Raises `SqliteError` where the database cannot be read."""
        found = self._connection.execute(
            "SELECT row, topic, source, context, payload, more, sha256 FROM entries"
            " WHERE kind = 'signature' ORDER BY row"
        )
        for row, outbox, source, context, payload, more, sha256 in found:
            try:
                body = payload if sha256 is None else self._payload_of(sha256, None)
                self._check(row, outbox, source, context, body, more)
            except (DecodeError, LedgerError, ValueError, TypeError, KeyError) as error:
                self._note(f"a signature of {source!r} is not what was written: {error}", {row})
        listed = "SELECT count(*) FROM entries WHERE outbox != '' AND kind != 'gap'"
        entries = int(self._connection.execute(listed).fetchone()[0])
        self._look_for_unsigned()
        findings = [VerifyFinding(DATABASE, what, ranges(rows)) for what, rows in self._wrong.items()]
        signers = sorted({each.signer for each in self._outboxes.values() if each.signer})
        return SignedRows(entries, self._verified, tuple(signers), tuple(findings[:_MOST_LISTED]))

    def _note(self, what: str, rows: set[int]) -> None:
        self._wrong.setdefault(what, set()).update(rows)

    def _check(self, row: int, outbox: str, source: str, context: str, payload: bytes, more: str) -> None:
        """One signature, with the rows in front of it."""
        signed, rows = kept_signature(loads(more, strict=True), payload, b"")
        if _whose(signed.opening) != [outbox, source]:
            self._note(f"a signature of {source!r} is of what another source, or another outbox of it, has sent", {row})
            return
        known = self._outboxes.setdefault(outbox, _Outbox(source, ""))
        known.first = known.first or row - rows
        signer = self._signer(context)
        if signer is None:
            self._note(
                f"who has signed entries of {source!r} cannot be said: the certificate is damaged or gone", {row}
            )
            return
        verifier, certificate, name = signer
        try:
            verifier.device(certificate, signed.message(), signed.signature)
        except ValueError as error:  # NotSigned
            self._note(f"entries of {source!r} are not signed as they should be: {error}", {row})
            return
        if known.signer and known.signer != name:
            self._note(f"entries of {source!r} are signed by {name}, earlier ones by {known.signer}", {row})
        known.signer = known.signer or name
        here = {entry.number: (at, entry) for at, entry in self._rows(outbox, source, row - rows, row - 1)}
        for first, last, digest in signed.blocks:
            if any(first <= number <= last for number in here):
                self._check_block(outbox, known, here, (first, last, digest))

    def _check_block(
        self, outbox: str, known: _Outbox, here: dict[int, tuple[int, Entry]], block: tuple[int, int, bytes]
    ) -> None:
        first, last, digest = block
        found = {number: each for number, each in here.items() if first <= number <= last}
        if not _is_whole(found, first, last):  # some of it came before
            found = {entry.number: (at, entry) for at, entry in self._numbers(outbox, known.source, first, last)}
        rows = {at for at, _ in found.values()}
        if not _is_whole(found, first, last):
            if self._has_deletions():
                known.covered |= rows
            return
        entries = [entry for _, (_, entry) in sorted(found.items())]
        if hashlib.sha256(pack_entries(entries)).digest() == digest:
            new = [entry for at, entry in found.values() if entry.kind != "gap" and at not in known.covered]
            self._verified += len(new)
            known.covered |= rows
        elif not any(entry.kind == "gap" for entry in entries):  # of a gap a ledger may have had a part
            self._note(f"entries of {known.source!r} are not what {known.signer} has signed", rows)
            known.covered |= rows

    def _has_deletions(self) -> bool:
        known = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'deleted'").fetchone()
        return bool(known and self._connection.execute("SELECT 1 FROM deleted").fetchone())

    def _rows(self, outbox: str, source: str, first: int, last: int) -> Iterator[tuple[int, Entry]]:
        query = f"SELECT {_ENTRY} FROM entries WHERE row BETWEEN ? AND ? AND outbox = ? ORDER BY row"
        return (self._entry(each, source) for each in self._connection.execute(query, (first, last, outbox)))

    def _numbers(self, outbox: str, source: str, first: int, last: int) -> Iterator[tuple[int, Entry]]:
        query = (
            f"SELECT {_ENTRY} FROM entries WHERE origin IN (SELECT origin FROM origins WHERE outbox = ?)"
            " AND number BETWEEN ? AND ? ORDER BY row"
        )
        return (self._entry(each, source) for each in self._connection.execute(query, (outbox, first, last)))

    def _entry(self, values: tuple[Any, ...], source: str) -> tuple[int, Entry]:
        """A row with its entry. What readers take from columns beside the entry's own has to be what the entry says."""
        row, number, kind, topic, entry_id, seq, time, parents, context, content_type, *rest = values
        payload, more, sha256, of, run = rest
        body = payload if sha256 is None else self._payload_of(sha256, None)
        said: Any = loads(more, strict=True)
        named: Any = loads(parents, strict=True)
        if kind == "gap" and isinstance(said.get("last"), int):
            number = said["last"]
        if (of, run) != (source, _run_of(said)) or None not in (payload, sha256):
            said = {**said, "row": "says another source, run or payload beside what was signed"}
        entry = Entry(number, kind, topic, entry_id, seq, time, tuple(named), context, content_type, body, said)
        return row, entry

    def _payload_of(self, sha256: str, payload: bytes | None) -> bytes:
        if payload is not None:
            return payload
        found = self._connection.execute("SELECT payload FROM contents WHERE sha256 = ?", (sha256,)).fetchone()
        return bytes(found[0]) if found else self._content(sha256)

    def _signer(self, context: str) -> tuple[Any, bytes, str] | None:
        """What verifies the signatures of a device: kept in the ledger, by its hash."""
        if context not in self._signers:
            try:
                said = self._payload_of(context, None)
                is_whole = hashlib.sha256(said).hexdigest() == context
                self._signers[context] = _verifier(said) if is_whole else None
            except (LedgerError, SqliteError, OSError):
                self._signers[context] = None
        return self._signers[context]

    def _look_for_unsigned(self) -> None:
        """Rows of signed outboxes that no signature covers, from the first that was signed on."""
        for outbox, known in self._outboxes.items():
            query = (
                "SELECT row FROM records WHERE origin IN"
                " (SELECT origin FROM origins WHERE outbox = ? AND kind != 'gap') AND row >= ?"
            )
            rows = {row for (row,) in self._connection.execute(query, (outbox, known.first))} - known.covered
            if rows:
                who = f" by {known.signer}" if known.signer else ""
                self._note(f"entries of {known.source!r} are not signed, and others of its outbox are{who}", rows)


def _is_whole(found: dict[int, tuple[int, Entry]], first: int, last: int) -> bool:
    """Whether all numbers of a block are there; a gap counts for all that it covers."""
    covered = sum(entry.number - first_of(entry) + 1 for _, entry in found.values())
    return covered == last - first + 1


def _whose(opening: str) -> list[object]:
    """The outbox and the source in what opens a batch."""
    said: Any = loads(opening, strict=True)
    return list(said[:2])


def _run_of(more: Mapping[str, object]) -> str:
    run = more.get("run", "")
    return run if isinstance(run, str) else ""


def _verifier(said: bytes) -> tuple[Any, bytes, str] | None:
    """What verifies, the certificate, and the device with its lab; None for what is no such thing."""
    from ether.security.signing import Verifier  # late: it takes 40 ms to load

    try:
        value = json.loads(said)
        verifier = Verifier(str(value["authority"]).encode())
        certificate = b64decode(value["certificate"], validate=True)
        name = verifier.certified(certificate)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return verifier, certificate, f"{name!r} of the lab {verifier.lab}"
