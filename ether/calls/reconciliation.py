"""Reconciliation: a caller finds out what became of the calls that it waits for.

A broker that was away or stood still may have lost a request or an answer, also where caller and instance live; so does
one that drops what exceeds its queue for a client. So when the caller's own connection is back, when an instance
announces itself again, and where a call has waited for long, the caller asks the instance about them (`ether-recall`).
The instance sends the answers that it has once more, and names the calls that it has never received; those are sent
again. A call that is under way there needs nothing.

A request that the broker delivered to nobody (MQTT 5 says so) waits: until its instance is back, or until it is known
that it does not come back.

Promise: no call runs twice by this. An instance is asked only about calls that went to this incarnation of it, and says
that it never received a call only where it would remember. The trap: the news arrives on threads that must not wait, so
they only note it; questions are published on the thread of `Later`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from ether.connection.later import Later
from ether.protocol.presence import LIVES, Announcement

BACK_S = 3.0
"""Every living process has reconnected and announced itself this long after the broker is back."""

_LOOK_S = 0.1
_AT_ONCE = 500
"""The most calls in one question."""


class OpenCall(Protocol):
    """What is needed of a call under way."""

    instance: str
    correlation: bytes
    undelivered: bool
    """The broker has delivered its request to nobody."""
    receipt_known: bool
    """The broker has said what it did with the request."""
    lost: str
    """Why its instance was lost while the request was on its way; "" where it was not."""
    sent_at: float
    """When its request was sent last, on the monotonic clock."""

    @property
    def began(self) -> float:
        """When the call was made, on the monotonic clock."""

    @property
    def settled(self) -> bool:
        """Whether it is over."""


C = TypeVar("C", bound=OpenCall)


class Caller(Protocol[C]):
    """The side that makes the calls."""

    def open_calls(self, instance: str) -> Sequence[C]:
        """The calls that wait for this instance and can be sent again."""

    def asked(self) -> Sequence[str]:
        """The instances that calls wait for."""

    def member(self, instance: str) -> Announcement | None:
        """The last announcement of an instance."""

    def inquire(self, instance: str, ages: Mapping[str, float], note: Callable[[object], object]) -> None:
        """Ask an instance about calls, by correlation, each with its age in seconds. `note` gets its answer, on a
        thread that must not wait. Raises `EtherError`."""

    def send_again(self, call: C) -> None:
        """Send the request of a call again, with the time that is left. Raises `EtherError`."""

    def nobody_took(self, call: C, why: str = "") -> None:
        """End a call that was delivered to nobody; `why` is what its instance's last announcement says."""

    def the_dead_had_it(self, call: C) -> None:
        """End a call whose instance has died, and that the next process under its name has not received."""


class Reconciliation(Generic[C]):
    """The reconciliation of one process's calls."""

    def __init__(self, caller: Caller[C], later: Later) -> None:
        self._caller, self._later = caller, later
        self._heard_at: dict[str, float] = {}
        """When each instance last announced itself, on the monotonic clock."""

    # -- on threads that must not wait

    def connected(self) -> None:
        """The own connection is back."""
        now = time.monotonic()
        for instance in self._caller.asked():
            self._later.after(0.0, partial(self._ask, instance, now))

    def heard(self, instance: str) -> None:
        """An instance has announced that it answers calls: for the first time, again, or because something changed."""
        now = self._heard_at[instance] = time.monotonic()
        if instance in self._caller.asked():
            self._later.after(0.0, partial(self._ask, instance, now))

    def overdue(self, instance: str) -> None:
        """A call to this instance has waited for long."""
        self._later.after(0.0, partial(self._ask, instance, time.monotonic()))

    def undelivered(self, call: C) -> None:
        """The broker has delivered the request of this call to nobody."""
        self._later.after(0.0, partial(self._look, call, time.monotonic() + BACK_S))

    def in_doubt(self, call: C) -> None:
        """Somebody was given the request of this call while the news was on its way that its instance has died."""
        self._later.after(0.0, partial(self._look_who_has, call))

    # -- on the thread of `Later`

    def _ask(self, instance: str, before: float) -> None:
        """Ask an instance about the calls that were sent before that time."""
        calls = [call for call in self._caller.open_calls(instance) if call.sent_at < before]
        for call in calls:
            if call.undelivered:
                self._caller.send_again(call)
        self._inquire(instance, [call for call in calls if call.sent_at < before])

    def _inquire(self, instance: str, calls: Sequence[C]) -> None:
        now = time.monotonic()
        ages = {call.correlation.hex(): round(now - call.began, 3) for call in calls}
        names = list(ages)
        for at in range(0, len(names), _AT_ONCE):
            part = {name: ages[name] for name in names[at : at + _AT_ONCE]}
            self._caller.inquire(instance, part, partial(self._note, instance))

    def _note(self, instance: str, said: object) -> None:
        """On a thread that must not wait."""
        self._later.after(0.0, partial(self._answered, instance, said))

    def _look(self, call: C, until: float) -> None:
        """Decide about an undelivered call: send it again, go on waiting, or end it."""
        if call.settled or not call.undelivered:
            return
        if self._heard_at.get(call.instance, call.sent_at) > call.sent_at:
            self._caller.send_again(call)
            return
        member = self._caller.member(call.instance)
        if member is not None and member.returns:
            return  # `heard` follows, or the news that it does not come back
        # Who lives as far as is known reconnects, or has died: then the news says whether it is started again.
        lives = member is not None and member.state in LIVES
        if lives and time.monotonic() < until:
            self._later.after(_LOOK_S, partial(self._look, call, until))
        else:
            self._caller.nobody_took(call, "" if member is None or lives else member.error)

    def _look_who_has(self, call: C) -> None:
        """Ask the next process under the name, once there is one."""
        member = self._caller.member(call.instance)
        if call.settled:
            return
        if member is not None and member.state in LIVES:
            self._inquire(call.instance, [call])
        elif member is None or not member.returns:
            self._caller.the_dead_had_it(call)
        # otherwise `heard` follows, or the news that it does not come back

    def _answered(self, instance: str, said: object) -> None:
        """An instance has named the calls that it never received."""
        member = self._caller.member(instance)
        match said:
            case {"birth": str(incarnation), "unknown": list(unknown)} if member is not None:
                if member.incarnation != incarnation:
                    return  # another incarnation than the one that the calls went to knows nothing about them
                for call in self._caller.open_calls(instance):
                    if call.correlation.hex() not in unknown:
                        continue
                    if not call.lost or call.undelivered:
                        self._caller.send_again(call)
                    elif call.receipt_known:  # if not, it is asked about again when the receipt comes
                        self._caller.the_dead_had_it(call)
