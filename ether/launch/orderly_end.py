"""The end of instances, in order: drain the work in flight, save_all, cleanup, stop. One that is started again
afterwards finishes what it has begun, and leaves the messages that wait to its successor.

Promise: each step is taken with all instances before the next step begins. Each step is bounded, and what went wrong in
it is logged and returned. An instance that does not answer is asked no more: a signal tells it to end, and in the end
it is killed.

The traps: an instance that an agent runs takes the first three steps with the others; the last step is its agent's to
take. And an instance that was told to stop may have ended before its answer arrives; whether it has stopped as it
should is then said by its exit code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ether.calls.client import doing
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
    """One end; each end makes an object of its own. `local` are the names of the objects of this process that are
    instances; `step_timeout_s` bounds each step. `returns`: the instances are started again afterwards, and leave
    their announcements, which say so, as they are."""

    session: Session
    supervisor: Supervisor
    remote: RemoteInstances
    local: Collection[str]
    step_timeout_s: float
    returns: bool = False
    _silent: set[str] = field(default_factory=set)
    """Instances that have left a question unanswered."""
    _stopping: Sequence[str] = ()
    """The children that lived when they were told to stop."""
    _problems: dict[str, list[str]] = field(default_factory=dict)

    def of(self, names: Sequence[str], steps: Sequence[str] = STEPS) -> dict[str, str]:
        """Take the steps; returns what went wrong, by instance. Never raises for what an instance does.

        All on the caller's thread, without a lock. Each step waits for the answers of all instances, or until
        `step_timeout_s` has passed; an instance that dies meanwhile is not waited for. After the last step the
        processes end by themselves, and the wait for that is the one place where a process is killed.
        """
        children = [name for name in names if name in self.supervisor.names]
        remote = [name for name in names if name in self.remote.names]
        for step in steps:
            if self.returns and step == "stop":
                # Said while they still run: from now on callers wait for the next incarnation instead of failing.
                self._say_restarting(children)
            # Remote instances do not get "stop" from here: their agent supervises them, so the agent has to know first
            # that their end is wanted.
            asked = [name for name in names if step != "stop" or name not in remote]
            if step == "stop":
                self._stopping = [name for name in children if name in self.supervisor.alive]
            self._note(step, self._step(step, asked))
        # Their agents take the last step. Twice the time: an agent waits for the answer, then for the process.
        self._note("stop", self.remote.remove(remote, 2 * self.step_timeout_s, steps=("stop",)))
        # Those that answered end by themselves now. Those that did not have never read "stop": SIGTERM tells them.
        for name in self._silent.intersection(children):
            self.supervisor.child(name).terminate()
        killed = self.supervisor.end(children, self.step_timeout_s + _ENDING_S * len(children))
        for name in killed:
            logger.error("instance %s did not end and was killed", name)
            self._problems.setdefault(name, []).append("did not end and was killed")
        self._note("stop", self._bad_ends([name for name in self._stopping if name not in killed]))
        return {name: "; ".join(reasons) for name, reasons in self._problems.items()}

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
        """Take one step with the instances that are alive and have answered so far; returns what went wrong."""
        alive = {*self.supervisor.alive, *self.local, *self.remote.reachable}
        participants = [name for name in names if name in alive and name not in self._silent]
        if not participants:
            return {}
        try:
            if not self.session.link.transport.connected:
                raise TransportError("the broker is gone")
            participants = self._present(participants)
            ask = self.session.drain if step == "drain" else partial(self.session.ask, step)
            barrier = ask(participants, timeout_s=self.step_timeout_s, more={"returns": self.returns})
        except NeverAtRest as error:
            return {"the session": str(error)}
        except EtherError as error:  # the steps that follow must be taken all the same
            self._silent.update(participants)
            return dict.fromkeys(participants, f"could not be asked: {error}")
        self._silent.update(barrier.missing)
        reasons = barrier.reasons(self.step_timeout_s)
        for name in barrier.missing:
            if (heartbeat := self.supervisor.doing(name)) is not None and (heartbeat.busy or heartbeat.queued):
                reasons[name] = f"{reasons[name]}: it {doing(heartbeat.to_value())}"
        if step == "stop":  # who ended before its answer came is judged by its exit code, when it is known
            reasons = {n: why for n, why in reasons.items() if not (n in barrier.lost and n in self._stopping)}
        return reasons

    def _bad_ends(self, children: Sequence[str]) -> dict[str, str]:
        """The children that have ended in another way than they were told to, and how."""
        ends = {name: self.supervisor.child(name) for name in children}
        return {name: child.how_it_ended() for name, child in ends.items() if not child.ended_as_told}

    def _present(self, participants: list[str]) -> list[str]:
        """The participants without those that are alive and have lost their connection: a question would not reach
        them. Gives those a moment to come back; after that they count as silent, and a signal has to tell them."""
        ended = self.supervisor.ended
        patience = Deadline(0 if self.returns else _RETURN_TIMEOUT_S)
        away = self.session.wait_ready(participants, patience, lambda: ended)
        if not away or self.returns:
            return participants
        self._silent.update(away.keys() - ended.keys())
        return [name for name in participants if name not in away]
