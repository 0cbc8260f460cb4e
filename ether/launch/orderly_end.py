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
from typing import Any

from ether.calls.client import doing
from ether.connection.deadline import Deadline
from ether.errors import EtherError, TransportError
from ether.launch.child_ends import steps_shown
from ether.launch.end_limits import EndLimits
from ether.launch.remote_instances import RemoteInstances
from ether.launch.supervisor import Supervisor
from ether.log import get_ether_logger
from ether.protocol.barrier import UNHANDLED, heads_of, said_of_unhandled
from ether.protocol.presence import TAKES_PART, State
from ether.session.session import NeverAtRest, Session

logger = get_ether_logger("Ether")

STEPS = ("drain", "save_all", "cleanup", "stop")

_ENDING_S = 0.1
"""For each process that ends: interpreters that end together share the processors. 200 take 10 s on two cores."""

_SHARE_OF_ENDING = 0.2
"""Of `EndLimits.work_s`: at the least, for processes to end."""
_HEARD_S = 0.15
"""For the main thread of a process to hear a signal."""

_RETURN_TIMEOUT_S = 3.0
"""For an instance that is just reconnecting when everything ends."""


@dataclass(slots=True)
class OrderlyEnd:
    """One end; each end makes an object of its own. `local` are the names of the objects of this process that are
    instances. `returns`: the instances are started again afterwards, and leave their announcements, which say so, as
    they are."""

    session: Session
    supervisor: Supervisor
    remote: RemoteInstances
    local: Collection[str]
    limits: EndLimits
    returns: bool = False
    _silent: set[str] = field(default_factory=set)
    """Instances that have left a question unanswered."""
    _stopping: Sequence[str] = ()
    """The children that lived when they were told to stop."""
    _drained: bool = True
    """Whether the system has come to rest before the steps behind the drain."""
    _heads: dict[str, Any] = field(default_factory=dict)
    """The last numbers of what the instances have published, by node and topic: so that each knows what it lacks."""
    _problems: dict[str, list[str]] = field(default_factory=dict)

    def of(self, names: Sequence[str], steps: Sequence[str] = STEPS) -> dict[str, str]:
        """Take the steps; returns what went wrong, by instance. Never raises for what an instance does.

        All on the caller's thread, without a lock. Each step waits for the answers of all instances, or until its time
        is over; an instance that dies meanwhile is not waited for. After the last step the processes end by themselves,
        and the wait for that is the one place where a process is killed.
        """
        work, left_s = Deadline(self.limits.work_s), self.limits.work_s
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
                self._look(self._stopping)
            self._note(step, self._step(step, asked))
            if step == "drain":
                self._leave_handlers([name for name in self._silent if name in children])
                left_s = work.left()
        # Their agents take the last step: they wait for the answer, then for the process. One whose instances were
        # silent before may be cut off, and is not waited for as long.
        stop_s = 0.0 if self._silent.intersection(remote) else self.limits.save_s
        timeout_s = stop_s + 2 * self.limits.work_s
        self._note("stop", self.remote.remove(remote, timeout_s, steps=("stop",), limits=self.limits))
        # Those that answered end by themselves now. Those that did not have never read "stop": SIGTERM tells them.
        for name in self._silent.intersection(children):
            self.supervisor.child(name).terminate()
        left_s = max(left_s, _SHARE_OF_ENDING * self.limits.work_s) + _ENDING_S * (len(children) - 1)
        killed = self.supervisor.end(children, left_s, self.limits.save_s)
        for name in killed:
            heartbeat = self.supervisor.doing(name)
            waited = f", with {heartbeat.queued:,} messages and calls waiting" if heartbeat and heartbeat.queued else ""
            logger.error("instance %s did not end and was killed%s", name, waited)
            self._problems.setdefault(name, []).append(f"did not end and was killed{waited}")
        self._note("stop", self._bad_ends([name for name in self._stopping if name not in killed]))
        return {name: "; ".join(reasons) for name, reasons in self._problems.items()}

    def _look(self, names: Sequence[str]) -> None:
        """Note which processes these have started, while they live."""
        for name in names:
            self.supervisor.child(name).look()

    def _leave_handlers(self, names: Sequence[str]) -> None:
        """These have not come back. The first signal tells them to end behind what they are doing, the second one to
        leave it; each has to be heard before the next one comes."""
        children = [self.supervisor.child(name) for name in names]
        for _ in range(2):
            for child in children:
                child.terminate()
            heard = Deadline(_HEARD_S)
            for child in children:
                child.ended_within(heard.left())

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
        timeout_s = self.limits.of(step)
        try:
            if not self.session.link.transport.connected:
                raise TransportError("the broker is gone")
            participants = self._present(participants)
            ask = self.session.drain if step == "drain" else partial(self.session.ask, step)
            more: dict[str, Any] = {"returns": self.returns, "ends": True}
            if step != "drain":
                more |= {"drained": self._drained, "heads": {**self._heads, **self.session.link.heads}}
            children = {n: self.supervisor.child(n) for n in participants if n in self.supervisor.alive}
            with steps_shown(children, timeout_s):
                barrier = ask(participants, timeout_s=timeout_s, more=more)
        except NeverAtRest as error:
            self._drained = False
            return {"the session": str(error)}
        except EtherError as error:  # the steps that follow must be taken all the same
            self._silent.update(participants)
            return dict.fromkeys(participants, f"could not be asked: {error}")
        self._silent.update(barrier.missing)
        self._heads |= heads_of(barrier.answers)
        reasons = barrier.reasons(timeout_s)
        self._drained = self._drained and not (reasons and step == "drain")
        for name, answer in barrier.answers.items():
            if isinstance(left := answer.results.get(UNHANDLED), dict):
                self._say_unhandled(name, said_of_unhandled(left), reasons)
        for name in barrier.missing:
            if (heartbeat := self.supervisor.doing(name)) is not None and (heartbeat.busy or heartbeat.queued):
                reasons[name] = f"{reasons[name]}: it {doing(heartbeat.to_value())}"
        if step == "stop":  # who ended before its answer came is judged by its exit code, when it is known
            reasons = {n: why for n, why in reasons.items() if not (n in barrier.lost and n in self._stopping)}
        return reasons

    def _say_unhandled(self, name: str, said: str, reasons: dict[str, str]) -> None:
        """An instance has left messages. Where the system had come to rest, these were published by the last steps
        themselves, or by a thread that went on; that is logged, and is no failure of the end."""
        if self._drained:
            logger.warning("%s: %s", name, said)
        else:
            reasons[name] = f"{reasons[name]}; {said}" if name in reasons else said

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
