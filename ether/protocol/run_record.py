"""The record of a named run: the facts that its program records, and the state that every reader makes of them.

Two processes must agree on it: the program that leads a run records facts, and whichever program reads the ledger
(the recorder, `ether runs`, a program that resumes the run) puts the same facts together again.

A run's id is `name/N`, the Nth run of that name. Its facts are recorded in the order of events: `begin`; for each row
of trials a `plan`; for each trial `trial` and `trial-end`; and `end`. A trial has a number, which is the place of its
condition in the list, counted from 1, and attempts: a trial that was cut short is tried again under the next attempt.

Promises: pure. A trial counts as done only where its end is among the facts; of several attempts that were done the
last one counts. The first recorded plan is the plan, whatever seed is given later.

The trap: facts of a program that died may arrive late (they waited in its outbox), after the facts of the program that
resumed the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ether.wire.run_ids import is_run_id

RUNNING, ENDED, LEFT, FAILED, INTERRUPTED, ABORTED = "running", "ended", "left", "failed", "interrupted", "aborted"
"""How a run stands: `ended` with all of its trials done, `left` before that without an error, `failed` with one,
`interrupted` by Ctrl-C, `aborted` where its program died."""
DONE, DISTURBED = "done", "disturbed"
"""Of a trial. Otherwise as of a run, or `disturbed`: an instance that took part died."""


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """A row of trials: their conditions, numbered from `first` on, and the order of the numbers."""

    first: int
    order: tuple[int, ...]
    conditions: tuple[Any, ...]
    seed: int | None = None

    def condition(self, number: int) -> Any:
        """Of a trial, by its number."""
        return self.conditions[number - self.first]

    def to_value(self) -> dict[str, Any]:
        """As it is recorded."""
        return {
            "first": self.first, "order": list(self.order), "conditions": list(self.conditions), "seed": self.seed
        }  # fmt: skip

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> TrialPlan:
        """The inverse."""
        return cls(value["first"], tuple(value["order"]), tuple(value["conditions"]), value.get("seed"))


@dataclass(frozen=True, slots=True)
class Attempts:
    """What became of a trial. `seconds` is how long its last finished attempt took, None where none did."""

    tried: int = 0
    counts: int | None = None
    """The attempt that was done, and counts; None where none was."""
    open: bool = False
    """Whether the last attempt has no end."""
    seconds: float | None = None

    def to_value(self) -> list[Any]:
        """For a message."""
        return [self.tried, self.counts, self.open, self.seconds]


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
    def all_done(self) -> bool:
        """Whether every trial that was planned is done."""
        return len(self.done) == self.planned

    def to_value(self) -> dict[str, Any]:
        """For a message."""
        plain = ("id", "name", "status", "error", "begun", "ended", "resumed", "turn")
        return {
            **{name: getattr(self, name) for name in plain}, "owner": dict(self.owner), "metadata": dict(self.metadata),
            "plans": [plan.to_value() for plan in self.plans],
            "trials": [[number, *attempts.to_value()] for number, attempts in self.trials.items()],
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
        self._plans: dict[int, TrialPlan] = {}
        self._begun: dict[tuple[int, int], float] = {}
        self._ended: dict[tuple[int, int], tuple[str, float, object]] = {}
        self._turn = 0

    def take(self, time: float, said: Mapping[str, Any]) -> None:
        self._turn = max(self._turn, int(said.get("turn") or 0))
        match said["event"]:
            case "begin":
                self._begin(time, said)
            case "end":
                self._values |= {"status": said["status"], "error": said.get("error", ""), "ended": time}
            case "plan":
                plan = TrialPlan.from_value(said)
                self._plans.setdefault(plan.first, plan)
            case "trial":
                self._begun.setdefault((said["trial"], said["attempt"]), time)
            case "trial-end":
                self._ended[said["trial"], said["attempt"]] = (said["status"], time, said.get("took_s"))

    def _begin(self, time: float, said: Mapping[str, Any]) -> None:
        if said.get("resumed"):
            self._values["resumed"] = self._values.get("resumed", 0) + 1
        else:
            self._values |= {"begun": time, "metadata": said.get("metadata") or {}}
        self._values |= {"status": RUNNING, "error": "", "ended": None, "owner": said.get("owner") or {}}

    def state(self) -> RunState:
        trials: dict[int, Attempts] = {}
        for number, attempt in sorted({*self._begun, *self._ended}):
            trials[number] = self._with(trials.get(number, Attempts()), number, attempt)
        plans = tuple(plan for _, plan in sorted(self._plans.items()))
        return RunState(self._run, **self._values, plans=plans, trials=trials, turn=self._turn)

    def _with(self, before: Attempts, number: int, attempt: int) -> Attempts:
        status, ended, took = self._ended.get((number, attempt), ("", 0.0, None))
        if status != DONE:
            return Attempts(attempt, before.counts, not status, before.seconds)
        # The times of the two facts are for people: the clock may have been set in between.
        began = self._begun.get((number, attempt), ended)
        seconds = float(took) if isinstance(took, (int, float)) else max(0.0, ended - began)
        return Attempts(attempt, attempt, False, seconds)
