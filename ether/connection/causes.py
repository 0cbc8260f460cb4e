"""The cause of the code that runs now: the message, the chain of calls, and the worker that handles it.

From it a published result takes its parents, a nested call the chain by which it is recognised when it comes back to a
waiting instance, and a long method the way in which it reports progress.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ether.connection.worker import Worker

Tell = Callable[[str, object], None]
"""Sends a message before the answer (progress, a log line): its schema and its value."""


@dataclass(slots=True)
class CallContext:
    """The call that is being answered. `tell` is None where the caller does not watch."""

    call: str
    tell: Tell | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """The caller has lost interest."""
        self.cancelled = True


class Cause(NamedTuple):
    """The message that is being handled, the chain of calls that it belongs to, and the worker that handles it. All of
    them None outside a handler."""

    message_id: str | None
    trace: str | None
    worker: Worker | None = None
    call: CallContext | None = None


_NOTHING = Cause(None, None)
_current: contextvars.ContextVar[Cause] = contextvars.ContextVar("ether_cause", default=_NOTHING)


def current() -> Cause:
    """The cause of the code that calls this."""
    return _current.get()


def parents() -> tuple[str, ...]:
    """The ids of the messages that led to the code that calls this; empty outside a handler."""
    message_id = _current.get().message_id
    return (message_id,) if message_id else ()


class handling:  # noqa: N801  used like a function; a class, because a generator costs three times as much
    """Within the block, `current()` is this cause."""

    __slots__ = ("_cause", "_token")

    def __init__(self, cause: Cause) -> None:
        self._cause = cause

    def __enter__(self) -> None:
        self._token = _current.set(self._cause)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
