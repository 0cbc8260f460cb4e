"""Message ids: UUIDs of version 7 (RFC 9562), which sort by time.

Promises: the ids of one `MessageIds` never repeat, and each is greater than the one before, as text too, even
when the clock is set back. No lock is needed: the only shared step, drawing the next number, is one atomic
operation.

The trap: uniqueness between processes rests on the seed. Give each process 48 fresh random bits.
"""

from __future__ import annotations

from itertools import count

from ether.errors import DecodeError

_NODE_BITS = 48
# The 26 bits between the time and the node: 12 of `rand_a` and the first 14 of `rand_b`.
_COUNTER_BITS = 26


class MessageIds:
    """A source of ids. `seed`: any int, of which the lowest 48 bits are used."""

    __slots__ = ("_latest_ms", "_node", "_numbers")

    def __init__(self, seed: int) -> None:
        self._node = f"{seed & ((1 << _NODE_BITS) - 1):012x}"
        self._numbers = count()
        self._latest_ms = 0

    @property
    def node(self) -> str:
        """What all of these ids end with, and no other process's: see `node_of`."""
        return self._node

    def next(self, unix_ms: int) -> str:
        """The next id, at `unix_ms` milliseconds since 1970."""
        if unix_ms > self._latest_ms:
            self._latest_ms = unix_ms
        # The running number is added to, not put beside, the time: after 2**26 ids the time field runs one
        # millisecond ahead instead of the counter starting again, so the sum can only grow.
        n = (self._latest_ms << _COUNTER_BITS) + next(self._numbers)
        return "%08x-%04x-7%03x-%04x-%s" % (  # noqa: UP031 (the fastest way to write it)
            n >> 42 & 0xFFFFFFFF,
            n >> 26 & 0xFFFF,
            n >> 14 & 0xFFF,
            0x8000 | n & 0x3FFF,
            self._node,
        )


def node_of(message_id: str) -> str:
    """Which process made an id. For ids that some process of ours made; of any other text, its end."""
    return message_id[-12:]


def unix_ms_of(message_id: str) -> int:
    """When an id was made, in milliseconds since 1970; `DecodeError` where it is not a UUID of version 7."""
    digits = message_id.replace("-", "")
    try:
        if len(message_id) != 36 or len(digits) != 32 or message_id[14] != "7" or not digits.isalnum():
            raise ValueError("wrong form")
        return int(digits, 16) >> 80
    except ValueError as error:
        raise DecodeError(f"{message_id[:80]!r} is not a message id: it must be a UUID of version 7") from error
