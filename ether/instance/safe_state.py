"""Makes a device safe when its controllers are gone: the instance's own process makes the calls of `safe_state`.

The guard listens to heartbeats that come through the broker: the instance's own, which show that the broker and the
network work, and those of the instances that control it (`watch`). When one of them has been silent for `after`, the
guard makes the calls, ahead of everything that is queued. Until all are heard again, messages and calls are refused
(`InSafeState`): a setpoint that was queued before must not switch a heater on again. Methods that only read a property,
and those that `allow` names, still run. Measuring goes on, too: the ticks of methods that take no argument and publish
what they return, unless `refuse` names them; what they publish is recorded with the reason of the safe state. Calls
that failed are made again every second. When all are heard again, the instance serves again; the device stays as the
calls left it.

The trap: the calls are user code and run on the worker. A worker that hangs in a driver delays them; with `force` they
are made from another thread after half a second, beside the hanging method. Code that never releases Python's global
lock delays every thread.

A person may ask for it, too (`demand`, from `ether.make_safe()`): the calls are made at once, and the state is held
until a person ends it.
"""

from __future__ import annotations

import inspect
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ether.connection.link import Inbound, Link
from ether.errors import EtherError, InSafeState
from ether.instance.devices import DeviceCalls
from ether.instance.host import DeviceHost, InstanceHost
from ether.instance.silence_rules import SilenceTimers
from ether.instance.ticker import Ticker
from ether.protocol.barrier import Answer
from ether.protocol.failure_detector import INTERVAL_S
from ether.protocol.safety import SAFE_STATE
from ether.spec.marks import MarkKind
from ether.spec.methods import MethodSpec
from ether.spec.wrapping import SafeState
from ether.system.clock import wall_time

FORCE_GRACE_S = 0.5
AGAIN_S = 1.0
DEMANDED_S = 3.0
"""For the calls that a person asks for; what takes longer is reported as not made."""
NO_SAFE_STATE = "it has no safe state"
_HEARTBEATS = 4
"""Heartbeats within the time after which an instance counts as gone."""


Tell = Callable[[Answer], object]
"""Receives what has become of a demand."""


class _Demand(NamedTuple):
    """A person wants the safe state because of `why`; its end where that is empty."""

    why: str
    tell: Tell


class NoGuard:
    """The guard of an instance without a safe state: it watches nothing."""

    interval_s = INTERVAL_S
    """Seconds between the instance's heartbeats."""
    why = ""

    def start(self) -> None:
        """There is nothing to watch."""

    def stop(self) -> None:
        """There is nothing to end."""

    def check(self, method: str) -> None:
        """Every method may run."""

    def check_tick(self, method: str) -> None:
        """Every tick may run."""

    def orphaned(self) -> None:
        """There is nothing to make safe."""

    def demand(self, why: str, tell: Tell) -> None:
        """A person asks for the safe state, which there is not."""
        tell(Answer(failed={SAFE_STATE: NO_SAFE_STATE}))

    def about(self) -> dict[str, object]:
        """There is nothing to announce."""
        return {}

    def offers(self) -> dict[str, object]:
        """There is nothing to ask for."""
        return {}


