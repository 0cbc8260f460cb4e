"""What a `member.py` has said, as events with times, and waiting for one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from patience import patience
from programs import Program


class Event(NamedTuple):
    """One line: seconds of `time.monotonic()`, what happened, and to whom or which."""

    time: float
    what: str
    value: str


def _anything(_: str) -> bool:
    return True


class Journal:
    """The events of one program, in the order of its lines."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._events: list[Event] = []

    def said(self) -> str:
        """The end of what the program has printed to stderr."""
        return "".join(self._program.lines["err"])[-6000:]

    def events(self, what: str, after: float = 0.0) -> list[Event]:
        """All of a kind since a time."""
        self._read()
        return [event for event in self._events if event.what == what and event.time > after]

    def numbers(self, what: str) -> list[int]:
        """The values of all events of a kind, as numbers."""
        return [int(event.value) for event in self.events(what)]

    def first(
        self, what: str, after: float = 0.0, accept: Callable[[str], bool] = _anything, timeout_s: float = 30.0
    ) -> float:
        """When this happened first after a time; waits for it."""
        changed = self._program._changed
        with changed:
            found = changed.wait_for(lambda: self._find(what, after, accept), patience(timeout_s))
        assert found is not None, f"no {what!r} within {timeout_s:g} s; it said:\n{self._program.said()[-6000:]}"
        return found.time

    def _find(self, what: str, after: float, accept: Callable[[str], bool]) -> Event | None:
        self._read()
        earliest = None
        for event in reversed(self._events):
            if event.time < after - 1.0:  # lines of two threads may change places, by far less
                break
            if event.what == what and event.time > after and accept(event.value):
                earliest = event
        return earliest

    def _read(self) -> None:
        for line in self._program.lines["out"][len(self._events) :]:
            time, what, value = line.rstrip("\n").split(" ", 2)
            self._events.append(Event(float(time), what, value))
