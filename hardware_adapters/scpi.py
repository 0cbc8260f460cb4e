"""The common commands of SCPI instruments (IEEE 488.2): error queue, completion, status, binary blocks.

    scpi = Scpi(scope)
    scpi.do("CAL:START")            # waits for *OPC?, then raises InstrumentError with the queue's entries
    scpi.errors()                   # [ScpiError(-113, "Undefined header")]

Works over either adapter. The trap: an instrument answers a wrong command with silence and an entry in its error
queue; a program that does not read the queue does not learn of it.
"""

from __future__ import annotations

import re
from enum import IntFlag
from typing import NamedTuple

from hardware_adapters.adapter import Adapter
from hardware_adapters.errors import AdapterError, BadAnswer
from hardware_adapters.framing import block

QUEUE_LIMIT = 100
"""No instrument has a longer queue; entries without end are a defect."""


class ScpiError(NamedTuple):
    """An entry of the error queue. Negative numbers are SCPI's own, positive ones the maker's."""

    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.number} {self.text}"


class InstrumentError(AdapterError, RuntimeError):
    """The instrument reports errors; `errors` are the entries of its queue, oldest first."""

    def __init__(self, port: str, errors: tuple[ScpiError, ...], command: str | None = None) -> None:
        self.errors = errors
        listed = "; ".join(map(str, errors))
        super().__init__(port, f"the instrument reports: {listed}", command=command)


class StatusByte(IntFlag):
    """The bits of the answer to `*STB?`."""

    ERROR_QUEUE = 0x04
    QUESTIONABLE = 0x08
    MESSAGE_AVAILABLE = 0x10
    EVENT_SUMMARY = 0x20
    REQUEST = 0x40
    OPERATION = 0x80


class StandardEvents(IntFlag):
    """The bits of the answer to `*ESR?`; reading clears them."""

    OPERATION_COMPLETE = 0x01
    REQUEST_CONTROL = 0x02
    QUERY_ERROR = 0x04
    DEVICE_ERROR = 0x08
    EXECUTION_ERROR = 0x10
    COMMAND_ERROR = 0x20
    USER_REQUEST = 0x40
    POWER_ON = 0x80


_ENTRY = re.compile(r'\s*([+-]?\d+)\s*(?:,\s*"?(.*?)"?\s*)?')


def entry(answer: str) -> ScpiError:
    """An answer to `SYST:ERR?`. Raises ValueError where it is not one."""
    found = _ENTRY.fullmatch(answer)
    if found is None:
        raise ValueError("an entry of an error queue is a number and a text")
    return ScpiError(int(found[1]), found[2] or "")


class Scpi:
    """The common commands of an instrument. `error_query` reads its error queue, where that is another command."""

    def __init__(self, adapter: Adapter, *, error_query: str = "SYST:ERR?") -> None:
        self.adapter, self._error_query = adapter, error_query

    def identify(self) -> str:
        """`*IDN?`"""
        return self.adapter.query("*IDN?").strip()

    def errors(self) -> list[ScpiError]:
        """Read the error queue empty; its entries, oldest first. Raises BadAnswer where it does not end."""
        found: list[ScpiError] = []
        while (error := self.adapter.query_value(self._error_query, entry)).number != 0:
            found.append(error)
            if len(found) >= QUEUE_LIMIT:
                why = f"its error queue does not end after {QUEUE_LIMIT} entries"
                raise BadAnswer(self.adapter.port, why, command=self._error_query, answer=str(error).encode())
        return found

    def check(self, command: str | None = None) -> None:
        """Raises InstrumentError where the error queue is not empty."""
        if found := self.errors():
            raise InstrumentError(self.adapter.port, tuple(found), command)

    def wait(self, timeout_s: float = 10.0) -> None:
        """Wait until all commands are done (`*OPC?`). Raises NoAnswer after `timeout_s` seconds."""
        self.adapter.query("*OPC?", timeout_s=timeout_s, retries=0)

    def do(self, command: str, *, timeout_s: float = 10.0) -> None:
        """Send, wait until it is done, and check the error queue. Raises InstrumentError, NoAnswer."""
        with self.adapter.lease(self.adapter.name, command):
            self.adapter.write(command)
            self.wait(timeout_s)
            self.check(command)

    def clear(self) -> None:
        """`*CLS`: empty the error queue and the event registers."""
        self.adapter.write("*CLS")

    def reset(self, timeout_s: float = 10.0) -> None:
        """`*RST`, and wait until it is done."""
        with self.adapter.lease(self.adapter.name, "*RST"):
            self.adapter.write("*RST")
            self.wait(timeout_s)

    def status(self) -> StatusByte:
        """The status byte (`*STB?`)."""
        return StatusByte(self.adapter.query_value("*STB?", int))

    def events(self) -> StandardEvents:
        """The standard events since the last time (`*ESR?`)."""
        return StandardEvents(self.adapter.query_value("*ESR?", int))

    def query_block(self, command: str, *, timeout_s: float | None = None) -> bytes:
        """The data of a binary block. A serial port needs the framing `ScpiMessages` for it."""
        return self.adapter.query_bytes(command.encode(self.adapter.encoding), timeout_s=timeout_s)

    def write_block(self, command: str, data: bytes) -> None:
        """Send a command that ends with a binary block: `write_block("DATA ", samples)`."""
        self.adapter.write_bytes(command.encode(self.adapter.encoding) + block(data))