class SafeStateGuard(NoGuard):
    """Watches from `start()` to `stop()`. `why` is empty, or the reason for which the safe state holds now."""

    def __init__(self, host: DeviceHost, device: DeviceCalls, ticks: Ticker, link: Link, safe: SafeState) -> None:
        self._host, self._device, self._ticks, self._link, self._safe = host, device, ticks, link, safe
        self.interval_s = min(INTERVAL_S, safe.after_s / _HEARTBEATS)
        self.why = ""
        self._since = 0.0
        self._failed_calls: dict[str, str] = {}
        """What failed of the calls that were made last."""
        self._job: _SafeJob | None = None
        """The calls of the present safe state; None before, and where they have to be made again."""
        self._timers = SilenceTimers(safe.after_s, (), 0.0)
        self._runs = {method.name for method in host.spec.methods if method.reads} | {*safe.allow}
        """What runs in the safe state, too."""
        measures = {method.name for method in host.spec.methods if _measures(method, host.function(method.name))}
        self._ticks_on = self._runs | (measures - {*safe.refuse})
        """The methods whose ticks go on then."""
        self._demands: queue.SimpleQueue[_Demand] = queue.SimpleQueue()
        self._held = ""
        """Why a person wants it; empty where nobody does."""
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ether-guard-{host.name}", daemon=True)

    def start(self) -> None:
        """Listen and watch; the instance sends its heartbeats already."""
        names = (self._host.name, *self._safe.watch)
        for name in names:
            self._link.listen(self._host.topics.heartbeat(name), self._hear, now=self._hear, qos=0)
        self._timers = SilenceTimers(self._safe.after_s, names, time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer. A second call does nothing."""
        self._stopped.set()
        self._wake.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self, method: str) -> None:
        """Raises `InSafeState` for a method that may not run now."""
        if self.why and method not in self._runs:
            raise InSafeState(self._host.name, method, self.why)

    def check_tick(self, method: str) -> None:
        """Raises `InSafeState` for a method that may not be called at its time now."""
        if self.why and method not in self._ticks_on:
            raise InSafeState(self._host.name, method, self.why)

    def orphaned(self) -> None:
        """The launcher is dead and this process ends: make the device safe now, within `after`."""
        deadline = time.monotonic() + self._safe.after_s
        self._stopped.set()
        self.why = self.why or "its launcher is gone"
        self._host.logger.error("%s: safe state: its launcher is gone", self._host.name)
        while not self._make_calls(deadline - time.monotonic()) and time.monotonic() < deadline:
            pass

    def demand(self, why: str, tell: Tell) -> None:
        """A person asks for the safe state because of `why`; with an empty `why`, for its end. `tell` gets the answer
        on the guard's thread. Returns at once."""
        self._demands.put(_Demand(why, tell))
        self._wake.set()

    def offers(self) -> dict[str, object]:
        """The calls that the safe state makes, as they are announced."""
        return {SAFE_STATE: [str(call) for call in self._safe.calls]}

    def about(self) -> dict[str, object]:
        """What is announced, and part of the status, while the safe state holds."""
        return {"safe": {"why": self.why, "since": self._since}} if self.why else {}

    # -- inside

    def _hear(self, inbound: Inbound) -> bool:
        """Take a heartbeat, on the transport's thread."""
        self._timers.hear(self._host.topics.instance_of_heartbeat(inbound.delivery.topic), time.monotonic())
        inbound.done()
        return True

    def _run(self) -> None:
        wait_s = self._safe.after_s
        while True:
            self._wake.wait(wait_s)
            self._wake.clear()
            if self._stopped.is_set():
                return
            self._answer_demands()
            now = time.monotonic()
            gone = self._timers.gone(now)
            if gone:
                self._be_safe(gone)
            elif self._held:
                self._repeat_failed_calls()
            elif self.why:
                self._release()
            wait_s = min(self._timers.next_timeout_s(now), self.interval_s if self.why else self._safe.after_s)

    def _answer_demands(self) -> None:
        while not self._demands.empty():
            demand = self._demands.get()
            if not demand.why:
                self._held = ""
                self._tell(demand, Answer(ran=(SAFE_STATE,)))
                continue
            self._held, self._job = demand.why, None  # the calls are made again, whatever was called before
            if not self.why:
                self.why, self._since = demand.why, wall_time()
            self._host.logger.error("%s: safe state: %s; %s", self._host.name, demand.why, self._refused())
            made = self._make_calls(DEMANDED_S)
            failed = self._failed_calls or {SAFE_STATE: f"its calls were not over after {DEMANDED_S:g} s"}
            self._tell(demand, Answer(ran=tuple(map(str, self._safe.calls))) if made else Answer(failed=failed))
            self._host.announce_changed()

    def _tell(self, demand: _Demand, answer: Answer) -> None:
        """Answer a demand. An answer that cannot be sent must not end this thread: nothing would guard any more."""
        try:
            demand.tell(answer)
        except EtherError as error:
            self._host.logger.warning("%s could not say what became of its safe state: %s", self._host.name, error)

    def _repeat_failed_calls(self) -> None:
        if self._job is None:
            self._stopped.wait(AGAIN_S)
            self._make_calls(FORCE_GRACE_S)

    def _be_safe(self, gone: tuple[str, ...]) -> None:
        """Begin the safe state; where it holds already, make calls again that failed."""
        if not self.why:
            own = self._host.name in gone
            what = "the broker or the way to it" if own else f"its controller ({', '.join(gone)})"
            self.why, self._since = f"{what} is gone for {self._safe.after_s:g} s", wall_time()
            self._host.logger.error("%s: safe state: %s; %s", self._host.name, self.why, self._refused())
            self._make_calls(FORCE_GRACE_S)
            self._host.announce_changed()
        else:
            self._repeat_failed_calls()

    def _refused(self) -> str:
        polled = [name for name in self._ticks.missed if name not in self._ticks_on]
        ticks = f", and the ticks of {', '.join(polled)}" if polled else ""
        return f"messages and calls are refused{ticks} until it is back (safe_state.allow lists what is not)"

    def _make_calls(self, wait_s: float) -> bool:
        """Queue the calls ahead of everything else and wait for them; False where one failed or they are not over.

        With `force`, calls that the worker has not begun within the grace time are made on this thread. `_SafeJob` runs
        once, so a worker that comes back later does not make them a second time.
        """
        job, self._failed_calls = self._job, {}
        if job is None:
            job = self._job = _SafeJob(self._host, self._device, self._safe)
            self._host.worker.interrupt(job)
        grace_s = min(wait_s, FORCE_GRACE_S) if self._safe.force else wait_s
        if not job.done.wait(max(0.0, grace_s)) and self._safe.force and not job.begun:
            self._host.logger.error("%s: its worker hangs; calling from beside it", self._host.name)
            job.run()
        if not job.done.is_set():
            return False
        self._failed_calls = job.failed_calls
        if job.failed_calls:
            self._job = None  # so that the next attempt makes them again
            return False
        return True

    def _release(self) -> None:
        """End the safe state, unless its calls are still being made: they are brought to their end first."""
        if self._job is not None and not self._job.done.is_set():
            self._make_calls(FORCE_GRACE_S)
            return
        self.why, self._job = "", None
        self._host.logger.warning(
            "%s: safe state ends: all are heard again; the device stays as it is", self._host.name
        )
        self._host.announce_changed()


class _SafeJob:
    """The calls, made once, by the first thread that runs this: the worker or, with `force`, the guard's."""

    def __init__(self, host: InstanceHost, device: DeviceCalls, safe: SafeState) -> None:
        self._host, self._device, self._safe = host, device, safe
        self._turn = threading.Lock()
        self.begun = False
        self.done = threading.Event()
        self.failed_calls: dict[str, str] = {}

    def run(self) -> None:
        with self._turn:
            if self.begun:
                return
            self.begun = True
        try:
            self.failed_calls = self._device.make(self._safe.calls, "safe state")
            calls = ", ".join(map(str, self._safe.calls))
            if not self.failed_calls:
                self._host.logger.warning("%s: safe state: called %s", self._host.name, calls)
        finally:
            self.done.set()

    def failed(self, error: BaseException) -> None:
        self.failed_calls = {"safe_state": str(error)}
        self._host.report("the safe state failed", error, {})


def _measures(method: MethodSpec, function: Callable[..., object]) -> bool:
    """Whether a method is called at set times, takes no argument, and publishes what it returns: it can be told
    nothing, so what it does is taken for reading."""
    if not method.times or not method.of_kind(MarkKind.PUB):
        return False
    try:
        return not inspect.signature(function).parameters
    except ValueError:  # some methods written in C have no signature
        return False


def make_guard(host: DeviceHost, device: DeviceCalls, ticks: Ticker, link: Link) -> NoGuard:
    """The guard that an instance's class asks for."""
    safe = host.spec.care.safe_state
    return NoGuard() if safe is None else SafeStateGuard(host, device, ticks, link, safe)
