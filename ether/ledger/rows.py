"""From entries to rows of a ledger: the columns of a row, its checksum, its link, and which entries become rows.

    checksum = SHA-256(JSON of the columns `outbox` to `content_type`, JSON of `number` to `sha256`, then the payload if
               it is in the row)
    link     = SHA-256(link of the row before, then checksum);  before the first: SHA-256(JSON of [session, created])

The links form a chain: whoever changes a row has to change every link after it, up to the one in the file `head`.

Promises: pure; arguments are not changed. An intake that is thrown away leaves nothing behind.

The trap: an entry that no row can hold still uses up its number, as a gap that gives the reason. Otherwise its outbox
would offer it again for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import NamedTuple

from ether.wire.entries import KINDS, Batch, Entry, first_of, signature_entry
from ether.wire.json_text import dumps

LARGE_BYTES = 64 * 1024
"""A payload of more bytes is a file of its own in objects/."""
LEAN_LARGE_BYTES = 1 << 20
"""The same where syncs are to be spared: each such file costs three to five of them."""

BY_HASH = frozenset({"context", "artifact"})
"""Kinds whose id is the hash of their payload."""

_ORDINARY = KINDS - BY_HASH - {"gap", "conflict", "signature"}
"""Kinds whose rows `_add_ordinary` can make."""

COLUMNS = (
    "row", "outbox", "kind", "topic", "source", "run", "context", "content_type",
    "number", "id", "seq", "time", "received", "parents", "more", "size", "sha256", "payload", "checksum", "link",
)  # fmt: skip
"""The columns of the view `entries`: a row together with its origin."""

ORIGIN_COLUMNS = 7
"""How many columns after `row` belong to the origin."""

_LARGEST = (1 << 63) - 1
"""The largest integer that SQLite can store."""
_MOST_ORIGINS = 20_000
"""That are remembered."""
_sha256 = hashlib.sha256

_PLAIN = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
"""In a text of these bytes alone JSON escapes nothing."""

Row = tuple[object, ...]
Origin = tuple[str, str, str, str, str, str, str | None]
"""Outbox, kind, topic, source, run, context, content type: the columns that many rows have in common. They are stored
once, in the table `origins`, and a row refers to them by number."""


class OriginCache:
    """The number of each known origin, with its JSON. New numbers go on after `last`, the last one in the table. An
    origin that was forgotten gets another row, which costs some bytes and nothing else."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.known: dict[Origin, tuple[int, bytes]] = {}

    def add(self, origins: Mapping[Origin, tuple[int, bytes]]) -> None:
        """Remember origins that were committed to the table."""
        if len(self.known) > _MOST_ORIGINS:
            self.known.clear()
        self.known.update(origins)
        self.last += len(origins)


class OutboxState(NamedTuple):
    """How far an outbox has been recorded."""

    source: str
    highest: int
    """The highest number that is in the ledger; all before it are, too."""
    head: int
    """The highest number that the source has given out, as far as is known."""
    last: float = 0.0
    """Unix seconds by the recorder's clock, when something last came from it."""


def first_link(session: str, created: str) -> bytes:
    """The link before the first row."""
    return _sha256(dumps([session, created])).digest()


def checksum_of(columns: list[object], payload: bytes | None) -> bytes:
    """A row's checksum: of its columns from `outbox` to `sha256`, and of the payload that is in the row."""
    return _checksum(dumps(columns[:ORIGIN_COLUMNS]), columns[ORIGIN_COLUMNS:], payload)


def _checksum(origin: bytes, columns: list[object], payload: bytes | None) -> bytes:
    return _sha256(origin + dumps(columns) + payload if payload else origin + dumps(columns)).digest()


def link_of(before: bytes, checksum: bytes) -> bytes:
    """A row's link."""
    return _sha256(before + checksum).digest()


def outbox_checksum(outbox: str, state: OutboxState) -> bytes:
    """The checksum of an outbox's row."""
    return _sha256(dumps([outbox, *state])).digest()


