"""Entries as rows of a ledger: what a row says, its checksum, its link, and which entries may become one.

    checksum = SHA-256(JSON of the columns `outbox` to `content_type`, JSON of `number` to `sha256`, then the payload if
               it is in the row)
    link     = SHA-256(link of the row before, then checksum);  before the first: SHA-256(JSON of [session, created])

Promises: pure; what it is given it does not change. An intake that is thrown away leaves nothing behind.

The trap: what is refused still takes its number, as a gap that says why. Otherwise its outbox would offer it for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import NamedTuple

from ether.wire.entries import KINDS, Batch, Entry, first_of
from ether.wire.json_text import dumps

LARGE_BYTES = 64 * 1024
"""Payloads of more bytes are files of their own."""

BY_HASH = frozenset({"context", "artifact"})
"""Kinds whose id is the hash of their payload."""

_ORDINARY = KINDS - BY_HASH - {"gap"}

COLUMNS = (
    "row", "outbox", "kind", "topic", "source", "run", "context", "content_type",
    "number", "id", "seq", "time", "received", "parents", "more", "size", "sha256", "payload", "checksum", "link",
)  # fmt: skip
"""Of the view `entries`: a row with its origin."""

ORIGIN_COLUMNS = 7
"""How many columns after `row` are those of its origin."""

_LARGEST = (1 << 63) - 1
_sha256 = hashlib.sha256

_PLAIN = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
"""In texts of these alone JSON escapes nothing."""

Row = tuple[object, ...]
Origin = tuple[str, str, str, str, str, str, str | None]
"""Outbox, kind, topic, source, run, context, content type: what many rows have in common."""


class OriginCache:
    """Origins that have a row, with its number and their JSON. The numbers go on where the table ends; forgetting an
    origin costs one more row for it, nothing else."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.known: dict[Origin, tuple[int, bytes]] = {}

    def add(self, origins: Mapping[Origin, tuple[int, bytes]]) -> None:
        """Remember origins that are in the table now."""
        if len(self.known) > _MOST_ORIGINS:
            self.known.clear()
        self.known.update(origins)
        self.last += len(origins)


_MOST_ORIGINS = 20_000


class OutboxState(NamedTuple):
    """What a ledger knows of an outbox."""

    source: str
    highest: int
    """The highest number that is here, with everything before it."""
    head: int
    """The highest number that the source has given out, as far as is known."""
    last: float = 0.0
    """Unix seconds when something last came from it."""


def first_link(session: str, created: str) -> bytes:
    """What the chain begins with."""
    return _sha256(dumps([session, created])).digest()


def checksum_of(said: list[object], payload: bytes | None) -> bytes:
    """A row's checksum, from its columns from `outbox` to `sha256` and the payload in it."""
    return _checksum(dumps(said[:ORIGIN_COLUMNS]), said[ORIGIN_COLUMNS:], payload)


def _checksum(origin: bytes, said: list[object], payload: bytes | None) -> bytes:
    return _sha256(origin + dumps(said) + payload if payload else origin + dumps(said)).digest()


def link_of(before: bytes, checksum: bytes) -> bytes:
    """A row's link."""
    return _sha256(before + checksum).digest()


def outbox_checksum(outbox: str, state: OutboxState) -> bytes:
    """The checksum of an outbox's row."""
    return _sha256(dumps([outbox, *state])).digest()


class Unfit(ValueError):
    """An entry that no row can hold."""


