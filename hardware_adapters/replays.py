"""Keeps the replay of a recording from moving a device.

Where a program uses Ether, `ether.check_device` knows whether the present call has been caused by a replay. An adapter
asks it before each command, except for questions: SCPI commands that only ask change nothing. Without Ether in the
process there are no replays, so it is looked up and never imported.
"""

from __future__ import annotations

import sys

_SHOWN = 40


def check_command(device: str, command: bytes) -> None:
    """Raises `ether.errors.ReplayRefused` where a replay is what has caused a command that may move the device."""
    ether = getattr(sys.modules.get("ether"), "ether", None)
    if ether is not None and not is_question(command):
        ether.check_device(device, f"the command {command[:_SHOWN]!r}")


def is_question(command: bytes) -> bool:
    """Whether each part of a command, by its header, is a question: `MEAS:VOLT? (@1)`, `*IDN?;SYST:ERR?`."""
    if not (command.isascii() and command.strip().decode().isprintable()):
        return False  # binary: a question mark means nothing there
    parts = [part.split(None, 1) for part in command.split(b";") if part.strip()]
    return bool(parts) and all(part[0].endswith(b"?") for part in parts)
