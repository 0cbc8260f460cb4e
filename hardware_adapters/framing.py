"""Framing: where one message of an instrument ends and the next begins. No I/O.

A framing is a value that describes the form of messages (`Delimited`, `Fixed`, `LengthPrefixed`, `ScpiMessages`); a
`Framer` holds the bytes that have not made a frame yet.

How it works. `Framer.feed` adds bytes to its buffer and asks the framing's `take` again and again what lies at the
*front* of the buffer: a frame, bytes to be skipped (garbage, a damaged frame), or not enough bytes to decide. `take`
has no state of its own but one flag, `lost`, which says that the end of a broken frame is still to come.

Promise: the same stream gives the same frames, however its bytes are split. Bytes that belong to no frame are skipped
and counted, and the next good frame is found again.

    framer = Framer(Delimited(b"\\n"))
    framer.feed(b"1.5\\n2.")       # [b"1.5"]
    framer.feed(b"5\\n")           # [b"2.5"]

The trap: in a stream without start mark, checksum or terminator, one lost byte shifts all later frames for good.
`Fixed` and `LengthPrefixed` alone trust the line; give them a `start` and a `checksum` where the instrument has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from hardware_adapters.checksums import Checksum

GARBAGE = "garbage"
"""The fault of bytes before a start mark."""

MAX_FRAME_BYTES = 1 << 20
"""The default of `max_bytes`: a longer frame without an end is garbage."""


class Taken(NamedTuple):
    """What lies at the front of a buffer: `used` bytes, which are a `frame`, or with None are skipped.

    `fault` says why bytes are skipped, and `rejected` holds a damaged frame. With `lost`, more bytes of a broken frame
    follow, which must be skipped up to its end; the next call of `take` gets the flag back.
    """

    used: int
    frame: bytes | None = None
    fault: str = ""
    rejected: bytes = b""
    lost: bool = False


class Framing(Protocol):
    """A form of messages. The result of `take` must not depend on how much of the later stream has arrived."""

    def take(self, buffer: bytearray, lost: bool) -> Taken | None:
        """What lies at the front of the buffer; None where more bytes are needed. `lost` is that of its last result."""

    def encode(self, payload: bytes) -> bytes:
        """A message with this payload, as it goes over the line."""


class Framer:
    """Turns a stream of bytes into frames, and counts the bytes that belong to none.

    `skipped` is how many bytes belonged to no frame, `faults` how often for which reason, `rejections` how many
    frames were damaged, `rejected` the last of them. Not thread-safe: one reader owns it.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing, self._buffer, self._lost, self._fault = framing, bytearray(), False, ""
        self.skipped, self.rejections, self.rejected = 0, 0, b""
        self._faults: Counter[str] = Counter()

    @property
    def pending(self) -> bytes:
        """Bytes of a frame whose end has not arrived."""
        return bytes(self._buffer)

    @property
    def faults(self) -> Mapping[str, int]:
        """How often bytes were skipped, by reason."""
        return dict(self._faults)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete."""
        self._buffer += data
        frames = []
        while self._buffer and (taken := self._framing.take(self._buffer, self._lost)) is not None:
            del self._buffer[: taken.used]  # at the front of a bytearray this copies nothing
            self._lost = taken.lost
            if taken.frame is not None:
                frames.append(taken.frame)
            else:
                self._skip(taken)
            self._fault = taken.fault
        return frames

    def discard(self) -> bytes:
        """Drop an incomplete frame whose rest will not come; it is counted as skipped, and returned."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if rest:
            self._skip(Taken(len(rest), fault="incomplete"))
        self._lost = False
        return rest

    def _skip(self, taken: Taken) -> None:
        self.skipped += taken.used
        # One run of garbage counts once, in however many pieces it came.
        if taken.fault and not (taken.fault == self._fault == GARBAGE):
            self._faults[taken.fault] += 1
        if taken.rejected:
            self.rejections, self.rejected = self.rejections + 1, taken.rejected


def _before_start(buffer: bytearray, start: bytes) -> Taken | None:
    """The bytes before the start mark, to be skipped; `used=0` where the buffer begins with it.

    Where no start mark is in the buffer, its last bytes may be the beginning of one (ESC of ESC "["): these stay, and
    with nothing else in the buffer the result is None, more bytes are needed.
    """
    place = buffer.find(start)
    if place == 0:
        return Taken(0)
    if place > 0:
        return Taken(place, fault=GARBAGE)
    partial = next(
        (size for size in range(min(len(start) - 1, len(buffer)), 0, -1) if start.startswith(buffer[-size:])), 0
    )
    return Taken(len(buffer) - partial, fault=GARBAGE) if len(buffer) > partial else None


