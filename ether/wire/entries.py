"""What a source gives to a recorder: entries, numbered without a hole, and batches of them; and the facts that a
recorder knows about an outbox.

An entry is one thing to be recorded: a message, a value, a call, or what explains them. An outbox numbers its entries
from 1. `(outbox, number)` identifies an entry for ever, whichever process sends it and however often, so that a
recorder stores each entry once and sees which are missing.

On the wire and on disk. Entries that come together are packed together, as a block, by columns. A batch is an opening
and any number of blocks. Promises: `unpack_batch(pack_batch(b))` is the batch, and any other bytes are a `DecodeError`.
A block has the same bytes on the disk of its source and on the wire, so that sending it again costs no packing.

The traps. An entry's payload is a body (see `ether.wire.codec`) and must stay together with its content type. And the
entries of a process that died are sent by another one: the sender of a batch is not the source of its entries.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, get_args

from ether.errors import DecodeError
from ether.wire.json_text import dumps, loads

Kind = Literal["data", "record", "call", "log", "state", "run", "context", "artifact", "gap", "conflict", "signature"]
"""The kinds of entries.

data      a message on a data topic; `topic` is the user's name of it
record    a value given to `ether.record()`; `topic` is its name
call      a call that was served: `topic` is `instance.method`, `id` that of the request; `more` says who called, the
          arguments' digest and what came of it
log       a log record
state     an instance came, changed or left
run       a run began or ended
context   what explains entries: JSON, `id` is the payload's SHA-256 in hexadecimal; entries refer to it by `context`
artifact  a text or file that a context refers to by its SHA-256, which is the `id`; `topic` says what it is for people
gap       numbers that the outbox has given up: `more` has `first`, `last`, `why` and `topics`, a mapping from
          each topic to the first and last `seq` that are lost and how many
conflict  an entry whose number the ledger has with another content; `more` has its `kind`, `outbox` and `number`
signature what a device has signed of the entries before it (see `signature_entry`); made by a recorder alone
"""
KINDS: frozenset[str] = frozenset(get_args(Kind))
_GIVEN = KINDS - {"signature"}
"""The kinds that a source may give."""

MAGIC = b"\x00EB2"
SIGNED_MAGIC = b"\x00ES1"
_SIGNED_HEAD = struct.Struct(">HH")
_SIGNED_WORDS = b"ether batch 1\x00"
_DIGEST_BYTES = 32
_HEAD = struct.Struct(">II")
_LARGEST = (1 << 63) - 1
_LENGTH = struct.Struct(">I")
_INT, _TEXT = frozenset({int}), frozenset({str})
_COLUMN_TYPES = (
    _INT, _TEXT, _TEXT, _TEXT, _INT, frozenset({list}), _TEXT, frozenset({str, type(None)}), frozenset({dict}), _INT,
)  # fmt: skip
"""The types of values in each of a block's columns: the fields of `Entry` in their order, without time and payload,
then the payloads' sizes. A column is checked as a whole, because this runs for everything that is recorded. The times
are not in the JSON; they follow it as doubles."""
_TIME_BYTES = 8
_T = TypeVar("_T")
_NOTHING: Mapping[str, object] = MappingProxyType({})


class Entry(NamedTuple):
    """One thing to be recorded."""

    number: int
    """The number that its outbox gave it, from 1, without a hole; 0 where no outbox did (foreign messages, log
    records)."""
    kind: Kind
    topic: str
    id: str
    """The message's id (UUID of version 7); for contexts and artifacts their SHA-256."""
    seq: int
    """The message's number among those of its source on its topic, 0 where there is none."""
    time: float
    """Unix seconds by the source's clock."""
    parents: tuple[str, ...]
    """Ids of the messages that led to this one."""
    context: str
    """The SHA-256 of the context that explains it, "" where there is none."""
    content_type: str | None
    payload: bytes
    more: Mapping[str, object] = _NOTHING
    """Everything else, as JSON: `run`, `trial`, `heard`, `since`, `made_of` (see `ether.recording.inputs`),
    `replay_of` …"""