class Intake:
    """Gathers the rows of one transaction, after `rows_before` rows of which the last has `link`.

    `careful` looks at each entry for what the database cannot hold; without it such an entry makes the transaction
    fail, and it is made once more with care.
    """

    def __init__(
        self,
        rows_before: int,
        link: bytes,
        outboxes: Mapping[str, OutboxState],
        origins: OriginCache,
        received: float,
        *,
        careful: bool,
    ) -> None:
        self.rows_before, self.link, self.received, self._careful = rows_before, link, received, careful
        self._known, self._origins = outboxes, origins
        self.origins: dict[Origin, tuple[int, bytes]] = {}
        self.rows: list[Row] = []
        self.parents: list[tuple[str, int]] = []
        self.outboxes: dict[str, OutboxState] = {}
        self.contents: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.refused: list[str] = []
        self.repeated = 0
        self._last_more: tuple[Mapping[str, object], str, str] = {}, "{}", '"{}"'

    def take(self, batch: Batch) -> None:
        """Take what follows on what is there, up to the first hole."""
        if self._careful:
            batch = batch._replace(outbox=_unicode(batch.outbox), source=_unicode(batch.source))
        state = self.state(batch.outbox, batch.source)
        highest = state.highest
        entries = batch.entries
        if not self._careful and _are_ordinary(entries, highest + 1):
            self._add_ordinary(batch.outbox, batch.source, entries)
            highest, entries = entries[-1].number, ()
        for entry in entries:
            if entry.kind == "gap":
                last = gap_end(entry)
                if last > highest:
                    if first_of(entry) > highest + 1:
                        break
                    self._add(batch.outbox, batch.source, highest + 1, _shortened(entry, highest + 1, last))
                    highest = last
                else:
                    self.repeated += 1
            elif entry.number == highest + 1:
                self._add(batch.outbox, batch.source, entry.number, entry)
                highest = entry.number
            elif entry.number > highest:
                break
            else:
                self.repeated += 1
        head = min(max(state.head, batch.head, highest), _LARGEST)
        if (highest, head) != (state.highest, state.head) or batch.outbox not in self._known:
            self.outboxes[batch.outbox] = OutboxState(state.source, highest, head, self.received)

    def take_loose(self, source: str, entry: Entry) -> None:
        """Take an entry that no outbox has numbered."""
        self._add("", source, 0, entry)

    def state(self, outbox: str, source: str = "") -> OutboxState:
        """What is known of an outbox, with what this transaction adds."""
        return self.outboxes.get(outbox) or self._known.get(outbox) or OutboxState(source, 0, 0)

    def _add(self, outbox: str, source: str, number: int, entry: Entry) -> None:
        try:
            if self._careful:
                _check_fits(source, entry)
            self._add_row(outbox, source, number, entry)
        except Unfit as unfit:
            self.refused.append(f"entry {number} of {source!r} ({entry.kind} {entry.topic!r}): {unfit}")
            if outbox:  # a loose entry leaves no hole
                self._add_row(outbox, _unicode(source), number, _refusal(number, entry, unfit))

    def _add_row(self, outbox: str, source: str, number: int, entry: Entry) -> None:
        _, kind, topic, entry_id, seq, time, parents, context, content_type, payload, more = entry
        size = len(payload)
        sha256: str | None = None
        body: bytes | None = payload
        if size > LARGE_BYTES or kind in BY_HASH:
            sha256, body = _sha256(payload).hexdigest(), None
            if kind in BY_HASH and sha256 != entry_id:
                raise Unfit(f"its content has the SHA-256 {sha256}, not {entry_id}")
            (self.objects if size > LARGE_BYTES else self.contents)[sha256] = payload
        known = self._origin(outbox, kind, topic, source, more, context, content_type)
        said = [
            number, entry_id, seq, time + 0.0, self.received,
            dumps(parents).decode() if parents else "[]", self._texts_of(more)[0] if more else "{}",
            size, sha256,
        ]  # fmt: skip
        checksum = _checksum(known[1], said, body)
        self.link = link_of(self.link, checksum)
        row = self.rows_before + len(self.rows) + 1
        self.rows.append((row, known[0], *said, body, checksum, self.link))
        if parents:
            self.parents += [(parent, row) for parent in set(parents)]

    def _add_ordinary(self, outbox: str, source: str, entries: Sequence[Entry]) -> None:
        """The same as `_add_row` for each, in a third of the time, for what `_are_ordinary` says is: the JSON is
        written out, and what neighbours have in common is looked up once."""
        link, row, received, add = self.link, self.rows_before + len(self.rows), repr(self.received), self.rows.append
        last: tuple[object, ...] = ()
        for number, kind, topic, entry_id, seq, time, parents, context, content_type, payload, more in entries:
            alike = (kind, topic, context, content_type, id(more))
            if alike != last:
                last = alike
                origin, opening = self._origin(outbox, kind, topic, source, more, context, content_type)
                told, quoted = self._texts_of(more)
            row += 1
            time += 0.0  # there is one zero
            size = len(payload)
            if parents:
                joined = '","'.join(parents)
                named, named_quoted = f'["{joined}"]', '[\\"' + joined.replace('"', '\\"') + '\\"]'
                self.parents += [(parent, row) for parent in ({*parents} if len(parents) > 1 else parents)]
            else:
                named = named_quoted = "[]"
            said = f'[{number},"{entry_id}",{seq},{time!r},{received},"{named_quoted}",{quoted},{size},null]'
            checksum = _sha256(b"".join((opening, said.encode(), payload))).digest()
            link = _sha256(link + checksum).digest()
            add((row, origin, number, entry_id, seq, time, self.received, named, told, size, None, payload, checksum,
                 link))  # fmt: skip
        self.link = link

    def _texts_of(self, more: Mapping[str, object]) -> tuple[str, str]:
        """As JSON, and that as JSON; the entries of a block often share one."""
        if more is not self._last_more[0]:
            text = dumps(dict(more)).decode()
            self._last_more = more, text, dumps(text).decode()
        return self._last_more[1:]

    def _origin(
        self, outbox: str, kind: str, topic: str, source: str, more: Mapping[str, object], context: str,
        content_type: str | None,
    ) -> tuple[int, bytes]:  # fmt: skip
        run = more.get("run", "") if more else ""
        origin = (outbox, kind, topic, source, run if isinstance(run, str) else "", context, content_type)
        return self._origins.known.get(origin) or self.origins.get(origin) or self._new(origin)

    def _new(self, origin: Origin) -> tuple[int, bytes]:
        known = (self._origins.last + len(self.origins) + 1, dumps(list(origin)))
        self.origins[origin] = known
        return known


