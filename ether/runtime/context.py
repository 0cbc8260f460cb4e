"""What the code that runs right now was caused by: the way in which a result learns its parents."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """The message that is being handled."""

    message_ids: tuple[str, ...]


_current: contextvars.ContextVar[Cause | None] = contextvars.ContextVar("ether_cause", default=None)


def parents() -> tuple[str, ...]:
    """The ids of the messages that led to what is being done now; empty outside of a handler."""
    cause = _current.get()
    return cause.message_ids if cause else ()


def enter(message_id: str | None) -> contextvars.Token[Cause | None]:
    """Note that a message is being handled; give the token to `leave()`."""
    return _current.set(Cause((message_id,)) if message_id else None)


def leave(token: contextvars.Token[Cause | None]) -> None:
    """The message has been handled."""
    _current.reset(token)