class Unfit(ValueError):
    """An entry that no row can hold."""


IsKept = Callable[[str, Sequence[Entry]], Sequence[bool]]
"""Of entries whose numbers the ledger of an outbox has: for each whether it is kept as it is, or nothing is known of
it. False: there is another one under its number."""


def _nothing_known(outbox: str, entries: Sequence[Entry]) -> Sequence[bool]:
    return [True] * len(entries)


class Intake:
    """Gathers the rows of one transaction. They follow on `rows_before` rows, the last of which has `link`.

    `careful` checks that the database can hold each entry, and refuses the entry otherwise. Without it, which is
    faster, one such entry makes the whole transaction fail; the writer then makes it again with care.
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
        is_kept: IsKept = _nothing_known,
        large_bytes: int = LARGE_BYTES,
    ) -> None:
        self._is_kept, self._large_bytes = is_kept, large_bytes
        self.conflicts = 0
        """How many entries were in the ledger with another content, and are kept as entries of their own."""
        self.rows_before, self.link, self.received, self._careful = rows_before, link, received, careful
        self._known, self._origins = outboxes, origins
        self.origins: dict[Origin, tuple[int, bytes]] = {}
        """New origins."""
        self.rows: list[Row] = []
        self.parents: list[tuple[str, int]] = []
        """Each parent with the row that names it."""
        self.outboxes: dict[str, OutboxState] = {}
        """New states."""
        self.contents: dict[str, bytes] = {}
        """By SHA-256 the small payloads for the table `contents`."""
        self.objects: dict[str, bytes] = {}
        """By SHA-256 the large payloads for objects/."""
        self.refused: list[str] = []
        """For each refused entry a text that names it and the reason."""
        self.repeated = 0
        """How many entries are in the ledger already."""
        self._last_more: tuple[Mapping[str, object], str, str] = {}, "{}", '"{}"'

    def take(self, batch: Batch) -> None:
        """Take the entries that follow on the outbox's highest number, up to the first hole.

        An entry or gap that is in the ledger already is counted as repeated: its outbox sends everything again that was
        not acknowledged. A gap covers the numbers from `first_of` to `gap_end`, so it may begin before the highest
        number and reach beyond it; then only the rest of it is taken. After a hole nothing is taken, because
        acknowledging a number acknowledges all before it; the outbox sends those again.
        """
        if self._careful:
            batch = batch._replace(outbox=_unicode(batch.outbox), source=_unicode(batch.source))
        state = self.state(batch.outbox, batch.source)
        if state.source != batch.source:
            self.refused.append(f"a batch that {batch.source!r} sends in the name of the outbox of {state.source!r}")
            return
        highest, rows = state.highest, len(self.rows)
        entries, again = batch.entries, list[Entry]()
        if not self._careful and _are_ordinary(entries, highest + 1, self._large_bytes):
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
                again.append(entry)
        if again:
            self._take_again(batch, again)
        # `head` is the sender's word, so it is bounded by what the database can hold.
        head = min(max(state.head, batch.head, highest), _LARGEST)
        if (highest, head) != (state.highest, state.head) or batch.outbox not in self._known:
            self.outboxes[batch.outbox] = OutboxState(state.source, highest, head, self.received)
        if batch.signature is not None and highest > state.highest:
            new = [entry.number for entry in batch.entries if entry.kind != "gap" and entry.number <= highest]
            count = sum(1 for number in new if number > state.highest)
            signer = _sha256(batch.signature.signer).hexdigest()
            signature = signature_entry(batch, len(self.rows) - rows, count, signer)
            self._add("", batch.source, 0, signature._replace(time=self.received))

    def _take_again(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """Entries whose numbers are in the ledger already: sent again, or another content under the same number. Of two
        contents none is known to be the right one, so the later one is kept, too, as an entry of its own."""
        known = self._known.get(batch.outbox)
        before = known.highest if known else 0
        # What this transaction has taken is not in the database yet. Rows of other outboxes do no harm: ids differ.
        taken = {(row[2], row[3], row[9]) for row in self.rows} if entries[-1].number > before else ()
        here = [(entry.number, entry.id, len(entry.payload)) in taken for entry in entries]
        asked = [entry for entry, is_here in zip(entries, here, strict=True) if not is_here and entry.number <= before]
        answers = iter(self._is_kept(batch.outbox, asked) if asked else ())
        for entry, is_here in zip(entries, here, strict=True):
            if is_here or (entry.number <= before and next(answers)):
                self.repeated += 1
                continue
            what = {"kind": entry.kind, "outbox": batch.outbox, "number": entry.number}
            more = {**entry.more, "conflict": what}
            # One that no row can hold is refused, whenever it comes: it is no second content that is kept.
            self.conflicts += self._add("", batch.source, 0, entry._replace(number=0, kind="conflict", more=more))

    def take_loose(self, source: str, entry: Entry) -> None:
        """Take an entry without an outbox: of a source that does not use Ether, or the recorder's own."""
        self._add("", source, 0, entry)

    def state(self, outbox: str, source: str = "") -> OutboxState:
        """The state of an outbox after this transaction."""
        return self.outboxes.get(outbox) or self._known.get(outbox) or OutboxState(source, 0, 0)

    def _add(self, outbox: str, source: str, number: int, entry: Entry) -> bool:
        """Make the row of one entry; False for one that no row can hold."""
        try:
            if self._careful:
                _check_fits(source, entry)
            self._add_row(outbox, source, number, entry)
            return True
        except Unfit as unfit:
            self.refused.append(f"entry {number} of {source!r} ({entry.kind} {entry.topic!r}): {unfit}")
            if outbox:  # an entry without an outbox has no number that would stay open
                self._add_row(outbox, _unicode(source), number, _refusal(number, entry, unfit))
            return False

    def _add_row(self, outbox: str, source: str, number: int, entry: Entry) -> None:
        """Make the row of one entry, and remember what goes to the other tables and to objects/."""
        _, kind, topic, entry_id, seq, time, parents, context, content_type, payload, more = entry
        size = len(payload)
        sha256: str | None = None
        body: bytes | None = payload
        if kind in BY_HASH or size > self._large_bytes:
            sha256, body = _sha256(payload).hexdigest(), None
            if kind in BY_HASH and sha256 != entry_id:
                raise Unfit(f"its content has the SHA-256 {sha256}, not {entry_id}")
            (self.objects if size > LARGE_BYTES else self.contents)[sha256] = payload
        origin, opening = self._origin(outbox, kind, topic, source, more, context, content_type)
        columns = [
            number, entry_id, seq, time + 0.0, self.received,  # + 0.0 makes -0.0 the zero that SQLite gives back
            dumps(parents).decode() if parents else "[]", self._texts_of(more)[0] if more else "{}",
            size, sha256,
        ]  # fmt: skip
        checksum = _checksum(opening, columns, body)
        self.link = link_of(self.link, checksum)
        row = self.rows_before + len(self.rows) + 1
        self.rows.append((row, origin, *columns, body, checksum, self.link))
        if parents:
            self.parents += [(parent, row) for parent in set(parents)]

    def _add_ordinary(self, outbox: str, source: str, entries: Sequence[Entry]) -> None:
        """The same as `_add_row` for each entry, in a third of the time, for entries that `_are_ordinary` accepts.

        It is faster because it writes the JSON of a row as text (the ids need no escaping, and a float's `repr` is its
        JSON), because it looks up an origin only where it differs from that of the row before, and because it keeps the
        running values in local variables. The checksum must be that of `_add_row` to the byte.
        """
        link, row, received, add = self.link, self.rows_before + len(self.rows), repr(self.received), self.rows.append
        last: tuple[object, ...] = ()
        for number, kind, topic, entry_id, seq, time, parents, context, content_type, payload, more in entries:
            shared = (kind, topic, context, content_type, id(more))
            if shared != last:
                last = shared
                origin, opening = self._origin(outbox, kind, topic, source, more, context, content_type)
                more_text, more_quoted = self._texts_of(more)
            row += 1
            time += 0.0  # -0.0 becomes 0.0, as in `_add_row`
            size = len(payload)
            if parents:
                joined = '","'.join(parents)
                named, named_quoted = f'["{joined}"]', '[\\"' + joined.replace('"', '\\"') + '\\"]'  # JSON, in JSON
                self.parents += [(parent, row) for parent in ({*parents} if len(parents) > 1 else parents)]
            else:
                named = named_quoted = "[]"
            columns = f'[{number},"{entry_id}",{seq},{time!r},{received},"{named_quoted}",{more_quoted},{size},null]'
            checksum = _sha256(b"".join((opening, columns.encode(), payload))).digest()
            link = _sha256(link + checksum).digest()
            add((row, origin, number, entry_id, seq, time, self.received, named, more_text, size, None, payload,
                 checksum, link))  # fmt: skip
        self.link = link

    def _texts_of(self, more: Mapping[str, object]) -> tuple[str, str]:
        """The mapping as JSON, and that text as a JSON string. The entries of a block often share one mapping, so the
        last result is remembered."""
        if more is not self._last_more[0]:
            text = dumps(dict(more)).decode()
            self._last_more = more, text, dumps(text).decode()
        return self._last_more[1:]

    def _origin(
        self, outbox: str, kind: str, topic: str, source: str, more: Mapping[str, object], context: str,
        content_type: str | None,
    ) -> tuple[int, bytes]:  # fmt: skip
        """The number of an origin, and its JSON."""
        run = more.get("run", "") if more else ""
        origin = (outbox, kind, topic, source, run if isinstance(run, str) else "", context, content_type)
        return self._origins.known.get(origin) or self.origins.get(origin) or self._new(origin)

    def _new(self, origin: Origin) -> tuple[int, bytes]:
        known = (self._origins.last + len(self.origins) + 1, dumps(list(origin)))
        self.origins[origin] = known
        return known


