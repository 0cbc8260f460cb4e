"""The instances of this program's configuration that agents run, on other machines (`host:`).

Promises: each instance is requested from its agent, by the same description that a local one is started from, and is
waited for in the same way; a refusal is reported in the agent's own words. An instance that its agent runs already
under the same description is left as it is: a program that was started again finds its instances where it left them.

The trap: this program's death does not end them, on purpose. Only `remove()` does.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ether.config import EtherConfig, EtherInstanceConfig
from ether.connection.deadline import Deadline
from ether.errors import EncodeError, EtherError, StartFailed
from ether.launch.end_limits import EndLimits
from ether.launch.start_order import Start, start_in_order
from ether.protocol.barrier import Answer, Barrier
from ether.protocol.presence import Announcement, State
from ether.secret_values import secrets_in
from ether.session.own_rights import KEYS as RIGHTS
from ether.session.session import KEEP, SECRETS, Session
from ether.wire.codec import JSON, decode, encode

AGENT_PATIENCE_S = 15.0
"""For an agent that has not joined yet: it looks for its session 5 s after the loss of its broker, then every 2 s."""

UNDO_TIMEOUT_S = 20.0


class RemoteInstances:
    """The instances that agents run for one program."""

    def __init__(self, config: EtherConfig) -> None:
        self._config = config
        self._instances: dict[str, EtherInstanceConfig] = {}
        self._newly_started: set[str] = set()
        """Those that their agents have started or replaced for this program, not found running."""
        self._failed: dict[str, str] = {}
        self._agents: dict[str, State] = {}
        self._changed = threading.Condition()
        self._session: Session | None = None

    # -- what there is

    @property
    def names(self) -> list[str]:
        """The instances, in the order in which they were given."""
        return list(self._instances)

    @property
    def reachable(self) -> list[str]:
        """The instances whose agent is ready."""
        return [name for name in self._instances if self._agents.get(self._agent_of(name)) is State.READY]

    def failed(self) -> Mapping[str, str]:
        """The instances that will not become ready, and why."""
        states = {name: self._agents.get(self._agent_of(name), State.READY) for name in self._instances}
        offline = {name: state for name, state in states.items() if state is not State.READY}
        gone = {name: f"its agent {self._agent_of(name)!r} is {state.value}" for name, state in offline.items()}
        return {**gone, **self._failed}

    def add(self, name: str, instance: EtherInstanceConfig) -> None:
        """Add an instance; it is requested when its `Start` begins."""
        self._instances[name] = instance

    def forget(self, name: str) -> None:
        """The instance belongs to this program no more. Twice is fine."""
        self._instances.pop(name, None)
        self._failed.pop(name, None)
        self._newly_started.discard(name)

    def connect(self, session: Session) -> None:
        """Give it its session, in which it watches agents come and go."""
        self._session = session
        session.watch(self._on_announcement)
        for announcement in session.announcements():
            self._on_announcement(announcement)

    def _agent_of(self, name: str) -> str:
        return str(self._instances[name].host)

    def _joined(self) -> Session:
        assert self._session is not None
        return self._session

    def _on_announcement(self, announcement: Announcement) -> None:
        """On the dispatch thread, under the session's lock."""
        if announcement.kind != "agent":
            return
        with self._changed:
            self._agents[announcement.name] = announcement.state
            self._changed.notify_all()
        self._joined().wake()

    # -- starting

    def starts(self, names: Sequence[str], timeout_s: float) -> dict[str, Start]:
        """How each instance is begun. Instances are begun one after the other, so those whose agent is ready come
        first, and one deadline bounds the waits for all absent agents together."""
        patience = Deadline(min(timeout_s / 2, AGENT_PATIENCE_S))
        reachable = set(self.reachable)
        ordered = sorted(names, key=lambda name: name not in reachable)
        return {name: Start(self._instances[name].after, partial(self._begin, name, patience)) for name in ordered}

    def start(self, name: str, timeout_s: float) -> None:
        """Start one instance, while everything runs. Raises `StartFailed`."""
        deadline = Deadline(timeout_s)
        starts = self.starts([name], timeout_s)
        reasons = start_in_order(self._joined(), starts, deadline, self.failed)
        if reasons := {**reasons, **self.refused([name])}:
            self.undo([name])
            self.forget(name)
            raise StartFailed(self._joined().topics.session, reasons, instance=True)

    def refused(self, names: Sequence[str]) -> dict[str, str]:
        """The named instances that their agents refused, and why. Another instance may be ready under such a name."""
        return {name: self._failed[name] for name in names if name in self._failed}

    def _begin(self, name: str, patience: Deadline, deadline: Deadline) -> None:
        """Request one instance from its agent; returns with the agent's answer, before the instance is ready. Waits for
        the agent until an announcement makes it ready (`_changed`), or `patience` has passed."""
        agent = self._agent_of(name)
        self._failed.pop(name, None)
        if not self._await_agent(agent, patience):
            self._fail(name, self._why_no_agent(agent))
            return
        try:
            asked = {"do": "run", "name": name, **description_of(self._config, name, self._instances[name])}
            barrier = self._ask([agent], deadline.left(), asked)
        except EtherError as error:
            self._fail(name, f"agent {agent!r} could not be asked to run it: {error}")
            return
        self._take_answer(name, agent, barrier, deadline)

    def _take_answer(self, name: str, agent: str, barrier: Barrier, deadline: Deadline) -> None:
        if reasons := barrier.reasons(deadline.timeout_s):
            answer = barrier.answers.get(agent, Answer())
            why = "; ".join(answer.failed.values()) or reasons[agent]
            self._fail(name, f"agent {agent!r} does not run it: {why}")
        elif barrier.answers[agent].results.get("run") != "runs":
            self._newly_started.add(name)

    def _fail(self, name: str, why: str) -> None:
        self._failed[name] = why
        self._joined().wake()

    def _await_agent(self, agent: str, patience: Deadline) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._agents.get(agent) is State.READY, patience.left())

    def _why_no_agent(self, agent: str) -> str:
        ready = sorted(name for name, state in self._agents.items() if state is State.READY)
        listed = f"there are {', '.join(ready)}" if ready else "there is none at all"
        nearest = difflib.get_close_matches(agent, ready, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else f" Start it on that machine: ether agent --name {agent}"
        return f"no agent {agent!r} is in the session; {listed}.{hint}"

    # -- one of them, while everything runs

    def restart(self, name: str, timeout_s: float) -> None:
        """Let its agent stop an instance in order and start it again. Raises `StartFailed`."""
        agent = self._agent_of(name)
        barrier = self._ask([agent], timeout_s, {"do": "restart", "name": name})
        if reasons := barrier.reasons(timeout_s):
            raise StartFailed(self._joined().topics.session, {name: f"{agent}: {reasons[agent]}"}, instance=True)

    def remove(
        self, names: Sequence[str], timeout_s: float, steps: Sequence[str] | None = None,
        limits: EndLimits | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Let the agents stop the instances, and forget them. `steps` are the steps of the end that are still to be
        taken, None for all; `limits` those of this program's ends, None for the agents' own. Returns what went
        wrong."""
        agents = {name: self._agent_of(name) for name in names}
        ready = sorted({agent for agent in agents.values() if self._agents.get(agent) is State.READY})
        why_not = {agent: "is not there" for agent in agents.values() if agent not in ready}
        problems: dict[str, str] = {}
        if ready:
            asked: dict[str, Any] = {"do": "remove", "names": list(names)}
            asked |= {} if steps is None else {"steps": list(steps)}
            asked |= {} if limits is None else {"end": limits.to_value()}
            try:
                barrier = self._ask(ready, timeout_s, asked)
            except EtherError as error:
                why_not |= dict.fromkeys(ready, f"could not be asked: {error}")
            else:
                why_not |= barrier.reasons(timeout_s)
                problems = _problems_in(barrier)
        for name, agent in agents.items():
            self.forget(name)
            if agent in why_not:
                problems[name] = f"its agent {agent!r} {why_not[agent]}; there it may go on running"
        return problems

    def undo(self, names: Sequence[str]) -> dict[str, str]:
        """Remove the named instances that were newly started for this program. Those that an agent ran before stay."""
        return self.remove([name for name in names if name in self._newly_started], UNDO_TIMEOUT_S)

    def _ask(self, agents: Sequence[str], timeout_s: float, asked: Mapping[str, Any]) -> Barrier:
        return self._joined().ask(KEEP, agents, timeout_s, asked)


def _problems_in(barrier: Barrier) -> dict[str, str]:
    answered = [answer.results.get("problems") for answer in barrier.answers.values()]
    return {str(name): str(why) for each in answered if isinstance(each, dict) for name, why in each.items()}


def description_of(config: EtherConfig, name: str, instance: EtherInstanceConfig) -> dict[str, Any]:
    """An instance and the registry, as a request to an agent: JSON, because the agent writes it to a file. Raises
    `EncodeError`, which names what JSON cannot carry."""
    described = instance.model_dump(by_alias=True, exclude_defaults=True, exclude={"host", "autorun"})
    if config.security is not None:  # then what is not said is not allowed, there as well
        described = {**dict.fromkeys(RIGHTS, ()), **described}
    value = {
        "instance": described,
        "registry": {
            path: entry.model_dump(by_alias=True, exclude_defaults=True) for path, entry in config.registry.items()
        },
    }
    try:
        body = encode(value)
    except EncodeError as error:
        raise EncodeError(f"instances.{name}.{error.path}", error.problem) from error
    if body.content_type != JSON:
        raise EncodeError(
            f"instances.{name}", "an agent takes only arguments that JSON can carry, no bytes and no arrays"
        )
    description = decode(*body)
    assert isinstance(description, dict)
    secrets = secrets_in(value)
    return {**description, SECRETS: secrets} if secrets else description