@dataclass(frozen=True, slots=True)
class Delimited:
    """Frames that end with `end`, and begin with `start` where the instrument sends one (`b"$"`, STX).

    `strip` are bytes that are taken off the end of a payload (the carriage return of `b"\\r\\n"`). With a `checksum`,
    it stands before `end`, after `separator` (`b"*"` in NMEA sentences), and covers the bytes between start and
    separator. Neither `end` nor `start` may occur in a payload: a second start in a frame means that the rest of the
    first frame was lost.
    """

    end: bytes = b"\n"
    start: bytes = b""
    strip: bytes = b""
    checksum: Checksum | None = None
    separator: bytes = b""
    max_bytes: int = MAX_FRAME_BYTES

    def __post_init__(self) -> None:
        if not self.end:
            raise ValueError("a delimited framing needs an end, such as b'\\n'")

    def take(self, buffer: bytearray, lost: bool) -> Taken | None:
        """See `Framing`."""
        if self.start:
            before = _before_start(buffer, self.start)
            if before is None or before.used:
                return before
        if lost:  # a frame without start was too long: everything up to the next end is its rest
            return self._skip_to_end(buffer, buffer.find(self.end))
        place = buffer.find(self.end, len(self.start))
        if place < 0 or place > self.max_bytes:
            return self._too_long() if len(buffer) >= self.max_bytes + len(self.end) else None
        if self.start and (again := buffer.rfind(self.start, len(self.start), place)) > 0:
            return Taken(again, fault="partial")
        return self._checked(bytes(buffer[len(self.start) : place]), place + len(self.end))

    def encode(self, payload: bytes) -> bytes:
        """See `Framing`."""
        tail = self.separator + self.checksum.of(payload) if self.checksum else b""
        return self.start + payload + tail + self.end

    def _too_long(self) -> Taken:
        """Skip a frame that is too long: where frames have a start, look for the next start, else for the end of this
        frame."""
        return Taken(len(self.start) or self.max_bytes, fault="too long", lost=not self.start)

    def _skip_to_end(self, buffer: bytearray, place: int) -> Taken | None:
        if place >= 0:
            return Taken(place + len(self.end))
        used = len(buffer) - len(self.end) + 1  # the last bytes may be the beginning of an end
        return Taken(used, lost=True) if used > 0 else None

    def _checked(self, body: bytes, used: int) -> Taken:
        """The frame between start and end: payload, separator, checksum. `cut` is where the checksum begins."""
        if self.strip:
            body = body.rstrip(self.strip)
        if self.checksum is None:
            return Taken(used, body)
        cut = len(body) - self.checksum.size
        payload, carried = body[: max(cut - len(self.separator), 0)], body[max(cut, 0) :]
        if len(payload) + len(self.separator) != cut or not body[:cut].endswith(self.separator):
            return Taken(used, fault="no checksum", rejected=body)
        if not self.checksum.fits(payload, carried):
            return Taken(used, fault="checksum", rejected=body)
        return Taken(used, payload)


