"""A batch of entries in parts, for brokers that take no message as large as the batch.

Each part says of which outbox it is, of which attempt to send a batch, which part, and of how many. The parts of one
attempt are published in order on the recorder's topic; the recorder puts them together again. Where one is missing the
batch does not come together, no receipt is sent, and the outbox sends everything that is not acknowledged once more, as
another attempt.

Promises: a part takes no more memory than its bytes; what never comes together is dropped when its outbox begins
another attempt, and when all such parts take more than `MOST_BYTES`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from ether.errors import DecodeError

MAGIC = b"\x00EP1"
_HEAD = struct.Struct(">16s8sII")
HEAD_BYTES = len(MAGIC) + _HEAD.size

MOST_BYTES = 512 << 20
"""The most that waits in one recorder for the rest of its batches; the largest MQTT message has half of that."""


def in_parts(batch: bytes, outbox: str, largest: int) -> Iterator[bytes]:
    """The messages that carry a batch of this outbox (16 hexadecimal digits): the batch itself where it has no more
    than `largest` bytes."""
    if len(batch) <= largest:
        yield batch
        return
    each = max(1, largest - HEAD_BYTES)
    count = -(-len(batch) // each)
    attempt, view = os.urandom(8), memoryview(batch)
    for index in range(count):
        head = _HEAD.pack(outbox.encode(), attempt, index, count)
        yield b"".join((MAGIC, head, view[index * each : (index + 1) * each]))


def is_part(message: bytes) -> bool:
    """Whether a message to a recorder is a part of a batch."""
    return message.startswith(MAGIC)


def body_bytes(message: bytes) -> int:
    """How many bytes of its batch a message carries."""
    return len(message) - HEAD_BYTES if is_part(message) else len(message)


class _Unfinished:
    """The parts of one attempt that have arrived."""

    __slots__ = ("attempt", "count", "parts", "size")

    def __init__(self, attempt: bytes, count: int) -> None:
        self.attempt, self.count = attempt, count
        self.parts: list[bytes] = []
        self.size = 0


class PartsTable:
    """Puts batches together, one for each outbox at a time. For one thread."""

    def __init__(self) -> None:
        self._unfinished: dict[bytes, _Unfinished] = {}
        """By outbox; the one that began first comes first."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes of batches that are not complete."""
        return sum(unfinished.size for unfinished in self._unfinished.values())

    def add(self, message: bytes) -> bytes | None:
        """Take a part. Returns the batch where this was its last part, else None; raises `DecodeError`."""
        if len(message) < HEAD_BYTES:
            raise DecodeError("a part of a batch ends in its head")
        outbox, attempt, index, count = _HEAD.unpack_from(message, len(MAGIC))
        if index >= count:
            raise DecodeError(f"part {index} of {count} of a batch")
        unfinished = self._unfinished.get(outbox)
        if unfinished is None or unfinished.attempt != attempt:
            self._unfinished.pop(outbox, None)
            if index:  # its beginning is lost, so it never comes together
                return None
            unfinished = self._unfinished[outbox] = _Unfinished(attempt, count)
        if index < len(unfinished.parts):  # QoS 1 may deliver twice
            return None
        if index > len(unfinished.parts) or count != unfinished.count:
            del self._unfinished[outbox]
            return None
        unfinished.parts.append(message[HEAD_BYTES:])
        unfinished.size += len(message) - HEAD_BYTES
        if len(unfinished.parts) == count:
            del self._unfinished[outbox]
            return b"".join(unfinished.parts)
        self._keep_within_limit()
        return None

    def _keep_within_limit(self) -> None:
        while self.waiting_bytes > MOST_BYTES:
            del self._unfinished[next(iter(self._unfinished))]
