"""A run whose program or instance dies at any moment: before or after any fact, any change of tags, any body; with the
fact on its way lost, on disk, or late, and the death of an instance told by the body or not. The run itself is the real
one; recorder, instances and broker are not there.

Beside the kills of real processes (test_adaptive_chaos.py), which meet some moments, this meets all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ether.errors import InstanceLost
from ether.protocol.presence import State
from ether.protocol.run_record import RunState, fact_topics, replay
from ether.recording.tags import Tag
from ether.runs.run import Run, RunOptions
from ether.wire.topics import SessionTopics

LATE, LOST, STORED = "late", "lost", "stored"


class Died(BaseException):
    """Signal 9."""


class World:
    """What outlives a program: the ledger, and what the bodies have done. It also decides when the program dies."""

    def __init__(self, deaths: list[tuple[int, str]], losses: list[tuple[int, bool]] | None = None) -> None:
        self.facts: list[tuple[str, float, Mapping[str, Any]]] = []
        self.deaths = deaths
        """In how many moments the next death is, and what becomes of the fact that was on its way."""
        self.late: list[tuple[str, float, Mapping[str, Any]]] = []
        self.bodies: list[tuple[Any, ...]] = []
        self.outer: list[Any] = []
        self.died = 0
        self.losses = losses or []
        """In how many moments the instance dies next, and whether the body that calls it then hears of that."""
        self.incarnation = 0
        self.tag: Tag | None = None

    def moment(self, fact: tuple[str, float, Mapping[str, Any]] | None = None) -> None:
        """The program may die here, or the instance."""
        if self.losses:
            left, heard = self.losses[0]
            self.losses[0] = (left - 1, heard)
            if left <= 0:
                self.losses.pop(0)
                self.incarnation += 1
        if self.deaths:
            left, fate = self.deaths[0]
            if left <= 0:
                if fact is not None and fate != LOST:
                    (self.late if fate == LATE else self.facts).append(fact)
                raise Died
            self.deaths[0] = (left - 1, fate)
        if fact is not None:
            self.facts.append(fact)

    def body(self, *what: Any) -> None:
        before, heard = self.incarnation, bool(self.losses) and self.losses[0][1]
        self.moment()
        self.bodies.append(what)
        self.moment()
        if heard and self.incarnation != before:
            raise InstanceLost("reader.read", "reader", "killed")

    def life(self, experiment: Callable[[World, Run], None]) -> bool:
        """One start of the program; returns whether it came to its end."""
        run = self._run()
        try:
            with run:
                experiment(self, run)
        except Died:
            self.deaths.pop(0)
            self.died += 1
            return False
        return True

    def _run(self) -> Run:
        session = SimpleNamespace(sync=lambda *_: {}, await_change=lambda *_: True, announcements=self._known)
        link = SimpleNamespace(source="main", caused=None, listen=lambda *_: None, unlisten=lambda *_: None)
        client = SimpleNamespace(session=session, link=link, topics=SessionTopics("moments"))
        options = RunOptions("scan", {}, {}, resume=True, progress=False)
        run = Run(cast(Any, client), cast(Any, None), options, lambda _: True)
        parts = {"_log": _Log(self), "_tags": _Tags(self)}
        for name, part in parts.items():
            setattr(run, name, part)
        return run

    def _known(self) -> list[SimpleNamespace]:
        about = {"name": "reader", "kind": "instance", "state": State.READY}
        return [SimpleNamespace(**about, incarnation=str(self.incarnation))]

    def state(self) -> RunState:
        return replay(self.facts)["scan/1"]


class _Log:
    def __init__(self, world: World) -> None:
        self._world = world
        self._recorded = 0

    def record(self, run: str, event: str, facts: Mapping[str, Any]) -> None:
        self._world.moment()
        topic = fact_topics(run)[0 if event in ("begin", "end") else 1]
        self._world.moment((topic, 1.0 + len(self._world.facts), {"event": event, **facts}))
        self._recorded += 1
        if self._recorded == 3:  # the former program's outbox comes home meanwhile
            self._world.facts += self._world.late
            self._world.late = []
        self._world.moment()

    def runs(self, run: str | None = None) -> dict[str, RunState]:
        states = replay(self._world.facts)
        return {id: RunState.from_value(state.to_value(results=run is not None)) for id, state in states.items()}


class _Tags:
    def __init__(self, world: World) -> None:
        self._world = world

    def broadcast(self, tag: Tag, timeout_s: float, what: str, ended: Sequence[str]) -> Mapping[str, str]:
        self._world.moment()
        self._world.tag = tag
        return {}

    def clear(self) -> None: ...
    def incarnations(self) -> dict[str, str]:
        return {"reader": str(self._world.incarnation)}

    def left_out(self, *_: object) -> list[str]:
        return []

    def await_back(self, *_: object) -> None: ...


def nested(world: World, run: Run) -> None:
    for outer in run.trials([0, 1], order="random", again=99):
        with outer:
            world.outer.append(outer.condition)
            for inner in run.trials(iter("ab"), again=99):
                with inner:
                    for third in run.trials([5, 6], again=99):
                        with third:
                            assert world.tag is not None
                            assert (world.tag.trial, world.tag.attempt) == (third.number, third.attempt)
                            world.body(outer.condition, inner.condition, third.condition)
            for after in run.trials(1, again=99):
                with after:
                    assert after.within is outer
                    world.body(outer.condition, "after", 0)
            assert world.tag is not None
            assert (world.tag.trial, world.tag.attempt) == (outer.number, outer.attempt)


NESTED = {(o, i, t) for o in (0, 1) for i in "ab" for t in (5, 6)} | {(0, "after", 0), (1, "after", 0)}


class Halves:
    def __init__(self) -> None:
        self.low, self.high = 0.0, 8.0

    def ask(self) -> float | None:
        return None if self.high - self.low < 1 else (self.low + self.high) / 2

    def tell(self, condition: float, result: float) -> None:
        self.low, self.high = (self.low, condition) if result > 0 else (condition, self.high)


def sent() -> Iterator[float | None]:
    halves = Halves()
    while True:
        point = halves.ask()
        result: Any = yield point
        halves.tell(cast(float, point), result)


def of_history(history: list[tuple[float, float]]) -> float | None:
    halves = Halves()
    for condition, result in history:
        halves.tell(condition, result)
    return halves.ask()


def adaptive(strategy: Callable[[], Any]) -> Callable[[World, Run], None]:
    def experiment(world: World, run: Run) -> None:
        for outer in run.trials(["low", "high"], again=99):
            for trial in run.adapt(strategy(), again=99):
                with trial:
                    world.body(outer.condition, trial.condition)
                    trial.result = trial.condition - (3.3 if outer.condition == "low" else 7.9)

    return experiment


ADAPTIVE = [*(("low", x) for x in (4.0, 2.0, 3.0, 3.5)), *(("high", x) for x in (4.0, 6.0, 7.0, 7.5))]


def drawn_and_snake(world: World, run: Run) -> None:
    def squares() -> Iterator[int]:
        yield from (number * number for number in range(4))

    for trial in run.trials(squares(), again=99):
        with trial:
            world.body(trial.condition)
    run.each(
        lambda trial: world.body(trial.condition["x"], trial.condition["y"]),
        run.scan({"x": lambda _: None, "y": lambda _: None}, {"x": [0, 1], "y": [0, 1]}, order="snake", again=99),
    )


DRAWN = [(0,), (1,), (4,), (9,), (0, 0), (0, 1), (1, 1), (1, 0)]

PROGRAMS: dict[str, tuple[Callable[[World, Run], None], Any]] = {
    "nested": (nested, NESTED),
    "ask-tell": (adaptive(Halves), ADAPTIVE),
    "sent": (adaptive(sent), ADAPTIVE),
    "history": (adaptive(lambda: of_history), ADAPTIVE),
    "drawn": (drawn_and_snake, DRAWN),
}
FATES = st.sampled_from([LATE, LOST, STORED])


def carried_out(name: str, deaths: list[tuple[int, str]], losses: list[tuple[int, bool]] | None = None) -> World:
    experiment, wanted = PROGRAMS[name]
    world = World(list(deaths), list(losses or []))
    while not world.life(experiment):
        pass
    world.deaths, world.losses = [], []
    all_deaths = world.died + world.incarnation
    assert set(world.bodies) == set(wanted)
    if isinstance(wanted, list):
        assert list(dict.fromkeys(world.bodies)) == wanted
    assert len(world.bodies) <= len(wanted) + all_deaths, Counter(world.bodies)
    assert len(world.outer) <= 2 + all_deaths
    state = world.state()
    assert (state.status, state.all_done) == ("ended", True)
    assert len(state.done) == state.planned == len({*state.trials})
    facts = len(world.facts)
    bodies = len(world.bodies)
    assert world.life(experiment)
    assert (len(world.facts), len(world.bodies)) == (facts, bodies)  # looked at, and left as it was
    return world


def test_the_end_that_a_dead_program_has_recorded_may_come_after_that_of_its_successor() -> None:
    carried_out("drawn", [(103, LATE), (2, LATE), (16, LATE), (1, LATE)])


@pytest.mark.parametrize("name", PROGRAMS)
@settings(max_examples=1000 if os.environ.get("ETHER_LONG") == "1" else 25)
@given(
    deaths=st.lists(st.tuples(st.integers(0, 120), FATES), max_size=8),
    losses=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=8),
)
def test_nothing_is_skipped_and_a_death_repeats_one_trial_at_most(
    name: str, deaths: list[tuple[int, str]], losses: list[tuple[int, bool]]
) -> None:
    carried_out(name, deaths, losses)


@pytest.mark.slow("begins a run again at each moment of it")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_death_at_each_single_moment(name: str) -> None:
    moment, fates = 0, [LATE, LOST, STORED]
    while carried_out(name, [(moment, fates[moment % 3]), (moment, fates[moment // 3 % 3])]).died:
        moment += 1
    assert moment > 50
    moment = 0
    while carried_out(name, [], [(moment, moment % 2 == 0)]).incarnation:
        moment += 1
    assert moment > 50