def _are_ordinary(entries: Sequence[Entry], first: int) -> bool:
    """Whether these are numbered on from the first, each with its payload in its row, and with ids and times that are
    the same in JSON."""
    if not entries:
        return False
    numbers, kinds, _, ids, _, times, parents, _, _, payloads, _ = zip(*entries, strict=True)
    if numbers != tuple(range(first, first + len(numbers))) or not _ORDINARY.issuperset(kinds):
        return False
    texts = "".join(chain(ids, *parents))
    return (
        texts.isascii() and not texts.encode().translate(None, _PLAIN)
        and {*map(type, times)} == {float} and isfinite(sum(times)) and max(map(len, payloads)) <= LARGE_BYTES
    )  # fmt: skip


def gap_end(entry: Entry) -> int:
    """The last number that a gap covers."""
    last = entry.more.get("last")
    return last if isinstance(last, int) and last <= _LARGEST else entry.number


def _shortened(entry: Entry, first: int, last: int) -> Entry:
    """The gap without what is here already."""
    return entry._replace(more={**entry.more, "first": first, "last": last})


def _refusal(number: int, entry: Entry, unfit: Unfit) -> Entry:
    """The gap in place of an entry that was refused."""
    more = {"first": number, "last": number, "why": f"refused: {unfit}", "kind": entry.kind}
    return Entry(number, "gap", "", "", 0, 0.0, (), "", None, b"", more)


def _check_fits(source: str, entry: Entry) -> None:
    """Raise `Unfit` for what the database cannot hold."""
    texts = (source, entry.topic, entry.id, entry.context, entry.content_type or "", entry.more.get("run", ""))
    if any(isinstance(text, str) and not _is_unicode(text) for text in (*texts, *entry.parents)):
        raise Unfit("it has text that is not Unicode (half of a surrogate pair)")
    if not -_LARGEST <= entry.seq <= _LARGEST:
        raise Unfit("its seq has more than 63 bits")
    try:
        dumps([entry.time, dict(entry.more)])
    except (ValueError, TypeError) as error:
        raise Unfit(f"its time or what else it says is no JSON: {error}") from error


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
