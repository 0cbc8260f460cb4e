"""The record of a named run: the facts that its program records, and the state that every reader makes of them.

Two processes must agree on it: the program that leads a run records facts, and whichever program reads the ledger
(the recorder, `ether runs`, a program that resumes the run) puts the same facts together again.

A run's id is `name/N`, the Nth run of that name. Its facts are recorded in the order of events: `begin`; for each row
of trials a `plan`; for each condition that is drawn while the run goes on a `draw`, and a `plan-end` where no more
come; for each trial `trial` and `trial-end`; and `end`. A trial has a number that no other trial of the run has, and
attempts: a trial that was cut short is tried again under the next attempt. Without nesting, the number is the place of
the trial's condition in the list, counted from 1. A row may be inside of a trial; its trials have the numbers that are
free then.

Promises: pure. A trial counts as done only where its end is among the facts; of several attempts that were done the
last one counts. Of two plans of the same row, and of two conditions of the same number, the one of the later program
counts (the one with the higher turn): it was recorded by a program that did not know the other one.

The trap: facts of a program that died may arrive late (they waited in its outbox), after the facts of the program that
resumed the run. Versions before nesting recorded no place of a row (`nth`); it is inferred from the order of the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ether.wire.run_ids import is_run_id

RUNNING, ENDED, LEFT, FAILED, INTERRUPTED, ABORTED = "running", "ended", "left", "failed", "interrupted", "aborted"
"""How a run stands: `ended` with all of its trials done, `left` before that without an error, `failed` with one,
`interrupted` by Ctrl-C, `aborted` where its program died."""
DONE, DISTURBED = "done", "disturbed"
"""Of a trial. Otherwise as of a run, or `disturbed`: an instance that took part died."""


PlanKey = tuple[int | None, int]
"""The place of a row of trials in the program, by which a resumed run finds it: the number of the trial that the row is
inside of (None: of none), and how many rows began there before it. The attempt of that trial is not part of the key:
what was done inside of an attempt that was cut short is not done again."""


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """A row of trials: their conditions, numbered from `first` on, and the order of the numbers.

    `within` is the number and the attempt of the trial that the row is inside of, `nth` counts the rows there, from 0.
    Where the conditions are `drawn` one by one, `order` has the numbers of those that were drawn so far, in the order
    of the conditions; `complete` says that no more come."""

    first: int
    order: tuple[int, ...]
    conditions: tuple[Any, ...]
    seed: int | None = None
    within: tuple[int, int] | None = None
    nth: int = 0
    drawn: bool = False
    complete: bool = True

    @property
    def key(self) -> PlanKey:
        """By which a resumed run finds the row."""
        return None if self.within is None else self.within[0], self.nth

    def condition(self, number: int) -> Any:
        """Of a trial, by its number."""
        return self.conditions[self.order.index(number) if self.drawn else number - self.first]

    def to_value(self) -> dict[str, Any]:
        """As it is recorded."""
        return {
            "first": self.first, "order": list(self.order), "conditions": list(self.conditions), "seed": self.seed,
            "within": None if self.within is None else list(self.within), "nth": self.nth,
            **({"drawn": True, "complete": self.complete} if self.drawn else {}),
        }  # fmt: skip

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> TrialPlan:
        """The inverse."""
        within, drawn = value.get("within"), bool(value.get("drawn"))
        return cls(
            value["first"], tuple(value["order"]), tuple(value["conditions"]), value.get("seed"),
            None if within is None else (int(within[0]), int(within[1])), int(value.get("nth") or 0),
            drawn, bool(value.get("complete")) or not drawn,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attempts:
    """What became of a trial. `seconds` is how long its last finished attempt took, None where none did; `result` is
    the result of the attempt that counts, as it was recorded."""

    tried: int = 0
    counts: int | None = None
    """The attempt that was done, and counts; None where none was."""
    open: bool = False
    """Whether the last attempt has no end."""
    seconds: float | None = None
    result: Any = None

    def to_value(self, *, results: bool = True) -> list[Any]:
        """For a message."""
        return [self.tried, self.counts, self.open, self.seconds, self.result if results else None]


@dataclass(frozen=True, slots=True)
class RunState:
    """What the facts say of a run; times in unix seconds."""

    id: str
    name: str = ""
    status: str = RUNNING
    error: str = ""
    begun: float = 0.0
    ended: float | None = None
    resumed: int = 0
    owner: Mapping[str, Any] = field(default_factory=dict)
    """Whose run it is: `program`, `host`, `pid`, `pid_began`, `session_run`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plans: tuple[TrialPlan, ...] = ()
    trials: Mapping[int, Attempts] = field(default_factory=dict)
    """By trial number, those that were begun."""
    turn: int = 0
    """The highest turn that its tags have had."""
    last: float = 0.0
    """When its own programs recorded the last fact."""

    @property
    def done(self) -> list[int]:
        """The numbers of the trials that count."""
        return [number for number, attempts in self.trials.items() if attempts.counts is not None]

    @property
    def planned(self) -> int:
        """How many trials there are to be, as far as is known."""
        return sum(len(plan.order) for plan in self.plans)

    @property
    def repeated(self) -> list[int]:
        """The numbers of the trials that were tried more than once."""
        return sorted(number for number, attempts in self.trials.items() if attempts.tried > 1)

    @property
    def complete(self) -> bool:
        """Whether the number of trials is known: no row has conditions that are still to be drawn."""
        return all(plan.complete for plan in self.plans)

    @property
    def all_done(self) -> bool:
        """Whether every trial that was planned is done."""
        return len(self.done) == self.planned and self.complete

    @property
    def nested(self) -> dict[int, int]:
        """By the number of each trial that is inside of another one the number of that one."""
        return {number: plan.within[0] for plan in self.plans if plan.within is not None for number in plan.order}

    def with_nested(self, wanted: Iterable[int]) -> list[int]:
        """These trials, and all that are inside of them, at any depth."""
        outer, found = self.nested, set(wanted)
        for number in sorted(outer):  # a nested trial's number is higher than that of the trial around it
            if outer[number] in found:
                found.add(number)
        return sorted(found)

    def to_value(self, *, results: bool = True) -> dict[str, Any]:
        """For a message; `results` says whether it has the trials' results, which may be large."""
        plain = ("id", "name", "status", "error", "begun", "ended", "resumed", "turn", "last")
        return {
            **{name: getattr(self, name) for name in plain}, "owner": dict(self.owner), "metadata": dict(self.metadata),
            "plans": [plan.to_value() for plan in self.plans],
            "trials": [[number, *attempts.to_value(results=results)] for number, attempts in self.trials.items()],
        }  # fmt: skip

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> RunState:
        """The inverse."""
        plans = tuple(TrialPlan.from_value(plan) for plan in value["plans"])
        return cls(**{
            **value, "plans": plans, "trials": {number: Attempts(*rest) for number, *rest in value["trials"]},
        })  # fmt: skip