class BatchSignature(NamedTuple):
    """What a device has signed of a batch: its opening and each block, by their hashes. So each block can be verified
    alone, also where a ledger had some of them before."""

    signer: bytes
    """Who has signed: its certificate on the wire; in a ledger what `ether.recording.signature_check` makes of it."""
    signature: bytes
    opening: str
    blocks: tuple[tuple[int, int, bytes], ...]
    """The first and the last number of each block, and its SHA-256."""

    def message(self) -> bytes:
        """What was signed."""
        return _signed_message(self.opening.encode(), [digest for *_, digest in self.blocks])


class Batch(NamedTuple):
    """Entries of one outbox, in order, on their way to a recorder."""

    outbox: str
    """The outbox's id: 16 hexadecimal digits."""
    source: str
    """The instance or program whose outbox it is."""
    head: int
    """The highest number that the outbox had given when the batch was sent."""
    entries: tuple[Entry, ...]
    base: int = 0
    """A recorder has acknowledged everything up to this number, and the outbox has deleted it. A recorder that does not
    know this outbox begins behind it."""
    given: int = 0
    """The highest number that this recorder has acknowledged, in this or in an earlier life; 0 where the outbox does
    not know. A ledger that ends below it has lost its end."""
    signature: BatchSignature | None = None


NOT_HERE = "not for this recorder"
"""The reason of a gap that loses nothing: its entries went to another recorder."""

NOT_HERE_ANY_MORE = "acknowledged before, and not in this ledger any more"
"""The reason of a gap of entries that were on the disk: the ledger was put back from a copy, or made anew."""


class GapFact(NamedTuple):
    """Numbers that an outbox has given up, as its gap entry reports them."""

    first: int
    last: int
    why: str
    topics: Mapping[str, object]
    """From each topic to the first and last `seq` that are lost, and how many."""
    since: float
    """Unix seconds when they were given up."""


class OutboxFacts(NamedTuple):
    """What a recorder knows about one outbox."""

    outbox: str
    source: str
    highest: int
    """The highest number that is on the recorder's disk together with all numbers before it."""
    head: int
    """The highest number that the outbox has given, as far as the recorder knows."""
    gaps: tuple[GapFact, ...] = ()
    last_time: float = 0.0
    """Unix seconds when the last entry came from it; 0 where that is unknown."""


def first_of(entry: Entry) -> int:
    """The first number that an entry stands for: the first of a gap, the own number of any other entry."""
    first = entry.more.get("first") if entry.kind == "gap" else None
    return first if isinstance(first, int) else entry.number


def pack_entry(entry: Entry) -> bytes:
    """One entry's bytes: a block of its own."""
    return pack_entries((entry,))


def pack_entries(entries: Sequence[Entry]) -> bytes:
    """The bytes of a block of entries that follow one another, at least one.

    A block is written by columns: all numbers, all kinds, all topics, and so on. A column of equal values is written as
    one value, and a column of consecutive numbers as the first one. One call of the JSON encoder for all entries takes
    a tenth of the time of a call for each.
    """
    number, kind, topic, entry_id, seq, time, parents, context, content_type, payload, more = zip(*entries, strict=True)
    sizes = tuple(map(len, payload))
    columns = (
        _counted(number), _alike(kind), _alike(topic), entry_id, _counted(seq), _alike(parents), _alike(context),
        _alike(content_type), [dict(each) for each in _alike(more)], _alike(sizes),
    )  # fmt: skip
    head, times = dumps(columns), struct.pack(f">{len(time)}d", *time)
    return b"".join((_HEAD.pack(len(head), len(times) + sum(sizes)), head, times, *payload))


def _alike(column: tuple[_T, ...]) -> tuple[_T, ...]:
    """A column, or only its first value where all are equal; the inverse of `_spread`."""
    return column[:1] if column.count(column[0]) == len(column) else column


def _counted(column: tuple[int, ...]) -> tuple[int, ...]:
    """A column, or only its first number where the others count on from it; the inverse of `_count_on`."""
    first = column[0]
    return column[:1] if column == tuple(range(first, first + len(column))) else column


def unpack_entries(packed: bytes) -> list[Entry]:
    """The entries of one block; raises `DecodeError`."""
    entries, end = _block_at(packed, 0)
    if end != len(packed):
        raise DecodeError(f"a block of entries is followed by {len(packed) - end} more bytes")
    return entries