def lines(end: bytes = b"\n", *, max_bytes: int = MAX_FRAME_BYTES) -> Delimited:
    """Lines of text. A carriage return before the end is taken off, so `b"\\r\\n"` is read as well."""
    return Delimited(end, strip=b"\r" if end == b"\n" else b"", max_bytes=max_bytes)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Frames of `length` payload bytes, after `start` and before a `checksum` of the payload, where these are given."""

    length: int
    start: bytes = b""
    checksum: Checksum | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"a frame has at least one byte; length={self.length}")

    def take(self, buffer: bytearray, lost: bool) -> Taken | None:
        """See `Framing`."""
        if self.start:
            before = _before_start(buffer, self.start)
            if before is None or before.used:
                return before
        return _measured(buffer, len(self.start), self.length, self.checksum)

    def encode(self, payload: bytes) -> bytes:
        """See `Framing`. Raises ValueError for a payload of another length."""
        if len(payload) != self.length:
            raise ValueError(f"this framing takes payloads of {self.length} bytes, not {len(payload)}")
        return self.start + payload + (self.checksum.of(payload) if self.checksum else b"")


def _measured(
    buffer: bytearray, head: int, length: int, checksum: Checksum | None, covered: int | None = None
) -> Taken | None:
    """A frame of known length after `head` bytes; the checksum covers the bytes from `covered` on (default: the
    payload).

    Where the checksum is wrong only one byte is skipped, because the start mark may have been a byte of data: the true
    frame may begin one byte later.
    """
    size = checksum.size if checksum else 0
    if len(buffer) < head + length + size:
        return None
    end = head + length
    whole = bytes(buffer[: end + size])
    if checksum and not checksum.fits(whole[head if covered is None else covered : end], whole[end:]):
        return Taken(1, fault="checksum", rejected=whole)
    return Taken(end + size, whole[head:end])


@dataclass(frozen=True, slots=True)
class LengthPrefixed:
    """Frames that carry their length: `start`, the payload's length in `size` bytes, payload, checksum.

    `extra` is how many bytes the length counts beside the payload (2 where it counts a 2-byte checksum, too). The
    checksum covers the payload, or with `covers="length"` the length as well. A length beyond `max_bytes` is garbage.
    """

    size: int = 2
    byteorder: Literal["big", "little"] = "big"
    start: bytes = b""
    checksum: Checksum | None = None
    covers: Literal["payload", "length"] = "payload"
    extra: int = 0
    max_bytes: int = 4096

    def take(self, buffer: bytearray, lost: bool) -> Taken | None:
        """See `Framing`."""
        if self.start:
            before = _before_start(buffer, self.start)
            if before is None or before.used:
                return before
        head = len(self.start) + self.size
        if len(buffer) < head:
            return None
        length = int.from_bytes(buffer[len(self.start) : head], self.byteorder) - self.extra
        if not 0 <= length <= self.max_bytes:
            return Taken(1, fault="length", rejected=bytes(buffer[:head]))
        return _measured(buffer, head, length, self.checksum, len(self.start) if self.covers == "length" else None)

    def encode(self, payload: bytes) -> bytes:
        """See `Framing`. Raises ValueError for a payload that is too long."""
        if len(payload) > self.max_bytes:
            raise ValueError(f"this framing takes payloads up to {self.max_bytes} bytes, not {len(payload)}")
        head = (len(payload) + self.extra).to_bytes(self.size, self.byteorder)
        covered = head + payload if self.covers == "length" else payload
        return self.start + head + payload + (self.checksum.of(covered) if self.checksum else b"")


@dataclass(frozen=True, slots=True)
class ScpiMessages:
    """Answers of SCPI instruments: a line, or a binary block of IEEE 488.2.

    `#` and a digit begin a block: `#3100` says that 100 bytes follow (definite), `#0` that bytes follow up to `end`
    (indefinite; over a serial line its data must not contain `end`). The frame is the block's data, without its head.
    `#H1F`, `#Q17` and `#B101` are numbers, thus lines. An answer of several parts (`;` between them) is one line
    and must not hold a block.
    """

    end: bytes = b"\n"
    max_bytes: int = 1 << 28

    def take(self, buffer: bytearray, lost: bool) -> Taken | None:
        """See `Framing`."""
        if lost or buffer[:1] != b"#":
            return lines(self.end, max_bytes=self.max_bytes).take(buffer, lost)
        if len(buffer) < 2:
            return None
        if not buffer[1:2].isdigit():  # #H1F and the like: a number, thus a line
            return lines(self.end, max_bytes=self.max_bytes).take(buffer, lost)
        return self._indefinite(buffer) if buffer[1:2] == b"0" else self._definite(buffer)

    def encode(self, payload: bytes) -> bytes:
        """See `Framing`: a line; blocks are sent with `block()`."""
        return payload + self.end

    def _indefinite(self, buffer: bytearray) -> Taken | None:
        place = buffer.find(self.end, 2)
        if 0 <= place <= self.max_bytes:
            return Taken(place + len(self.end), bytes(buffer[2:place]))
        too_long = len(buffer) >= self.max_bytes + len(self.end)
        return Taken(self.max_bytes, fault="too long", lost=True) if too_long else None

    def _definite(self, buffer: bytearray) -> Taken | None:
        """`#`, the count of digits, the digits of the length, the data, the end of message.

        Where the head or the end is wrong, one byte is skipped and `lost` set: the rest is then skipped up to the
        next end.
        """
        head = 2 + int(buffer[1:2])
        digits = buffer[2:head]
        if digits and not digits.isdigit():
            return Taken(1, fault="block head", rejected=bytes(buffer[:head]), lost=True)
        if len(digits) < head - 2:
            return None
        stop = head + int(digits)
        if stop > self.max_bytes:
            return Taken(1, fault="too long", rejected=bytes(buffer[:head]), lost=True)
        end = self._end_at(buffer, stop)
        if end is None:
            return None
        if not end:
            return Taken(1, fault="block end", rejected=bytes(buffer[:head]), lost=True)
        return Taken(stop + len(end), bytes(buffer[head:stop]))

    def _end_at(self, buffer: bytearray, place: int) -> bytes | None:
        """The end of message at this place; empty where other bytes are there, None where more bytes are needed."""
        ends = (b"\n", b"\r\n") if self.end == b"\n" else (self.end,)
        there = [end for end in ends if end.startswith(buffer[place : place + len(end)])]
        return next((end for end in there if len(buffer) >= place + len(end)), None if there else b"")


def block(data: bytes) -> bytes:
    """These bytes as a definite block of IEEE 488.2: `block(b"abc") == b"#13abc"`."""
    digits = str(len(data)).encode()
    if len(digits) > 9:
        raise ValueError(f"a definite block holds at most 999,999,999 bytes, not {len(data):,}")
    return b"#%d%b%b" % (len(digits), digits, data)


def unblocked(message: bytes) -> bytes:
    """The data of one whole block, definite or indefinite, as a message-based interface (GPIB, USB, LAN) delivers it.

    Raises ValueError where the message is no block, or shorter than it says.
    """
    if message[:1] != b"#" or not message[1:2].isdigit():
        raise ValueError(f"a binary block begins with '#' and a digit, this with {message[:12]!r}")
    if message[1:2] == b"0":
        return message[2:].removesuffix(b"\n")
    head = 2 + int(message[1:2])
    digits = message[2:head]
    if not digits.isdigit() or len(digits) != head - 2:
        raise ValueError(f"the head of a binary block is damaged: {message[:head]!r}")
    if len(message) < head + int(digits):
        raise ValueError(f"a binary block says {int(digits):,} bytes, but {len(message) - head:,} are there")
    return message[head : head + int(digits)]
