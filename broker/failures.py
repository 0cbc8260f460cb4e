"""The reasons for which a broker process ends: exit codes, and the errors that lead to them.

    BrokerFailure
    ├── SettingsRefused   2
    ├── EngineMissing     3
    ├── AddressInUse      4
    └── EngineFailed      5

Promise: every failure is written to stderr as one sentence, and its code is the process's exit code. Code 1 is left to
Python itself; 0 means that the broker was asked to stop.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of `python -I -m broker`."""

    OK = 0
    SETTINGS = 2
    ENGINE_MISSING = 3
    ADDRESS_IN_USE = 4
    ENGINE_FAILED = 5


class BrokerFailure(Exception):
    """The broker cannot start or go on; the message is one sentence for the user, `code` the exit code."""

    code = ExitCode.ENGINE_FAILED


class SettingsRefused(BrokerFailure, ValueError):
    """The settings file cannot be used as it is."""

    code = ExitCode.SETTINGS


class EngineMissing(BrokerFailure):
    """The engine asked for is not installed, or in a version that was never tested."""

    code = ExitCode.ENGINE_MISSING


class AddressInUse(BrokerFailure, OSError):
    """Another program listens at the address of the settings."""

    code = ExitCode.ADDRESS_IN_USE

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Cannot listen on {host}:{port}: another program listens there; stop it or set port 0 for a free one."
        )
        self.host, self.port = host, port


class EngineFailed(BrokerFailure):
    """The engine would not start, or ended without having been asked to."""
