"""Any split of a stream gives the same frames; garbage is skipped, counted, and the next good frame is found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_adapters.checksums import Checksum
from hardware_adapters.framing import (
    Delimited,
    Fixed,
    Framer,
    Framing,
    LengthPrefixed,
    ScpiMessages,
    block,
    lines,
    unblocked,
)

NMEA = Delimited(b"\r\n", start=b"$", checksum=Checksum("xor8", hex=True), separator=b"*", max_bytes=60)
STX = Delimited(b"\x03\x04", start=b"\x02\x01", max_bytes=40)
HEADED = Fixed(4, start=b"\xaa\x55\xaa", checksum=Checksum("crc8-maxim"))
MODBUS = LengthPrefixed(
    1, start=b"\x7e\x7f", checksum=Checksum("crc16-modbus", "little"), covers="length", max_bytes=40
)
FRAMINGS: dict[str, Framing] = {
    "lines": lines(max_bytes=30),
    "delimited": Delimited(b"END", max_bytes=30),
    "nmea": NMEA,
    "stx": STX,
    "fixed": Fixed(3),
    "fixed with start and crc": HEADED,
    "length": LengthPrefixed(2, "little", extra=2, max_bytes=40),
    "length with start and crc": MODBUS,
    "scpi": ScpiMessages(max_bytes=50),
}


def pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def outcome(framing: Framing, parts: Sequence[bytes]) -> tuple[list[bytes], int, dict[str, int], bytes]:
    framer = Framer(framing)
    frames = [frame for part in parts for frame in framer.feed(part)]
    return frames, framer.skipped, dict(framer.faults), framer.pending


MARKS = [b"\n", b"\r\n", b"END", b"EN", b"$", b"*", b"\x02\x01", b"\x03\x04", b"\xaa\x55\xaa", b"\xaa\x55", b"\x7e\x7f"]
MARKS += [b"#", b"#0", b"#3", b"#15", b"#14abcd\n", b"#2", b"0", b"\x05\x00", b"x" * 70]
STREAMS = st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(MARKS)), max_size=25).map(b"".join)


@pytest.mark.parametrize("name", FRAMINGS)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 300), max_size=40))
def test_any_split_gives_the_same_frames_and_counts(name: str, stream: bytes, cuts: list[int]) -> None:
    framing = FRAMINGS[name]
    whole = outcome(framing, [stream])
    assert outcome(framing, pieces(stream, cuts)) == whole
    assert outcome(framing, [stream[i : i + 1] for i in range(len(stream))]) == whole


@pytest.mark.parametrize("name", ["nmea", "stx", "fixed with start and crc", "length with start and crc"])
@given(good=st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=6), data=st.data())
def test_good_frames_between_garbage_are_all_found(name: str, good: list[bytes], data: st.DataObject) -> None:
    """Garbage that holds no start mark costs no frame, and each of its bytes is counted."""
    framing = FRAMINGS[name]
    good = [bytes(byte % 64 + 43 for byte in payload) for payload in good]  # letters and digits: no marks
    dirt = [data.draw(st.binary(max_size=20)).translate(None, b"$*\r\n\x01\x02\x03\x04\xaa\x55\x7e\x7f") for _ in good]
    stream = b"".join(rubbish + framing.encode(payload) for rubbish, payload in zip(dirt, good, strict=True))
    frames, skipped, _, pending = outcome(framing, [stream])
    assert frames == good
    assert skipped == sum(map(len, dirt))
    assert not pending


@pytest.mark.parametrize("name", ["nmea", "fixed with start and crc", "length with start and crc"])
@given(payloads=st.lists(st.binary(min_size=4, max_size=4), min_size=3, max_size=3), place=st.integers(0, 40))
def test_a_damaged_frame_is_never_handed_over(name: str, payloads: list[bytes], place: int) -> None:
    framing = FRAMINGS[name]
    payloads = [bytes(byte % 10 + 48 for byte in payload) for payload in payloads]
    damaged = bytearray(framing.encode(payloads[1]))
    damaged[place % len(damaged)] ^= 0x04
    after = framing.encode(payloads[2]) * 12  # enough that a false length in the damage comes to its end
    frames, skipped, faults, _ = outcome(framing, [framing.encode(payloads[0]) + bytes(damaged) + after])
    assert frames[0] == payloads[0]
    assert set(frames[1:]) <= {payloads[2]}
    assert payloads[2] in frames[1:]
    assert skipped > 0
    assert faults


@given(st.binary(max_size=300), st.integers(1, 20))
def test_a_block_holds_any_bytes(data: bytes, size: int) -> None:
    assert unblocked(block(data)) == data
    stream = block(data) + b"\n1.5\r\n" + block(data) + b"\r\n"
    parts = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert outcome(ScpiMessages(), parts)[:2] == ([data, b"1.5", data], 0)


def test_scpi_numbers_that_begin_like_blocks_are_lines() -> None:
    frames, skipped, _, _ = outcome(ScpiMessages(), [b"#H1F\n#B101\n#0ab\x00c\n+1\n"])
    assert (frames, skipped) == ([b"#H1F", b"#B101", b"ab\x00c", b"+1"], 0)


@pytest.mark.parametrize(
    ("message", "problem"),
    [(b"1.5\n", "begins with"), (b"#x", "begins with"), (b"#2x1ab", "head"), (b"#15abc", "says 5 bytes, but 3")],
)
def test_what_is_no_block_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        unblocked(message)
    assert unblocked(b"#0abc\n") == b"abc"


def test_an_endless_line_is_skipped_to_its_end_and_counted_once() -> None:
    frames, skipped, faults, _ = outcome(lines(max_bytes=30), [b"x" * 95, b"\nok\n"])
    assert (frames, skipped, faults) == ([b"ok"], 96, {"too long": 1})


def test_a_half_frame_can_be_given_up() -> None:
    framer = Framer(lines())
    assert framer.feed(b"1.\r\n2.") == [b"1."]
    assert framer.discard() == b"2."
    assert framer.feed(b"3.\n") == [b"3."]
    assert (framer.skipped, framer.faults) == (2, {"incomplete": 1})


def test_what_cannot_be_framed_is_refused() -> None:
    with pytest.raises(ValueError, match="payloads of 3 bytes, not 2"):
        Fixed(3).encode(b"ab")
    with pytest.raises(ValueError, match="up to 40 bytes"):
        MODBUS.encode(bytes(41))
    with pytest.raises(ValueError, match="needs an end"):
        Delimited(b"")
    with pytest.raises(ValueError, match="at least one byte"):
        Fixed(0)


def test_a_large_block_in_small_pieces_is_read_in_linear_time() -> None:
    """A framer that copied its buffer for each piece would move 100 GB here, and meet the time limit of tests."""
    framer, message = Framer(ScpiMessages()), block(bytes(20_000_000)) + b"\n"
    frames = [frame for i in range(0, len(message), 2_000) for frame in framer.feed(message[i : i + 2_000])]
    assert [len(frame) for frame in frames] == [20_000_000]