def _are_ordinary(entries: Sequence[Entry], first: int, large_bytes: int) -> bool:
    """Whether `_add_ordinary` may take these: they are numbered from `first` on without a hole, every payload goes into
    its row, the ids need no escaping in JSON, and all times are finite floats. Each check is one operation of C over
    all entries, because a loop of Python would cost what the fast way saves."""
    if not entries:
        return False
    numbers, kinds, _, ids, _, times, parents, _, _, payloads, _ = zip(*entries, strict=True)
    if numbers != tuple(range(first, first + len(numbers))) or not _ORDINARY.issuperset(kinds):
        return False
    texts = "".join(chain(ids, *parents))
    return (
        texts.isascii() and not texts.encode().translate(None, _PLAIN)
        and {*map(type, times)} == {float} and isfinite(sum(times)) and max(map(len, payloads)) <= large_bytes
    )  # fmt: skip


def gap_end(entry: Entry) -> int:
    """The last number that a gap covers."""
    last = entry.more.get("last")
    return last if isinstance(last, int) and last <= _LARGEST else entry.number


def _shortened(entry: Entry, first: int, last: int) -> Entry:
    """The gap without the numbers that are in the ledger already."""
    return entry._replace(more={**entry.more, "first": first, "last": last})


def _refusal(number: int, entry: Entry, unfit: Unfit) -> Entry:
    """The gap that takes the number of a refused entry."""
    more = {"first": number, "last": number, "why": f"refused: {unfit}", "kind": entry.kind}
    return Entry(number, "gap", "", "", 0, 0.0, (), "", None, b"", more)


def _check_fits(source: str, entry: Entry) -> None:
    """Raise `Unfit` for an entry that the database cannot hold."""
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
