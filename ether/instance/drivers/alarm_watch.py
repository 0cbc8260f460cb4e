"""The alarms of one instance: looks at each value that its methods and properties return, tells every change, and calls
what the registry says.

A change of state is announced, logged, published on `alarm/<instance>/<alarm>`, and recorded; what a person does is
told with who and when. Promises: a change is told once, and changes are told in the order in which they happened. A
value that jumps around its limit changes the announcement a few times a second at most; each change is published.

The trap: values come from any thread, and telling may wait for the broker. So the state is changed under a lock, and
told outside of it. The heartbeat's thread only looks whether something is due, and leaves the rest to the worker.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ether.calls.lease_server import LeaseHost
from ether.protocol.alarm_words import ALARMS, alarm_topic
from ether.protocol.barrier import Answer
from ether.spec.alarm_rules import ALARM, OK, WARN, AlarmSpec, AlarmState, Now
from ether.spec.arguments import shown
from ether.spec.nothing import NOTHING
from ether.spec.rate_rules import numbers_of
from ether.spec.wrapping import PlannedCall
from ether.system.clock import wall_time

steady_time = time.monotonic
_ANNOUNCED_EVERY_S = 0.25
_LONGEST_SHELF_S = 366 * 86_400.0

Tell = Callable[[str, dict[str, Any]], object]
"""Publishes a change on its topic."""


class AlarmWatch:
    """Looks at values; without alarms in its class it does nothing."""

    def __init__(
        self,
        host: LeaseHost,
        specs: Sequence[AlarmSpec],
        tell: Tell,
        changed: Callable[[], object],
        make: Callable[[tuple[PlannedCall, ...], str], object],
    ) -> None:
        """`changed` is called when what is announced has changed; `make` makes calls of the device, and reports their
        failures."""
        self._host, self._tell, self._announce, self._make = host, tell, changed, make
        self.states = {spec.name: AlarmState(spec, _now()) for spec in specs}
        """The alarms, by the method or property whose values they look at."""
        self._lock, self._telling = threading.Lock(), threading.Lock()
        self._untold: deque[tuple[str, dict[str, Any]]] = deque()
        self._announced = float("-inf")
        self._stale = False
        """Whether the announcement is older than the states."""

    def look(self, name: str, value: Any) -> None:
        """Take a value of a method or a property. Nothing, and None, say nothing of it."""
        state = self.states.get(name)
        if state is None or value is None or value is NOTHING:
            return
        numbers, now = numbers_of(value, state.spec.unit), _now()
        with self._lock:
            called = self._expire(now)
            was, wanted = state.state, state.wants_calls
            if state.look(numbers, None if numbers is None else state.spec.worst_of(numbers), now):
                self._note(name, state, was, {} if numbers is not None else {"why": f"{shown(value)} is no number"})
            called += [name] if state.wants_calls and not wanted else []
        self._after(called)

    def answer(self, asked: Mapping[str, Any]) -> Answer:
        """Acknowledge an alarm, or shelve it, as a person asks."""
        name, do, by, note = (str(asked.get(key) or "") for key in ("alarm", "do", "by", "note"))
        state = self.states.get(name)
        if state is None:
            return Answer(failed={name: f"{self._host.name} has no such alarm; it has: {', '.join(self.states)}"})
        now = _now()
        with self._lock:
            called = self._expire(now)
            was, wanted = state.state, state.wants_calls
            why = self._done(state, do, by, note, asked.get("for_s"), now)
            if not why:
                self._note(name, state, was, {"did": do, "by": by, "at": now.wall, **({"note": note} if note else {})})
            called += [name] if state.wants_calls and not wanted else []
        self._after(called, at_once=True)
        return Answer(failed={name: why}) if why else Answer(ran=(name,), results={name: state.about()})

    def _done(self, state: AlarmState, do: str, by: str, note: str, for_s: object, now: Now) -> str:
        if do == "acknowledge":
            return state.acknowledge(by, note, now)
        if do == "unshelve":
            return state.unshelve(now)
        if do != "shelve":
            return f"cannot {do!r:.40} it: acknowledge, shelve or unshelve"
        if isinstance(for_s, bool) or not isinstance(for_s, (int, float)) or not 0 < for_s <= _LONGEST_SHELF_S:
            return f"it is shelved for a time of more than 0 and at most {_LONGEST_SHELF_S:g} s, not {for_s!r:.40}"
        state.shelve(by, for_s, note, now)
        return ""

    @property
    def is_due(self) -> bool:
        """Whether there is something to tell that no value brings about: a shelf whose time is over."""
        if not self.states:
            return False
        now = _now()
        return (self._stale and now.steady - self._announced >= _ANNOUNCED_EVERY_S) or any(
            state.is_due(now) for state in self.states.values()
        )

    def look_at_time(self) -> None:
        """Tell what `is_due`; on the worker."""
        now = _now()
        with self._lock:
            called = self._expire(now)
        self._after(called, at_once=True)

    def about(self) -> dict[str, object]:
        """What is announced of the alarms."""
        with self._lock:
            return {ALARMS: {name: state.about() for name, state in self.states.items()}} if self.states else {}

    def topics(self, method: str) -> list[str]:
        """The topics on which the alarm of a method is published."""
        return [alarm_topic(self._host.name, method)] if method in self.states else []

    # -- inside

    def _expire(self, now: Now) -> list[str]:
        """Take from the shelf what has been there for its time. Under the lock. Returns what is an alarm now, and
        is to be called: nothing else will call it."""
        found = []
        for name, state in self.states.items():
            if state.is_due(now):
                was = state.state
                state.unshelve(now)
                self._note(name, state, was, {"did": "unshelve", "why": "its time on the shelf is over"})
                found += [name] if state.wants_calls else []
        return found

    def _note(self, name: str, state: AlarmState, was: str, more: Mapping[str, Any]) -> None:
        self._untold.append((name, {"instance": self._host.name, "alarm": name, "was": was, **state.about(), **more}))

    def _after(self, called: Sequence[str], *, at_once: bool = False) -> None:
        for name in called:
            self._call(name, self.states[name])
        self._tell_all(at_once=at_once)

    def _call(self, name: str, state: AlarmState) -> None:
        if state.spec.calls:
            self._host.worker.interrupt(_Calls(lambda: self._make(state.spec.calls, f"on_alarm of {name}")))

    def _tell_all(self, *, at_once: bool) -> None:
        if not self._untold and not self._stale:
            return
        with self._telling:
            now = steady_time()
            self._stale = self._stale or bool(self._untold)
            if self._stale and (at_once or now - self._announced >= _ANNOUNCED_EVERY_S):
                self._stale, self._announced = False, now
                self._announce()  # before it is published: who has got that looks there
            while self._untold:
                name, event = self._untold.popleft()
                self._log(event)
                self._tell(name, event)

    def _log(self, event: Mapping[str, Any]) -> None:
        log = self._host.logger
        write = log.error if event["state"] == ALARM else log.warning if event["level"] != OK else log.info
        write("%s", sentence_of(event), extra={"ether": {"instance": self._host.name, "alarm": dict(event)}})


def sentence_of(event: Mapping[str, Any]) -> str:
    """`oven.temperature: alarm (was warn): 85 °C, above 80 °C`."""
    level, words = event["level"], [f"{event['instance']}.{event['alarm']}: {event['state']} (was {event['was']})"]
    if event.get("value") is not None:
        words.append(f": {event['value']:g} {event.get('unit', '')}".rstrip())
    if level in (WARN, ALARM) and (limits := event.get(f"{level}_when")) and "why" not in event:
        words.append(f", {limits}")
    if event.get("by"):
        words.append(f"; {event['did']} by {event['by']}")
    return "".join(words) + (f"; {event['why']}" if event.get("why") else "")


class _Calls:
    """The calls of `on_alarm`, as a job of the worker that goes ahead of everything."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def run(self) -> None:
        """Make them."""
        self._make()

    def failed(self, error: BaseException) -> None:
        """Each failure has been reported."""


class TimeJob:
    """`look_at_time`, as a job of the worker."""

    def __init__(self, watch: AlarmWatch) -> None:
        self._watch = watch

    def run(self) -> None:
        """Tell what is due."""
        self._watch.look_at_time()

    def failed(self, error: BaseException) -> None:
        """The next heartbeat tries again."""


def _now() -> Now:
    return Now(steady_time(), wall_time())
