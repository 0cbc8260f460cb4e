"""The properties of a PUBLISH that look like those of one before: checked at one look instead of one by one.

For: a client sends the same properties with each message, in the same order; only their values change. A `Shape` is
what stays: numbers, lengths, response topic. Where these bytes are the same as in a section that was read property by
property (`properties.read_of_publish`), all that is left to check is the texts.
How it works. The section is one large number: its fixed bytes are compared by a mask. Texts count where they are ASCII
without NUL. The bytes that are no text (correlation data, expiry) lie together and are cut out.

Promise: a section that fits is one that reading it would find valid. One that does not fit may be valid: it is read.
"""

from broker.wire.properties import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    USER_PROPERTY,
)

MOST_SHAPES, LONGEST_SHAPE = 32, 512
"""Of one connection, and in bytes: somebody who invents properties must not fill the memory with their shapes."""


_MIXED = -2
"""A text lies between bytes that are none, and a NUL in one could not be told from a zero in the other; or there is
something unknown here."""
_TEXTS_AND_DATA = (CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY)


class Shape:
    """Which bytes of a section of properties are fixed. `expiry_at`: where the expiry lies; -1 where there is none."""

    __slots__ = ("_after", "_before", "_fixed", "_mask", "_zeros", "expiry_at")

    def __init__(self, section: bytes) -> None:
        """`section` is valid, and has no topic alias."""
        fixed, binary, self.expiry_at = _parts(section)
        self._mask = int.from_bytes(fixed, "big")
        self._fixed = int.from_bytes(section, "big") & self._mask
        self._before, self._after = binary
        texts = section[: self._before] + section[self._after :]
        plain = self.expiry_at != _MIXED and texts.isascii()
        self._zeros = texts.count(0) if plain else -1  # then nothing fits

    def fits(self, section: bytes) -> bool:
        """Whether a section of the same length has this shape, and texts that are valid for sure."""
        if int.from_bytes(section, "big") & self._mask != self._fixed:
            return False
        texts = section[: self._before] + section[self._after :]
        return texts.isascii() and texts.count(0) == self._zeros


Shapes = dict[int, Shape]
"""The shapes that one connection has sent, by their length."""


def keep_shape(shapes: Shapes, section: bytes) -> None:
    """Remember the shape of a section that was read and is valid."""
    if len(section) > LONGEST_SHAPE:
        return
    if len(shapes) >= MOST_SHAPES:
        shapes.clear()
    shapes[len(section)] = Shape(section)


def _parts(section: bytes) -> tuple[bytearray, tuple[int, int], int]:
    """A mask of the fixed bytes; from where to where there is no text; where the expiry lies, or `_MIXED`."""
    end, at, expiry_at = len(section), 0, -1
    fixed, texts, others = bytearray(b"\xff" * end), list[tuple[int, int]](), list[tuple[int, int]]()
    while at < end:
        number, at = section[at], at + 1
        if number == PAYLOAD_FORMAT:
            at += 1
            continue
        if number == MESSAGE_EXPIRY:
            expiry_at = at
            others.append((at, at + 4))
            at += 4
            continue
        if number not in _TEXTS_AND_DATA:
            return fixed, (end, end), _MIXED
        start, at = at + 2, at + 2 + (section[at] << 8 | section[at + 1])
        if number == USER_PROPERTY:
            texts.append((start, at))
            start, at = at + 2, at + 2 + (section[at] << 8 | section[at + 1])
        if number != RESPONSE_TOPIC:  # it must hold no wildcard, and a client's stays the same
            (others if number == CORRELATION_DATA else texts).append((start, at))
    for start, stop in texts + others:
        fixed[start:stop] = bytes(stop - start)
    binary = (others[0][0], others[-1][1]) if others else (end, end)
    apart = not any(binary[0] <= start < binary[1] for start, _ in texts)
    return fixed, binary, expiry_at if apart else _MIXED
