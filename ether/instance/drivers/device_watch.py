"""Watches the device of a driver that reports no presence of its own, and brings it back.

A device is gone when the driver has raised certain exceptions several times in a row (`on_error`), or has not answered
a question that is asked again and again (`alive`). Then the instance is announced as offline, with the reason; what is
asked of it is refused at once (`DeviceOffline`), its ticks and streams rest, and on the instance's own worker the
device is tried: connected or built again, and asked, until it answers.

Promises: whatever the driver does, the log has one line when the device goes and one when it is back. Nothing of the
driver runs beside the worker for this. The trap: a driver that hangs while it is built holds up the worker, and with it
every call; `hang:` is for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from ether.connection.failure_text import text_of
from ether.errors import DeviceOffline
from ether.instance.drivers.gone_rules import FailuresInARow, is_one_of
from ether.instance.host import InstanceHost
from ether.spec.wrapping import Alive, Care
from ether.system.backoff import Backoff
from ether.system.clock import wall_time

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
"""Between two attempts to bring a device back. It is to be used within 2 s after it is there again."""
_LOOK_S = 0.1
"""How soon an end of the instance is noticed while an attempt waits for the worker."""
ALIVE_AFTER = 3
"""Questions without an answer in a row, where `on_error` says no other number."""


class WatchedHost(InstanceHost, Protocol):
    """What bringing a device back needs."""

    def try_device(self, *, rebuild: bool) -> None:
        """Connect the device again, or make the object again and connect it; raises whatever goes wrong."""

    def ask_device(self, alive: Alive) -> None:
        """Ask the question; raises whatever goes wrong."""

    def end_for_restart(self, why: str) -> None:
        """End the process, so that it is started again."""


class DeviceWatch:
    """Whether one device is there. Without `on_error` and `alive` in its care it does nothing."""

    def __init__(self, host: WatchedHost, care: Care, changed: Callable[[], object]) -> None:
        """`changed` is called whenever what is announced changes."""
        self._host, self._changed = host, changed
        self._on_error, self._alive = care.on_error, care.alive
        self.watches = care.on_error is not None or care.alive is not None
        """Whether anything is watched."""
        after = ALIVE_AFTER if care.on_error is None else care.on_error.after
        self._count = FailuresInARow(after, care.on_error.within_s if care.on_error is not None else None)
        self._lock = threading.Lock()
        self._offline: tuple[float, str] | None = None
        """Since when the device is gone, in seconds of the epoch, and why."""
        self._trying = False
        self._failing: set[str] = set()
        """The methods of the failures that are counted."""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def times(self) -> list[tuple[str, str]]:
        """The schedule of the question, under its method."""
        return [] if self._alive is None else [(ALIVE, self._alive.every)]

    @property
    def offline(self) -> bool:
        """Whether the device is gone."""
        return self._offline is not None

    def check(self) -> None:
        """Raises `DeviceOffline` while the device is gone."""
        offline = self._offline
        if offline is not None:
            raise DeviceOffline(self._host.name, offline[1])

    def about(self) -> dict[str, object]:
        """What is announced; empty while the device is there."""
        offline = self._offline
        return {} if offline is None else {"offline": {"why": offline[1], "since": offline[0]}}

    def failed(self, method: str, error: BaseException) -> None:
        """The driver has raised an exception, on any thread."""
        if self._on_error is not None and not self._trying and is_one_of(error, self._on_error.errors):
            state = "silent" if isinstance(error, TimeoutError) else "gone"
            self._note(method, state, f"{method}: {type(error).__name__}: {text_of(error)}")

    def went_well(self, method: str) -> None:
        """The driver has done something without an exception, on any thread. Of a method that has not failed it says
        nothing: many never talk to the device."""
        if method in self._failing:
            with self._lock:
                self._count.went_well()
                self._failing.clear()

    def ask(self) -> None:
        """The time of the question has come, on the worker. Raises nothing: a device that does not answer shows in the
        state, and once in the log."""
        if self._alive is None or self._offline is not None:
            return
        try:
            self._host.ask_device(self._alive)
        except BaseException as error:  # noqa: BLE001  whatever the driver raises is no answer
            if self._on_error is None or not is_one_of(error, self._on_error.errors):  # else it was counted
                method = self._alive.call.method
                self._note(method, "silent", f"{self._alive.call}: {type(error).__name__}: {text_of(error)}")

    def stop(self) -> None:
        """Try no more. A second call does nothing."""
        with self._lock:
            self._ended.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_PAUSE_S)

    # -- gone and back

    def _note(self, method: str, state: str, why: str) -> None:
        with self._lock:
            if self._offline is not None or self._ended.is_set():
                return
            self._failing.add(method)
            now = time.monotonic()
            enough, began = self._count.failed(now), self._count.began or now
            if not enough:
                return
            since = wall_time() - (now - began)
            self._offline = since, f"{state} since {_time_of_day(since)}, {why}"
        self._host.logger.warning("%s: its device is offline: %s", self._host.name, why)
        self._changed()
        if self._on_error is not None and self._on_error.then == "restart":
            self._host.end_for_restart(why)
            return
        with self._lock:
            if not self._ended.is_set():
                self._thread = threading.Thread(
                    target=self._bring_back, name=f"ether-device-{self._host.name}", daemon=True
                )
                self._thread.start()  # under the lock: only a thread that was started can be joined

    def _bring_back(self) -> None:
        """On a thread that only waits: each attempt is a job of the worker."""
        pauses, attempts = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S), 0
        while not self._ended.wait(pauses.next_s()):
            attempt = _Attempt(self._attempt)
            attempts += 1
            self._host.worker.submit(attempt, express="")
            while not attempt.done.wait(_LOOK_S):
                if self._ended.is_set():
                    return
            if attempt.error is None:
                self._back(attempts)
                return

    def _attempt(self) -> None:
        self._trying = True
        try:
            if self._on_error is not None:
                self._host.try_device(rebuild=self._on_error.then == "rebuild")
            if self._alive is not None:
                self._host.ask_device(self._alive)
        finally:
            self._trying = False

    def _back(self, attempts: int) -> None:
        with self._lock:
            offline, self._offline = self._offline, None
            self._count.went_well()
            self._failing.clear()
        gone_s = wall_time() - offline[0] if offline is not None else 0.0
        self._host.logger.warning(
            "%s: its device is back after %.1f s, at attempt %d", self._host.name, gone_s, attempts
        )
        self._changed()


ALIVE = "(alive)"
"""The name under which the question stands among the schedules. It is no identifier, so no method has it."""


class _Attempt:
    """One attempt to bring the device back, as a job of the worker."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Try it."""
        self._run()
        self.done.set()

    def failed(self, error: BaseException) -> None:
        """It did not work: the device is still gone, which is known."""
        self.error = error
        self.done.set()


def _time_of_day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