Sign = tuple[bytes, Callable[[bytes], bytes]]
"""A device's certificate, and what signs a message with its key."""


def pack_batch(
    outbox: str,
    source: str,
    head: int,
    blocks: Iterable[bytes],
    base: int = 0,
    given: int = 0,
    sign: Sign | None = None,
) -> bytes:
    """The bytes of a batch, made of packed blocks; with `sign` in front who has signed them."""
    opening = dumps([outbox, source, head, base, *([given] if given else [])])
    if sign is None:
        return b"".join((MAGIC, _HEAD.pack(len(opening), 0), opening, *blocks))
    blocks = [*blocks]
    certificate, signed = sign
    signature = signed(_signed_message(opening, [_digest(block) for block in blocks]))
    front = SIGNED_MAGIC, _SIGNED_HEAD.pack(len(certificate), len(signature)), certificate, signature
    return b"".join((*front, MAGIC, _HEAD.pack(len(opening), 0), opening, *blocks))


def _signed_message(opening: bytes, digests: Iterable[bytes]) -> bytes:
    return b"".join((_SIGNED_WORDS, _digest(opening), *digests))


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def unpack_batch(packed: bytes) -> Batch:
    """The batch; raises `DecodeError`. Its signature is not verified here."""
    certificate, signature, at = _signature_at(packed)
    if not packed.startswith(MAGIC, at):
        raise DecodeError("this is no batch of entries")
    begin = at + len(MAGIC) + _HEAD.size
    opening, at = _head_at(packed, at + len(MAGIC))
    opening_text, given = packed[begin:at].decode(), 0
    match opening:
        case [str(outbox), str(source), int(head), int(base)]:
            pass
        case [str(outbox), str(source), int(head), int(base), int(given)]:
            pass
        case _:
            raise DecodeError("a batch's opening does not say whose it is")
    if not all(0 <= number <= _LARGEST for number in (head, base, given)):
        raise DecodeError("a batch's opening has numbers that cannot be")
    entries: list[Entry] = []
    blocks: list[tuple[int, int, bytes]] = []
    whole = memoryview(packed)
    while at < len(packed):
        start = at
        block, at = _block_at(packed, at)
        entries += block
        if certificate:
            blocks.append((first_of(block[0]), block[-1].number, _digest(whole[start:at])))
    signed = BatchSignature(certificate, signature, opening_text, tuple(blocks)) if certificate else None
    return Batch(outbox, source, head, tuple(entries), base, given, signed)


def _signature_at(packed: bytes) -> tuple[bytes, bytes, int]:
    """The certificate and the signature in front of a batch, empty where nobody has signed it, and where it begins."""
    if not packed.startswith(SIGNED_MAGIC):
        return b"", b"", 0
    begin = len(SIGNED_MAGIC) + _SIGNED_HEAD.size
    if len(packed) < begin:
        raise DecodeError("a signed batch ends in its signature")
    certificate_bytes, signature_bytes = _SIGNED_HEAD.unpack_from(packed, len(SIGNED_MAGIC))
    end = begin + certificate_bytes + signature_bytes
    if end > len(packed) or not certificate_bytes or not signature_bytes:
        raise DecodeError("a signed batch ends in its signature")
    return packed[begin : begin + certificate_bytes], packed[begin + certificate_bytes : end], end


def signature_entry(batch: Batch, rows: int, count: int, signer: str) -> Entry:
    """The entry that keeps the signature of a signed batch in a ledger. It stands behind the `rows` rows that came with
    the batch, `count` of which are entries of its outbox and no gaps. `signer`: the SHA-256 of what says who has
    signed, which is an artifact."""
    signed = batch.signature
    assert signed is not None
    more = {"opening": signed.opening, "rows": rows, "blocks": [list(block[:2]) for block in signed.blocks]}
    payload = b"".join((*(digest for *_, digest in signed.blocks), signed.signature))
    return Entry(0, "signature", batch.outbox, "", count, 0.0, (), signer, None, payload, more)


