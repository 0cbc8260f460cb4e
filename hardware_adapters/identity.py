"""The identity of a device. A port's name does not identify it: it changes with the plug, the hub, the order of
power-up.

    Identity(usb_serial="A50285BI")                               the serial number of the USB chip
    Identity("ACME,Heater,0042,1.3")                              the whole answer to *IDN?
    Identity(re.compile(r"ACME,Heater,(\\w+),.*"))                 any ACME heater, from then on the one that was found
    Identity(b"\\x07", query=b"\\x01\\x11\\xc0\\x2c", read=lambda answer: answer[3:4])   an own question, in bytes

The `Fingerprint` of the first connection is remembered, and later connections must match it: two identical
instruments are never swapped. The trap: a device without USB serial number and without a query is known by its port
only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hardware_adapters.errors import WrongDevice, shown


class PortInfo(NamedTuple):
    """The operating system's facts about a port, known without opening it."""

    device: str
    usb_serial: str | None = None
    usb_vid: int | None = None
    usb_pid: int | None = None
    description: str = ""


class Fingerprint(NamedTuple):
    """The facts by which a device was recognised: its USB serial number, and its answer; None: not known."""

    usb_serial: str | None
    answer: tuple[str | bytes, ...] | None

    def __str__(self) -> str:
        parts = [f"USB serial number {self.usb_serial}"] if self.usb_serial else []
        parts += [f"answer {', '.join(shown(part) for part in self.answer)}"] if self.answer else []
        return " and ".join(parts) or "a device that says nothing about itself"


@dataclass(frozen=True, slots=True)
class Identity:
    """The wanted device. Every given field must fit.

    `answer` is the whole answer to `query` (surrounding blanks do not count), or a compiled pattern that matches all of
    it; the pattern's groups, where it has some, distinguish one such device from another. `read` cuts the part to be
    compared out of the answer's bytes.
    """

    answer: str | bytes | re.Pattern[str] | None = None
    query: str | bytes = "*IDN?"
    read: Callable[[bytes], bytes] | None = None
    usb_serial: str | None = None
    usb_vid: int | None = None
    usb_pid: int | None = None

    def __post_init__(self) -> None:
        if all(part is None for part in (self.answer, self.usb_serial, self.usb_vid, self.usb_pid)):
            raise ValueError("an identity needs an answer (to *IDN? or an own query) or USB numbers")

    @property
    def is_asked(self) -> bool:
        """Whether the device must be asked."""
        return self.answer is not None

    @property
    def is_unique(self) -> bool:
        """Whether only one device in the world fits."""
        return self.usb_serial is not None or isinstance(self.answer, str | bytes)

    def fits_port(self, info: PortInfo) -> bool:
        """Whether the port's USB facts fit, as far as they are given. Known without opening the port."""
        wanted = (self.usb_serial, self.usb_vid, self.usb_pid)
        there = (info.usb_serial, info.usb_vid, info.usb_pid)
        return all(want is None or want == have for want, have in zip(wanted, there, strict=True))

    def recognise(self, answer: bytes) -> tuple[str | bytes, ...] | None:
        """The distinguishing parts of this answer; None where the answer does not fit.

        Bytes are compared as bytes. A text or pattern is compared with the decoded answer without surrounding blanks:
        of a text the whole answer is the part, of a pattern its groups, or the whole answer where it has none.
        """
        data = self.read(answer) if self.read else answer
        if isinstance(self.answer, bytes):
            return (data,) if data == self.answer else None
        text = data.decode("ascii", "backslashreplace").strip()
        if isinstance(self.answer, str):
            return (text,) if text == self.answer.strip() else None
        found = self.answer.fullmatch(text) if self.answer else None
        if found is None:
            return None
        return tuple(group or "" for group in found.groups()) or (text,)

    def __str__(self) -> str:
        answer = self.answer.pattern if isinstance(self.answer, re.Pattern) else self.answer
        parts = [f"a device that answers {shown(self.query)} with {shown(answer)}"] if answer is not None else []
        parts += [f"USB serial number {self.usb_serial}"] if self.usb_serial else []
        parts += [f"USB {self.usb_vid or 0:04x}:{self.usb_pid or 0:04x}"] if self.usb_vid or self.usb_pid else []
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class SyncQuestion:
    """A question whose answer shows that no earlier answer is owed."""

    query: str | bytes
    answer: str | bytes | re.Pattern[str]

    @property
    def pattern(self) -> str | bytes:
        """The answer as it is written."""
        return self.answer.pattern if isinstance(self.answer, re.Pattern) else self.answer

    def fits(self, answer: bytes) -> bool:
        """Whether this is the answer."""
        return Identity(self.answer, query=self.query).recognise(answer) is not None


def recognised(
    identity: Identity | None, known: Fingerprint | None, port: str, info: PortInfo, ask: Callable[[str | bytes], bytes]
) -> Fingerprint:
    """The fingerprint of the device at a port. Raises WrongDevice where it does not fit the identity, or is not
    `known`.

    `ask` sends a query and returns the bytes that come back.
    """
    answer = None
    if identity is not None and identity.is_asked:
        came_back = ask(identity.query)
        answer = identity.recognise(came_back)
        if answer is None:
            raise WrongDevice(port, str(identity), f"one that answers {shown(came_back)}")
    found = Fingerprint(info.usb_serial, answer)
    if known is not None and found != known:
        raise WrongDevice(port, f"the one of before ({known})", str(found))
    return found
