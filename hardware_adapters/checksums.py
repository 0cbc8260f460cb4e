"""Checksums that instruments use, by name. Pure.

Sums, exclusive or, and the CRCs of the usual catalogue, each described by the five numbers that define a CRC (Ross
Williams: width, polynomial, start, reflected, final exclusive or) and proven by its published check value, the CRC of
`b"123456789"`. The trap: "CRC-16" alone names a dozen things; ask the instrument's manual which, or try its example.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce
from operator import xor
from typing import Literal, NamedTuple


class CrcModel(NamedTuple):
    """The parameters of a CRC: width, polynomial, start value, reflected bits, final exclusive or, published check."""

    width: int
    polynomial: int
    start: int
    reflected: bool
    final: int
    check: int


CRC_MODELS = {
    "crc8": CrcModel(8, 0x07, 0x00, False, 0x00, 0xF4),
    "crc8-maxim": CrcModel(8, 0x31, 0x00, True, 0x00, 0xA1),
    "crc8-sensirion": CrcModel(8, 0x31, 0xFF, False, 0x00, 0xF7),
    "crc8-rohc": CrcModel(8, 0x07, 0xFF, True, 0x00, 0xD0),
    "crc8-autosar": CrcModel(8, 0x2F, 0xFF, False, 0xFF, 0xDF),
    "crc16-arc": CrcModel(16, 0x8005, 0x0000, True, 0x0000, 0xBB3D),
    "crc16-modbus": CrcModel(16, 0x8005, 0xFFFF, True, 0x0000, 0x4B37),
    "crc16-usb": CrcModel(16, 0x8005, 0xFFFF, True, 0xFFFF, 0xB4C8),
    "crc16-ccitt-false": CrcModel(16, 0x1021, 0xFFFF, False, 0x0000, 0x29B1),
    "crc16-xmodem": CrcModel(16, 0x1021, 0x0000, False, 0x0000, 0x31C3),
    "crc16-kermit": CrcModel(16, 0x1021, 0x0000, True, 0x0000, 0x2189),
    "crc16-x25": CrcModel(16, 0x1021, 0xFFFF, True, 0xFFFF, 0x906E),
    "crc16-genibus": CrcModel(16, 0x1021, 0xFFFF, False, 0xFFFF, 0xD64E),
}
"""The CRCs by name."""

_SUMS = {"sum8": 1, "sum8-negated": 1, "xor8": 1, "sum16": 2}
NAMES = (*_SUMS, *CRC_MODELS)
"""Every name that `Checksum` takes."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum as a frame carries it: by `name`, as bytes in `byteorder` or, with `hex`, as upper-case digits.

    `Checksum("crc16-modbus", "little")`, `Checksum("xor8", hex=True)`. Raises ValueError for an unknown name.
    """

    name: str
    byteorder: Literal["big", "little"] = "big"
    hex: bool = False

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"there is no checksum {self.name!r}; there are: {', '.join(NAMES)}")

    @property
    def size(self) -> int:
        """How many bytes the checksum takes in a frame."""
        width = CRC_MODELS[self.name].width // 8 if self.name in CRC_MODELS else _SUMS[self.name]
        return width * 2 if self.hex else width

    def of(self, data: bytes) -> bytes:
        """The checksum of these bytes, as a frame carries it."""
        width = self.size // 2 if self.hex else self.size
        digits = number(self.name, data).to_bytes(width, self.byteorder)
        return digits.hex().upper().encode() if self.hex else digits

    def fits(self, data: bytes, carried: bytes) -> bool:
        """Whether `carried`, from a frame, is the checksum of `data`; hexadecimal digits in either case."""
        return self.of(data) == (carried.upper() if self.hex else carried)


def number(name: str, data: bytes) -> int:
    """The checksum as a number. Raises KeyError for an unknown name."""
    match name:
        case "sum8":
            return sum(data) & 0xFF
        case "sum8-negated":
            return -sum(data) & 0xFF
        case "sum16":
            return sum(data) & 0xFFFF
        case "xor8":
            return reduce(xor, data, 0)
    return crc(CRC_MODELS[name], data)


def crc(model: CrcModel, data: bytes) -> int:
    """The CRC of these bytes, a byte at a time by a table of 256 entries.

    A reflected CRC works on mirrored bits throughout, which saves mirroring each byte: it shifts to the right.
    """
    table, mask, shift = _table(model), (1 << model.width) - 1, model.width - 8
    value = _mirrored(model.start, model.width) if model.reflected else model.start
    for byte in data:
        if model.reflected:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        else:
            value = (table[((value >> shift) ^ byte) & 0xFF] ^ (value << 8)) & mask
    return value ^ model.final


@cache
def _table(model: CrcModel) -> tuple[int, ...]:
    if model.reflected:
        polynomial = _mirrored(model.polynomial, model.width)
        return tuple(_reflected_entry(index, polynomial) for index in range(256))
    return tuple(_plain_entry(index, model) for index in range(256))


def _reflected_entry(value: int, polynomial: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ polynomial if value & 1 else value >> 1
    return value


def _plain_entry(index: int, model: CrcModel) -> int:
    value, top, mask = index << (model.width - 8), 1 << (model.width - 1), (1 << model.width) - 1
    for _ in range(8):
        value = ((value << 1) ^ model.polynomial if value & top else value << 1) & mask
    return value


def _mirrored(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)
