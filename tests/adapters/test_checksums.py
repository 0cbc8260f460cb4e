"""Checksums agree with the values that their catalogue publishes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_adapters.checksums import CRC_MODELS, NAMES, Checksum, number


@pytest.mark.parametrize("name", CRC_MODELS)
def test_the_published_check_value(name: str) -> None:
    assert number(name, b"123456789") == CRC_MODELS[name].check


def test_sums_by_hand() -> None:
    assert number("sum8", b"\xff\x02") == 0x01
    assert number("sum8-negated", b"\xff\x02") == 0xFF
    assert number("sum16", b"\xff\x02") == 0x0101
    assert number("xor8", b"\xff\x02") == 0xFD


def test_a_modbus_request_from_its_specification() -> None:
    assert Checksum("crc16-modbus", "little").of(bytes.fromhex("010300000001")) == bytes.fromhex("840a")


def test_an_nmea_sentence() -> None:
    sentence = b"GPGLL,5300.97914,N,00259.98174,E,125926,A"
    assert Checksum("xor8", hex=True).of(sentence) == b"28"
    assert Checksum("crc16-x25", hex=True).fits(b"123456789", b"906e")


@given(st.sampled_from(NAMES), st.binary(min_size=1, max_size=40), st.data())
def test_one_changed_bit_is_noticed(name: str, data: bytes, draw: st.DataObject) -> None:
    place, bit = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(0, 7))
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    checksum = Checksum(name)
    assert checksum.fits(data, checksum.of(data))
    assert not checksum.fits(bytes(changed), checksum.of(data))


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"there is no checksum 'crc16'; there are: .*crc16-modbus"):
        Checksum("crc16")
