"""The end of instances, in order: drain the work in flight, save_all, cleanup, stop.

Promise: each step is taken with everybody before the next one begins, is bounded, and what went wrong in it is logged
and returned. Whoever does not answer is asked no more, told by a signal, and killed in the end. The trap: an instance
that an agent keeps takes the first three steps with the others; the last one is its agent's to take.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ether.connection.deadline import Deadline
from ether.errors import EtherError, TransportError
from ether.launch.remote_instances import RemoteInstances
from ether.launch.supervisor import Supervisor
from ether.log import get_ether_logger
from ether.protocol.presence import TAKES_PART, State
from ether.session.session import NeverAtRest, Session

logger = get_ether_logger("Ether")

STEPS = ("drain", "save_all", "cleanup", "stop")

_ENDING_S = 0.1
"""For each process that ends: interpreters that end together share the processors. 200 take 10 s on two cores."""

_RETURN_TIMEOUT_S = 3.0
"""For an instance that is just reconnecting when everything ends."""


@dataclass(slots=True)
class OrderlyEnd:
    """One end: made anew for each. `here` are the instances that live in this very process; `step_timeout_s` is for
    each step; `returns`: they will be started again, and leave their announcements, which say so, as they are."""

    session: Session
    supervisor: Supervisor
    elsewhere: RemoteInstances
    here: Collection[str]
    step_timeout_s: float
    returns: bool = False
    _silent: set[str] = field(default_factory=set)
    _problems: dict[str, list[str]] = field(default_factory=dict)

    def of(self, names: Sequence[str], steps: Sequence[str] = STEPS) -> dict[str, str]:
        """Take the steps; returns what went wrong, by instance. Never raises for what an instance does."""
        children = [name for name in names if name in self.supervisor.names]
        far = [name for name in names if name in self.elsewhere.names]
        for step in steps:
            if self.returns and step == "stop":
                self._say_restarting(children)
            self._note(step, self._step(step, [name for name in names if step != "stop" or name not in far]))
        self._note("stop", self.elsewhere.remove(far, 2 * self.step_timeout_s, steps=("stop",)))
        for name in self._silent.intersection(children):
            self.supervisor.child(name).terminate()
        for name in self.supervisor.end(children, self.step_timeout_s + _ENDING_S * len(children)):
            logger.error("instance %s did not end and was killed", name)
            self._problems.setdefault(name, []).append("did not end and was killed")
        return {name: "; ".join(whys) for name, whys in self._problems.items()}

    def _note(self, step: str, reasons: Mapping[str, str]) -> None:
        for name, why in reasons.items():
            logger.error("%s: %s: %s", step, name, why)
            self._problems.setdefault(name, []).append(f"{step}: {why}")

    def _say_restarting(self, names: Sequence[str]) -> None:
        for name in names:
            known = self.session.announcement(name)
            if known is not None and known.state in TAKES_PART:
                self.session.say(replace(known, state=State.RESTARTING, error=""))

    def _step(self, step: str, names: Sequence[str]) -> Mapping[str, str]:
        """Take one step with those who are alive and have answered so far."""
        alive = {*self.supervisor.alive, *self.here, *self.elsewhere.reachable}
        participants = [name for name in names if name in alive and name not in self._silent]
        if not participants:
            return {}
        try:
            if not self.session.link.transport.connected:
                raise TransportError("the broker is gone")
            participants = self._present(participants)
            more = {"returns": self.returns}
            ask = self.session.drain if step == "drain" else partial(self.session.ask, step, more=more)
            barrier = ask(participants, timeout_s=self.step_timeout_s)
        except NeverAtRest as error:
            return {"the session": str(error)}
        except EtherError as error:  # what follows must happen all the same
            self._silent.update(participants)
            return dict.fromkeys(participants, f"could not be asked: {error}")
        self._silent.update(barrier.missing)
        return barrier.reasons(self.step_timeout_s)

    def _present(self, participants: list[str]) -> list[str]:
        """Without those who are alive and not back from a lost connection: a signal must tell them."""
        ended = self.supervisor.ended
        patience = Deadline(0 if self.returns else _RETURN_TIMEOUT_S)
        away = self.session.wait_ready(participants, patience, lambda: ended)
        if not away or self.returns:
            return participants
        self._silent.update(away.keys() - ended.keys())
        return [name for name in participants if name not in away]
