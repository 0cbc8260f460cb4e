"""Keeps a device safe when nobody is there any more: the instance's own process makes the calls of `safe_state`.

It listens for signs of life that come through the broker: its own, which say that broker and network work, and those
of the instances that control it. When one of them has been silent for `after`, the calls are made, ahead of everything
that is queued. Until all are heard again, what comes from outside is refused (`InSafeState`), except what only reads a
property and what `allow` names: a setpoint that was queued before must not switch a heater on again. Calls that failed
are made again every second meanwhile. Then the instance serves again; the device stays as the calls left it.

The trap: user code runs on the worker. One that hangs in a driver keeps the calls waiting; with `force` they are made
from another thread after half a second, beside whatever hangs. Code that never gives Python's lock back keeps all
waiting.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ether.connection.link import Inbound, Link
from ether.errors import InSafeState
from ether.instance.silence_rules import Absences
from ether.protocol.failure_detector import INTERVAL_S
from ether.spec.wrapping import SafeState

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

FORCE_GRACE_S = 0.5
AGAIN_S = 1.0
_SIGNS = 4
"""Signs of life within the time after which one is gone."""


class NoGuard:
    """Of an instance without a safe state."""

    interval_s = INTERVAL_S
    why = ""

    def start(self) -> None:
        """Nothing to watch."""

    def stop(self) -> None:
        """Nothing to end."""

    def check(self, method: str) -> None:
        """Everything may run."""

    def orphaned(self) -> None:
        """Nothing to make safe."""

    def about(self) -> dict[str, object]:
        """Nothing to announce."""
        return {}


class SafeStateGuard(NoGuard):
    """Watches from `start()` to `stop()`."""

    def __init__(self, instance: HostedInstance, link: Link, safe: SafeState) -> None:
        self._instance, self._link, self._safe = instance, link, safe
        self.interval_s = min(INTERVAL_S, safe.after_s / _SIGNS)
        self.why = ""
        self._since = 0.0
        self._job: _SafeJob | None = None
        self._absences = Absences(safe.after_s, (), 0.0)
        self._reads = {method.name for method in instance.spec.methods if method.reads}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ether-guard-{instance.name}", daemon=True)

    def start(self) -> None:
        """Listen, and watch; signs of life are sent already."""
        names = (self._instance.name, *self._safe.watch)
        for name in names:
            self._link.listen(self._instance.topics.heartbeat(name), self._hear, now=self._hear, qos=0)
        self._absences = Absences(self._safe.after_s, names, time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. Twice is fine."""
        self._stopped.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def check(self, method: str) -> None:
        """Raises `InSafeState` for what may not run now."""
        if self.why and method not in self._reads and method not in self._safe.allow:
            raise InSafeState(self._instance.name, method, self.why)

    def orphaned(self) -> None:
        """The launcher is dead, and this process ends: make the device safe now, within the time that is stated."""
        deadline = time.monotonic() + self._safe.after_s
        self._stopped.set()
        self.why = self.why or "its launcher is gone"
        self._instance.logger.error("%s: safe state: its launcher is gone", self._instance.name)
        while not self._carry_out(deadline - time.monotonic()) and time.monotonic() < deadline:
            pass

    def about(self) -> dict[str, object]:
        """What is announced, and told to whoever asks."""
        return {"safe": {"why": self.why, "since": self._since}} if self.why else {}

    # -- inside

    def _hear(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        self._absences.hear(self._instance.topics.instance_of_heartbeat(inbound.delivery.topic), time.monotonic())
        inbound.done()
        return True

    def _run(self) -> None:
        wait_s = self._safe.after_s
        while not self._stopped.wait(wait_s):
            now = time.monotonic()
            gone = self._absences.gone(now)
            if gone:
                self._be_safe(gone)
            elif self.why:
                self._release()
            wait_s = min(self._absences.look_again_s(now), self.interval_s if self.why else self._safe.after_s)

    def _be_safe(self, gone: tuple[str, ...]) -> None:
        if not self.why:
            own = self._instance.name in gone
            what = "the broker or the way to it" if own else f"its controller ({', '.join(gone)})"
            self.why, self._since = f"{what} is gone for {self._safe.after_s:g} s", time.time()
            self._instance.logger.error("%s: safe state: %s; %s", self._instance.name, self.why, self._held())
            self._carry_out(FORCE_GRACE_S)
            self._announce()
        elif self._job is None:
            self._stopped.wait(AGAIN_S)
            self._carry_out(FORCE_GRACE_S)

    def _held(self) -> str:
        polled = [name for name in self._instance.ticks.missed if name not in {*self._reads, *self._safe.allow}]
        held = f", and the ticks of {', '.join(polled)}" if polled else ""
        return f"messages and calls are refused{held} until it is back (safe_state.allow lists what is not)"

    def _carry_out(self, wait_s: float) -> bool:
        """Have the calls made, ahead of the queue; waits for them. False where one failed, or is still to be made."""
        job = self._job
        if job is None:
            job = self._job = _SafeJob(self._instance, self._safe)
            self._instance.worker.interrupt(job)
        grace_s = min(wait_s, FORCE_GRACE_S) if self._safe.force else wait_s
        if not job.done.wait(max(0.0, grace_s)) and self._safe.force and not job.begun:
            self._instance.logger.error("%s: its worker hangs; calling from beside it", self._instance.name)
            job.run()
        if not job.done.is_set():
            return False
        if job.failed_calls:
            self._job = None  # and again
            return False
        return True

    def _release(self) -> None:
        if self._job is not None and not self._job.done.is_set():
            self._carry_out(FORCE_GRACE_S)  # once begun, it is brought to its end
            return
        self.why, self._job = "", None
        self._instance.logger.warning(
            "%s: safe state ends: all are heard again; the device stays as it is", self._instance.name
        )
        self._announce()

    def _announce(self) -> None:
        self._instance.announcer.changed()


class _SafeJob:
    """The calls, made once by whoever comes first."""

    def __init__(self, instance: HostedInstance, safe: SafeState) -> None:
        self._instance, self._safe = instance, safe
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
            self.failed_calls = self._instance.device.make(self._safe.calls, "safe state")
            said = ", ".join(map(str, self._safe.calls))
            if not self.failed_calls:
                self._instance.logger.warning("%s: safe state: called %s", self._instance.name, said)
        finally:
            self.done.set()

    def failed(self, error: BaseException) -> None:
        self.failed_calls = {"safe_state": str(error)}
        self._instance.report("the safe state failed", error, {})


def guard(instance: HostedInstance, link: Link) -> NoGuard:
    """The guard of an instance."""
    safe = instance.spec.care.safe_state
    return NoGuard() if safe is None else SafeStateGuard(instance, link, safe)
