"""What a source gives to a recorder: entries, numbered without a hole, and batches of them.

An entry is one thing to be kept: a message, a recorded value, a call, what is needed to explain them. Its number is
that of its outbox, from 1; `(outbox, number)` names it for ever, whoever sends it and however often, so that a recorder
keeps each once and sees what is missing.

Promises: `unpack_batch(pack_batch(b))` is the batch; whatever else arrives is a `DecodeError`. An entry's bytes are the
same on the disk of its source and on the wire, so that sending it again costs no packing.

The trap: an entry's payload is a body (see `ether.wire.codec`) and goes with its content type. Entries of a process
that died are sent by another one: who sends a batch says nothing of who made its entries.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from ether.errors import DecodeError
from ether.wire.json_text import dumps, loads

Kind = Literal["data", "record", "call", "log", "state", "run", "context", "artifact", "gap"]
"""What an entry is.

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
"""
KINDS: frozenset[str] = frozenset(get_args(Kind))

MAGIC = b"\x00EB1"
_HEAD = struct.Struct(">II")
_LARGEST = (1 << 63) - 1
_HEAD_ITEMS = 10
_HEAD_TYPES = {
    (int, str, str, str, int, time, list, str, content_type, dict)
    for time in (int, float)
    for content_type in (str, type(None))
}
"""What a head may consist of: compared as a whole, because this is asked for each entry that is recorded."""
_NOTHING: Mapping[str, object] = MappingProxyType({})


class Entry(NamedTuple):
    """One thing to be kept."""

    number: int
    """Of its outbox, from 1, without a hole. 0 for what no outbox has numbered (a stranger's message, a log record)."""
    kind: Kind
    topic: str
    id: str
    """The message's id (UUID of version 7); for contexts and artifacts their SHA-256."""
    seq: int
    """The message's number among those of its source on its topic, 0 where there is none."""
    time: float
    """Unix seconds by the source's clock."""
    parents: tuple[str, ...]
    """Ids of the messages that led to it."""
    context: str
    """The SHA-256 of the context that explains it, "" where there is none."""
    content_type: str | None
    payload: bytes
    more: Mapping[str, object] = _NOTHING
    """What else is known, as JSON: `run`, `trial`, `heard` (ids that its instance had last received), `replay_of` …"""


class Batch(NamedTuple):
    """Entries of one outbox, in order, on their way to a recorder."""

    outbox: str
    """The outbox's id: 16 hexadecimal digits."""
    source: str
    """The instance or program whose outbox it is."""
    head: int
    """The highest number that the outbox had given out when this was sent."""
    entries: tuple[Entry, ...]
    base: int = 0
    """The outbox has nothing up to this number any more: a recorder has acknowledged it. One that knows nothing of this
    outbox begins behind it."""


def pack_entry(entry: Entry) -> bytes:
    """An entry's bytes."""
    head = dumps([*entry[:5], entry.time, list(entry.parents), entry.context, entry.content_type, dict(entry.more)])
    return b"".join((_HEAD.pack(len(head), len(entry.payload)), head, entry.payload))


def unpack_entry(packed: bytes) -> Entry:
    """The entry; raises `DecodeError`."""
    entry, end = _entry_at(packed, 0)
    if end != len(packed):
        raise DecodeError(f"an entry is followed by {len(packed) - end} more bytes")
    return entry


def pack_batch(outbox: str, source: str, head: int, packed_entries: Iterable[bytes], base: int = 0) -> bytes:
    """A batch's bytes, of entries that are packed already."""
    opening = dumps([outbox, source, head, base])
    return b"".join((MAGIC, _HEAD.pack(len(opening), 0), opening, *packed_entries))


def unpack_batch(packed: bytes) -> Batch:
    """The batch; raises `DecodeError`."""
    if not packed.startswith(MAGIC):
        raise DecodeError("this is no batch of entries")
    opening, at = _head_at(packed, len(MAGIC))
    match opening:
        case [str(outbox), str(source), int(head), int(base)] if 0 <= base <= _LARGEST and 0 <= head <= _LARGEST:
            pass
        case _:
            raise DecodeError("a batch's opening does not say whose it is")
    entries = []
    while at < len(packed):
        entry, at = _entry_at(packed, at)
        entries.append(entry)
    return Batch(outbox, source, head, tuple(entries), base)


def _head_at(packed: bytes, at: int) -> tuple[object, int]:
    """The JSON that begins there, and where its payload begins."""
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


def _entry_at(packed: bytes, at: int) -> tuple[Entry, int]:
    told, begin = _head_at(packed, at)
    (payload_bytes,) = _LENGTH.unpack_from(packed, at + 4)
    payload = packed[begin : begin + payload_bytes]
    if type(told) is list and len(told) == _HEAD_ITEMS and tuple(map(type, told)) in _HEAD_TYPES:
        number, kind, topic, entry_id, seq, time, parents, context, content_type, more = told
        if kind in KINDS and 0 <= number <= _LARGEST and (not parents or set(map(type, parents)) == {str}):
            entry = Entry(
                number, kind, topic, entry_id, seq, float(time), tuple(parents), context, content_type, payload, more
            )
            return entry, begin + payload_bytes
    raise DecodeError(f"an entry's head is not what it should be: {told!r:.120}")


_LENGTH = struct.Struct(">I")
