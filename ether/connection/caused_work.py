"""What a process has sent because of each trial, and what it has not finished of it: messages, calls, threads.

A trial is over when everything that it caused has been handled, everywhere. No process knows that alone, so each one
tells two things: the last numbers of the messages that it has sent with the trial's origin, and what it has in work of
those that it has received. `ether.runs.tag_broadcast` asks for both, and puts them together.

Promise: a message that has arrived is in work until its handler has returned, and so is a call until it is answered.
The trap: what a handler publishes has to be counted before its own message counts as finished; therefore whoever asks
looks first at what is in work, then at what was sent.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import NamedTuple

from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

THREAD_S = 2.0
"""So long a trial waits, at its end, for threads that were started because of it. One that goes on is taken for a
source that runs by itself, as a camera's thread is that one trial has started and the last one will stop."""

_REMEMBERED = 64
"""Of so many trials the sent messages are remembered; one or two are open at a time."""


class Work(NamedTuple):
    """Something in work: what it is, for people (`Analysis.fit of 'reading'`), and since when, by the steady clock."""

    what: str
    since: float


class Heir:
    """A thread, or a job of an executor, that was started because of a trial. `lapsed`: it has outlived the trial."""

    __slots__ = ("asked_at", "lapsed", "origin", "work")

    def __init__(self, origin: str, work: Work) -> None:
        self.origin, self.work = origin, work
        self.asked_at: float | None = None
        self.lapsed = False


class CausedWork:
    """Of one process. Every method may be called from any thread; none waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: OrderedDict[str, dict[str, int]] = OrderedDict()
        """For each origin, by topic, the last number that was sent with it."""
        self._in_work: dict[str, dict[Hashable, Work]] = {}
        self._heirs: dict[Heir, None] = {}

    def __bool__(self) -> bool:
        """Whether anything is in work; read without the lock, on the path of each message."""
        return bool(self._in_work)

    def sent(self, origin: str, topic: str, number: int) -> None:
        """A message has left. In the order of the numbers of its topic."""
        with self._lock:
            numbers = self._sent.get(origin)
            if numbers is None:
                numbers = self._sent[origin] = {}
                if len(self._sent) > _REMEMBERED:
                    self._sent.popitem(last=False)
            numbers[topic] = number

    def count(self, origin: str, what: str) -> None:
        """Something was sent that has no number: a call within the process."""
        with self._lock:
            number = self._sent.get(origin, {}).get(what, 0)
        self.sent(origin, what, number + 1)

    def begin(self, origin: str, key: Hashable, what: str) -> None:
        """Something is in work from now on, until `end` with the same key."""
        with self._lock:
            self._in_work.setdefault(origin, {})[key] = Work(what, time.monotonic())

    def end(self, origin: str, key: Hashable) -> None:
        """It is finished. Unknown keys are fine."""
        with self._lock:
            works = self._in_work.get(origin)
            if works is not None:
                works.pop(key, None)
                if not works:
                    del self._in_work[origin]

    def adopt(self, origin: str, what: str, starter: Heir | None = None) -> Heir:
        """A thread is started, to be released with `release`. `starter`: the thread that starts it, which may be over
        in a moment (a timer that starts the next one); both together are waited for `THREAD_S`."""
        heir = Heir(origin, Work(what, time.monotonic()))
        heir.asked_at = None if starter is None else starter.asked_at
        with self._lock:
            self._heirs[heir] = None
        return heir

    def release(self, heir: Heir) -> None:
        """The thread has finished. A second call does nothing."""
        with self._lock:
            self._heirs.pop(heir, None)

    def in_work(self, origin: str) -> list[Work]:
        """What is in work of an origin, the oldest first. Asked when the trial is over: a thread that has not finished
        `THREAD_S` after the first time is let go."""
        now, lapsed = time.monotonic(), list[Heir]()
        with self._lock:
            works = [*self._in_work.get(origin, {}).values()]
            for heir in [heir for heir in self._heirs if heir.origin == origin]:
                heir.asked_at = heir.asked_at or now
                if now - heir.asked_at < THREAD_S:
                    works.append(heir.work)
                else:
                    heir.lapsed = True
                    del self._heirs[heir]
                    lapsed.append(heir)
        for heir in lapsed:
            logger.info("%s goes on after %s, in which it was started: from now on, what it makes goes by time",
                        heir.work.what, origin)  # fmt: skip
        return sorted(works, key=lambda work: work.since)

    def sent_of(self, origin: str) -> Mapping[str, int]:
        """By topic, the last number that was sent with an origin."""
        with self._lock:
            return dict(self._sent.get(origin, {}))