def kept_signature(entry_more: object, payload: bytes, signer: bytes) -> tuple[BatchSignature, int]:
    """The inverse of `signature_entry`: the signature, and of how many rows in front. Raises `DecodeError`."""
    match entry_more:
        case {"opening": str(opening), "rows": int(rows), "blocks": list(spans)} if all(map(_is_span, spans)):
            end = len(spans) * _DIGEST_BYTES
            digests = [payload[at : at + _DIGEST_BYTES] for at in range(0, end, _DIGEST_BYTES)]
            blocks = tuple((span[0], span[1], digest) for span, digest in zip(spans, digests, strict=True))
            return BatchSignature(signer, payload[end:], opening, blocks), rows
    raise DecodeError("it is no signature of a batch")


def _is_span(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and {*map(type, value)} == {int}


def _head_at(packed: bytes, at: int) -> tuple[object, int]:
    """The JSON that begins at `at` behind its two lengths, and the position of the payload behind it."""
    if at + _HEAD.size > len(packed):
        raise DecodeError("a batch ends in the middle of an entry")
    head_bytes, payload_bytes = _HEAD.unpack_from(packed, at)
    begin = at + _HEAD.size
    if begin + head_bytes + payload_bytes > len(packed):
        raise DecodeError("a batch ends in the middle of an entry")
    try:
        text = packed[begin : begin + head_bytes].decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"an entry's head is not UTF-8: {error}") from error
    return loads(text, strict=True), begin + head_bytes


def _block_at(packed: bytes, at: int) -> tuple[list[Entry], int]:
    """The entries of the block that begins at `at`, and the position behind it. Whatever the columns claim, no more
    memory is taken than the number of ids and the block's own bytes explain."""
    columns, begin = _head_at(packed, at)
    (payload_bytes,) = _LENGTH.unpack_from(packed, at + 4)
    if not _are_columns(columns):
        raise DecodeError(f"the head of a block of entries is not what it should be: {columns!r:.120}")
    numbers, kinds, topics, ids, seqs, parents, contexts, content_types, more, sizes = columns
    count, end = len(ids), begin + payload_bytes
    sizes = _spread(sizes, count)
    if _TIME_BYTES * count + sum(sizes) != payload_bytes:
        raise DecodeError(f"a block of {count} entries has {payload_bytes} bytes of times and payload")
    times = struct.unpack_from(f">{count}d", packed, begin)
    begin += _TIME_BYTES * count
    counted = _count_on(numbers, count)
    if min(counted) < 0 or max(counted) > _LARGEST:
        raise DecodeError(f"a block of entries is numbered from {min(counted)} to {max(counted)}")
    entries = zip(
        counted, _spread(kinds, count), _spread(topics, count), _spread(ids, count), _count_on(seqs, count),
        times, map(tuple, _spread(parents, count)), _spread(contexts, count), _spread(content_types, count),
        [packed[a:b] for a, b in pairwise(accumulate(sizes, initial=begin))],
        _spread(more, count), strict=True,
    )  # fmt: skip
    return list(map(Entry._make, entries)), end


def _are_columns(decoded: object) -> TypeGuard[list[list[Any]]]:
    """Whether these are the columns of a block, each with values of its type. Their lengths are checked by
    `_spread`."""
    if type(decoded) is not list or len(decoded) != len(_COLUMN_TYPES) or {*map(type, decoded)} != {list}:
        return False
    if not all(allowed.issuperset(map(type, column)) for allowed, column in zip(_COLUMN_TYPES, decoded, strict=True)):
        return False
    _, kinds, _, ids, *_, parents, _, _, _, sizes = decoded
    return (
        bool(ids and sizes)
        and min(sizes) >= 0
        and _GIVEN.issuperset(kinds)
        and _TEXT.issuperset(map(type, chain(*parents)))
    )


def _spread(column: list[_T], count: int) -> list[_T]:
    """A column of `count` values, from one that may hold a single value for all."""
    if len(column) == count:
        return column
    if len(column) == 1:
        return column * count
    raise DecodeError(f"a block of {count} entries has a column of {len(column)}")


def _count_on(column: list[int], count: int) -> Sequence[int]:
    """A column of `count` numbers, from one that may hold only the first."""
    return range(column[0], column[0] + count) if len(column) == 1 else _spread(column, count)
