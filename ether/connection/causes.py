"""The cause of the code that runs now: the message, the chain of calls, the worker that handles it, and the origin.

From it a published result takes its parents and its origin (the trial to which it belongs, and whether it descends from
a replay), a nested call the chain by which it is recognised when it comes back to a waiting instance, and a long method
the way in which it reports progress.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ether.connection.caused_work import CausedWork, Heir
from ether.errors import ReplayRefused
from ether.wire.head import REPLAY, Headers
from ether.wire.origin import descends_from_replay, mark_of, may_not_move_devices, replayed

if TYPE_CHECKING:
    from ether.connection.inbound import Inbound
    from ether.connection.worker import Worker

Tell = Callable[[str, object], None]
"""Sends a message before the answer (progress, a log line): its schema and its value."""


@dataclass(slots=True)
class CallContext:
    """The call that is being answered. `tell` is None where the caller does not watch."""

    call: str
    tell: Tell | None = None
    cancelled: bool = False
    caller: str = ""
    """Who has made it; "" for a call within the process."""
    begun: tuple[int, tuple[str, ...]] = (0, ())
    """`Lineage.upto` and `Lineage.in_work`, when the method began."""
    made_of: tuple[str, ...] | None = None
    """What its value is made of, where the method has said so."""

    def cancel(self) -> None:
        """The caller has lost interest."""
        self.cancelled = True


class Cause(NamedTuple):
    """The message that is being handled, the chain of calls that it belongs to, and the worker that handles it. All of
    them None outside a handler; the body of a trial has an `origin` alone."""

    message_id: str | None
    trace: str | None
    worker: Worker | None = None
    call: CallContext | None = None
    origin: str | None = None
    """As `Headers.origin` of the message, or that of the trial whose body this is. `origin()` outranks it."""
    work: CausedWork | None = None
    """Where threads that are started here are noted."""
    heir: Heir | None = None
    """Set on such a thread."""
    message: Inbound | None = None
    """The message itself; None for a call."""


NOTHING = Cause(None, None)
_current: contextvars.ContextVar[Cause] = contextvars.ContextVar("ether_cause", default=NOTHING)


def current() -> Cause:
    """The cause of the code that calls this."""
    return _current.get()


def parents() -> tuple[str, ...]:
    """The ids of the messages that led to the code that calls this; empty outside a handler, and in a thread that has
    outlived its trial."""
    cause = _current.get()
    if cause.message_id is None or (cause.heir is not None and cause.heir.lapsed):
        return ()
    return (cause.message_id,)


def origin() -> str | None:
    """The trial, and the mark of a replay, that what is published now belongs to (`ether.wire.origin`). A thread that
    has outlived its trial keeps the mark alone."""
    cause = _current.get()
    if cause.heir is not None and cause.heir.lapsed:
        return mark_of(cause.origin)
    return cause.origin


def from_replay() -> bool:
    """Whether what runs now descends from a replay, through any number of hops."""
    return descends_from_replay(_current.get().origin)


def check_device(name: str, what: str) -> None:
    """Raises `ReplayRefused` where what runs now descends from a replay that is not meant for devices. `what` was to be
    done with `name`."""
    if may_not_move_devices(_current.get().origin):
        raise ReplayRefused(name, what)


def origin_of(headers: Headers) -> str | None:
    """The origin that the handling of a message has from it."""
    return headers.origin if headers.schema != REPLAY else replayed(headers.origin)


def become(cause: Cause) -> Cause:
    """From now on, `current()` is this cause on this thread; returns the one before. For the body of a trial, which is
    no block, and for a thread that begins."""
    before = _current.get()
    _current.set(cause)
    return before


class handling:  # noqa: N801  used like a function; a class, because a generator costs three times as much
    """Within the block, `current()` is this cause."""

    __slots__ = ("_cause", "_token")

    def __init__(self, cause: Cause) -> None:
        self._cause = cause

    def __enter__(self) -> None:
        self._token = _current.set(self._cause)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