def fact_topics(run: str) -> tuple[str, str]:
    """Under which names the facts of a run are recorded: of its beginning and end, and of its trials."""
    return run, f"{run}/trials"


def replay(facts: Iterable[tuple[str, float, Mapping[str, Any]]]) -> dict[str, RunState]:
    """The runs that facts speak of, by id, in the order in which they began. A fact is the name it was recorded under,
    its time, and what it says; facts that are not of named runs are passed over."""
    gathered: dict[str, _Gathered] = {}
    for topic, time, said in facts:
        run = topic.removesuffix("/trials")
        if isinstance(run, str) and is_run_id(run) and isinstance(said.get("event"), str):
            gathered.setdefault(run, _Gathered(run)).take(time, said)
    return {run: known.state() for run, known in gathered.items()}


class _Gathered:
    """Facts of one run, taken one after the other."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._values: dict[str, Any] = {"name": run.rpartition("/")[0]}
        self._plans: dict[PlanKey, tuple[int, TrialPlan]] = {}
        self._old_plans: dict[int, tuple[TrialPlan, tuple[int, int] | None]] = {}
        """Plans that name no place, by their first number, each with the trial that was open then."""
        self._drawn: dict[int, tuple[int, PlanKey, Any]] = {}
        self._drawn_of: dict[PlanKey, int] = {}
        """How many conditions a row had when no more came."""
        self._begun: dict[tuple[int, int], float] = {}
        self._ended: dict[tuple[int, int], tuple[str, float, object, Any]] = {}
        self._turn, self._last = 0, 0.0
        self._life = 0
        """The turn with which the last program began."""

    def take(self, time: float, said: Mapping[str, Any]) -> None:
        turn = int(said.get("turn", self._turn) or 0)
        late = turn < self._turn  # of a program that has died, and after a fact of its successor
        self._turn = max(self._turn, turn)
        if not late and said.get("status") != ABORTED:  # that is said by who finds the run, however much later
            self._last = time
        match said["event"]:
            case "begin":
                self._begin(time, said, late=late)
            case "end" if turn >= self._life:
                ended = self._last if said["status"] == ABORTED and self._last else time
                self._values |= {"status": said["status"], "error": said.get("error", ""), "ended": ended}
            case "plan":
                self._plan(turn, said)
            case "draw":
                if said["trial"] not in self._drawn or self._drawn[said["trial"]][0] < turn:
                    self._drawn[said["trial"]] = (turn, _key_of(said), said.get("condition"))
            case "plan-end":
                self._drawn_of[_key_of(said)] = said["of"]
            case "trial":
                self._begun.setdefault((said["trial"], said["attempt"]), time)
            case "trial-end":
                facts = (said["status"], time, said.get("took_s"), said.get("result"))
                self._ended[said["trial"], said["attempt"]] = facts

    def _begin(self, time: float, said: Mapping[str, Any], *, late: bool) -> None:
        if said.get("resumed"):
            self._values["resumed"] = self._values.get("resumed", 0) + 1
        else:
            self._values |= {"begun": time, "metadata": said.get("metadata") or {}}
        if late:
            return
        self._life = self._turn
        self._values |= {"status": RUNNING, "error": "", "ended": None, "owner": said.get("owner") or {}}

    def _plan(self, turn: int, said: Mapping[str, Any]) -> None:
        plan = TrialPlan.from_value(said)
        if "nth" not in said:
            open_trials = [trial for trial in self._begun if trial not in self._ended]
            self._old_plans.setdefault(plan.first, (plan, open_trials[-1] if open_trials else None))
        elif plan.key not in self._plans or self._plans[plan.key][0] < turn:
            self._plans[plan.key] = (turn, plan)

    def state(self) -> RunState:
        trials: dict[int, Attempts] = {}
        for number, attempt in sorted({*self._begun, *self._ended}):
            trials[number] = self._with(trials.get(number, Attempts()), number, attempt)
        drawn: dict[PlanKey, dict[int, Any]] = {}
        for number, (_, key, condition) in sorted(self._drawn.items(), key=lambda item: item[0]):
            drawn.setdefault(key, {})[number] = condition
        given = (self._with_drawn(plan, drawn.get(key, {})) for key, (_, plan) in self._plans.items())
        plans = [*self._placed(), *given]
        plans.sort(key=lambda plan: (plan.first, plan.nth))
        return RunState(
            self._run, **self._values, plans=tuple(plans), trials=trials, turn=self._turn, last=self._last
        )  # fmt: skip

    def _placed(self) -> Iterator[TrialPlan]:
        """The plans that name no place, with one. A trial that was open then was around the row, except where it was
        left later: then its loop had ended by `break` before the row began."""
        rows: dict[int | None, int] = {}
        for _, (plan, around) in sorted(self._old_plans.items(), key=lambda item: item[0]):
            if around is not None and self._ended.get(around, ("",))[0] == LEFT:
                around = None
            number = None if around is None else around[0]
            yield replace(plan, within=around, nth=rows.get(number, 0))
            rows[number] = rows.get(number, 0) + 1

    def _with_drawn(self, plan: TrialPlan, drawn: Mapping[int, Any]) -> TrialPlan:
        if not plan.drawn:
            return plan
        complete = self._drawn_of.get(plan.key) == len(drawn)
        return replace(plan, order=tuple(drawn), conditions=tuple(drawn.values()), complete=complete)

    def _with(self, before: Attempts, number: int, attempt: int) -> Attempts:
        status, ended, took, result = self._ended.get((number, attempt), ("", 0.0, None, None))
        if status != DONE:
            return replace(before, tried=attempt, open=not status)
        # The times of the two facts are for people: the clock may have been set in between.
        began = self._begun.get((number, attempt), ended)
        seconds = float(took) if isinstance(took, (int, float)) else max(0.0, ended - began)
        return Attempts(attempt, attempt, False, seconds, result)


def _key_of(said: Mapping[str, Any]) -> PlanKey:
    within = said.get("within")
    return None if within is None else int(within[0]), int(said["nth"])
