"""How a command ends: the exit codes, and the code and sentence of each error.

The codes are a contract with scripts (docs/cli.md): the meaning of a number never changes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

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
    SessionNotFound,
    SeveralLedgers,
    SeveralSessions,
    TransportError,
    running_sessions,
)


class Exit(enum.IntEnum):
    """The exit codes of the program."""

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
    """A command line that cannot be parsed, or that asks for something impossible."""


class NoSession(EtherError, LookupError):
    """No session was found; `session` is the name that was asked for, None where none was; `running` those that run on
    this machine."""

    def __init__(self, session: str | None, running: Sequence[str] = ()) -> None:
        self.session = session
        what = "no session is running" if session is None else f"no session named {session!r} is running"
        super().__init__(
            f"{what} here or in reach{running_sessions(session, running)}; ether run FILE starts one, ether sessions"
            " lists them, --broker URL looks at another broker"
        )


_CODES: tuple[tuple[type[BaseException], Exit], ...] = (
    (CommandMistake, Exit.USAGE),
    (NoSession, Exit.NO_SESSION),
    (SessionNotFound, Exit.NO_SESSION),
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
"""The first class that fits counts: a `RemoteError` is also an instance of the builtin that the method raised."""


def exit_code_of(error: BaseException) -> Exit:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)


def sentence_of(error: BaseException) -> str:
    """The text for standard error. The traceback of a remote method is left out: it is in the log, and `ether call
    --traceback` shows it."""
    if isinstance(error, RemoteError):
        return f"{error.call} raised {error.remote_class}: {error.remote_message}"
    if isinstance(error, SeveralSessions):
        return f"{error} On this command line: --session NAME, or --broker URL"
    return str(error)
