"""How a command ends: the exit codes, and which error means which.

The codes are a contract with scripts (docs/cli.md): a number that is given keeps its meaning.
"""

from __future__ import annotations

import enum

from ether.errors import (
    BrokerFailed,
    ConfigError,
    EtherError,
    InvalidName,
    MarkError,
    NoLedger,
    QueryMistake,
    RemoteError,
    RequestTimeout,
    SeveralLedgers,
    SeveralSessions,
    TransportError,
)


class Exit(enum.IntEnum):
    """With which code the program ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    NO_SESSION = 4
    BROKER = 5
    TIMEOUT = 6
    DEFECT = 70
    INTERRUPTED = 130


class CommandMistake(EtherError, ValueError):
    """Words of a command line that cannot be understood."""


class NoSession(EtherError, LookupError):
    """No session runs where it was looked for; `session` is the name that was asked for."""

    def __init__(self, session: str | None) -> None:
        self.session = session
        what = "no session is running" if session is None else f"no session named {session!r} is running"
        super().__init__(
            f"{what} here or in reach; ether run FILE starts one, ether sessions lists them,"
            " --broker URL looks at another broker"
        )


_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (CommandMistake, Exit.USAGE),
    (NoSession, Exit.NO_SESSION),
    (SeveralSessions, Exit.NO_SESSION),
    (NoLedger, Exit.NO_SESSION),
    (SeveralLedgers, Exit.NO_SESSION),
    (QueryMistake, Exit.USAGE),
    (ConfigError, Exit.CONFIG),
    (InvalidName, Exit.CONFIG),
    (MarkError, Exit.CONFIG),
    (RemoteError, Exit.FAILED),
    (RequestTimeout, Exit.TIMEOUT),
    (BrokerFailed, Exit.BROKER),
    (TransportError, Exit.BROKER),
)
"""The first that fits counts: a `RemoteError` may be a `TimeoutError` that the method raised."""


def exit_code_of(error: BaseException) -> Exit:
    """The code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def sentence_of(error: BaseException) -> str:
    """What is said of an error on standard error. Of a remote method's failure the traceback is left out: it is in
    the log, and `ether call --traceback` shows it."""
    if isinstance(error, RemoteError):
        return f"{error.call} raised {error.remote_class}: {error.remote_message}"
    if isinstance(error, SeveralSessions):
        return f"{error} On this command line: --session NAME, or --broker URL"
    return str(error)
