"""The trials of a run, one after the other: what happens between two of them, and what makes one count.

Each step is over before the next begins: the former trial's end (everybody has taken on the tag between trials, and
what they made is on disk), waiting while the run is held up, waiting for instances that come back, the fact that the
trial begins, its tag, its preparation; then the body.

Promises: none skipped, none begun twice without the record saying so. The trap: only the next `next()` ends a trial
well. So it is an iterator, not a generator: a generator cannot tell `break` from an exception.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ether.calls.progress import ProgressBar
from ether.config.names import PREPARE
from ether.connection.deadline import Deadline
from ether.errors import NoResponder, NotPlanned, ReadbackDiffers, TrialDisturbed
from ether.log import get_ether_logger
from ether.protocol import run_record
from ether.protocol.run_record import TrialPlan
from ether.runs import trial_rules as decisions
from ether.runs.plan.plan_rules import conditions_at

if TYPE_CHECKING:
    from ether.config.plan import PlannedSetting, RunPlan
    from ether.runs.run import Run
    from ether.session.client import Client

logger = get_ether_logger("Ether")

READY_S = 60.0


@dataclass(eq=False)
class Trial:
    """One trial. `number` is its condition's place in the list, from 1; `attempt` is 1, more where it was cut short
    before; `place` is the how-manieth of `of` trials it is."""

    number: int
    condition: Any
    attempt: int
    run: str
    place: int = 0
    of: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    """Whatever belongs to this trial; recorded with its end."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """What each instance's preparation returned."""
    readback: Any = None
    """What was read back after the setting of a scan."""

    @property
    def repeated(self) -> bool:
        """Whether it was begun before."""
        return self.attempt > 1

    def __str__(self) -> str:
        again = f", attempt {self.attempt}" if self.repeated else ""
        return f"trial {self.number}{again} of run {self.run!r}"


class Trials(Iterator[Trial]):
    """What is left of a row of trials. Made by `run.trials()`."""

    def __init__(
        self, run: Run, plan: TrialPlan, conditions: Sequence[Any], prepare: str | None, again: int, timeout_s: float
    ) -> None:
        self.plan = plan
        self._run, self._conditions, self._prepare, self._timeout_s = run, conditions, prepare, timeout_s
        self._again = again
        self._left = list(decisions.left_of(plan, run.state.trials))
        self._took = [run.state.trials[n].seconds for n in plan.order if n in run.state.trials]
        self._current: Trial | None = None
        self._expected = run.spreader.incarnations()
        self._births: dict[str, str] = {}
        self._began = 0.0
        self._repeats = 0
        self._bar = self._new_bar()

    def __len__(self) -> int:
        """How many are still to come."""
        return len(self._left)

    @property
    def finished(self) -> bool:
        """Whether none is left, nor open."""
        return not self._left and self._current is None

    def __iter__(self) -> Trials:
        return self

    def __next__(self) -> Trial:
        self._end_well()
        if not self._left:
            self._bar_over()
            raise StopIteration
        self._run.checkpoint()
        number, attempt = self._left[0]
        trial = Trial(
            number, self._conditions[number - self.plan.first], attempt, self._run.id,
            len(self.plan.order) - len(self._left) + 1, len(self.plan.order),
        )  # fmt: skip
        self._begin(trial)
        return trial

    # -- one trial

    def _begin(self, trial: Trial) -> None:
        spreader = self._run.spreader
        spreader.await_back(self._expected, Deadline(self._timeout_s), str(trial))
        self._run.note(
            "trial", {"trial": trial.number, "attempt": trial.attempt, "condition": self.plan.condition(trial.number)}
        )
        self._current = trial
        self._left[0] = (trial.number, trial.attempt + 1)
        self._births = self._tagged(trial)
        trial.prepared = self._prepared(trial)
        self._began = time.monotonic()
        self._draw()

    def _tagged(self, trial: Trial) -> dict[str, str]:
        """Bring the trial's tag to everybody; returns who takes part, with their births. Who dies meanwhile is waited
        for: it would not be prepared, and at the end nobody would miss it."""
        spreader, deadline = self._run.spreader, Deadline(self._timeout_s)
        while True:
            self._run.retag(trial.number, trial.attempt, str(trial), self._timeout_s)
            incarnations = spreader.incarnations()
            if not spreader.left_out(self._expected, incarnations):
                return incarnations
            spreader.await_back(self._expected, deadline, str(trial))

    def _prepared(self, trial: Trial) -> dict[str, Any]:
        if self._prepare is None:
            return {}
        condition = trial.condition if isinstance(trial.condition, Mapping) else {}
        arguments = {
            **condition, "condition": trial.condition, "trial": trial.number, "attempt": trial.attempt,
            "run": trial.run,
        }  # fmt: skip
        try:
            return self._run.client.session.sync(self._prepare, arguments, self._timeout_s)
        except NoResponder:
            if self._prepare != PREPARE:
                raise
            logger.debug("nobody is marked ether_sync(topic=%r): nothing to prepare", PREPARE)
            return {}

    def _end_well(self) -> None:
        """The body is over: the trial counts, unless somebody died during it."""
        trial = self._current
        if trial is None:
            return
        took_s = time.monotonic() - self._began
        self._run.retag(None, trial.attempt, str(trial), self._timeout_s)
        if died := self._died():
            self._disturbed(trial, died)
            return
        self._end(trial, run_record.DONE, {"state": trial.state, "took_s": took_s})
        self._left.pop(0)
        self._took.append(took_s)
        self._repeats = 0
        self._draw()

    def _died(self) -> list[str]:
        now = self._run.spreader.incarnations()
        return sorted(name for name, incarnation in self._births.items() if now.get(name) != incarnation)

    def _disturbed(self, trial: Trial, died: list[str]) -> None:
        disturbed = TrialDisturbed(str(trial), died)
        self._end(trial, run_record.DISTURBED, {"error": str(disturbed)})
        self._repeats += 1
        if self._repeats > self._again:
            raise disturbed
        logger.warning("%s is repeated: %s died during it", trial, ", ".join(died))

    def leave(self, status: str, why: str) -> None:
        """The run ends here: a trial that is open does not count."""
        trial = self._current
        if trial is not None:
            self._end(trial, status, {"error": why} if why else {})
        self._bar_over()

    def _end(self, trial: Trial, status: str, facts: Mapping[str, Any]) -> None:
        self._run.note("trial-end", {"trial": trial.number, "attempt": trial.attempt, "status": status, **facts})
        self._current = None

    def note_setting(self, trial: Trial) -> None:
        """What a scan has set, and read back."""
        found = {"asked": self.plan.condition(trial.number), "readback": trial.readback}
        self._run.note("set", {"trial": trial.number, "attempt": trial.attempt, **found})

    # -- progress

    def _new_bar(self) -> ProgressBar | None:
        wanted = self._run.shows_progress
        shown = sys.stderr.isatty() if wanted is None else wanted
        return ProgressBar(self._run.id) if shown else None

    def _draw(self) -> None:
        if self._bar is None:
            return
        done, of = len(self.plan.order) - len(self._left), len(self.plan.order)
        left_s = decisions.seconds_left(self._took, len(self._left))
        told = f"{done} of {of} trials" + (f", {decisions.spoken(left_s)} left" if left_s and self._left else "")
        self._bar.draw(done / of, told)

    def _bar_over(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Scan(Iterator[Trial]):
    """What is left of a scan. Made by `run.scan()`."""

    def __init__(
        self, row: Trials, setter: Callable[..., Any], read: Callable[[], Any] | None, within: float | None, *,
        several: bool,
    ) -> None:  # fmt: skip
        """`several`: conditions are parameters by name."""
        self.row = row
        self._setter, self._read, self._within, self._several = setter, read, within, several

    def __len__(self) -> int:
        """How many are still to come."""
        return len(self.row)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Trial:
        trial = next(self.row)
        asked = trial.condition
        answer = self._setter(**asked) if self._several else self._setter(asked)
        refuse_failure(trial, answer)
        if self._read is not None:
            trial.readback = self._read()
            refuse_failure(trial, trial.readback)
        self.row.note_setting(trial)
        self._check(trial, asked)
        return trial

    def _check(self, trial: Trial, asked: Any) -> None:
        if self._within is None or self._read is None:
            return
        found = trial.readback
        wanted = asked.values() if isinstance(asked, Mapping) else [asked]
        given = found.values() if isinstance(found, Mapping) else found if isinstance(found, (list, tuple)) else [found]
        pairs = list(zip(wanted, given, strict=False))
        near = len(pairs) == len(list(wanted)) and all(abs(one - other) <= self._within for one, other in pairs)
        if not near:
            raise ReadbackDiffers(str(trial), asked, found, self._within)


def refuse_failure(trial: Trial, answer: object) -> None:
    """A status that says `error` is one: `RuntimeError`."""
    if isinstance(answer, Mapping) and answer.get("status") == "error" and "error" in answer:
        raise RuntimeError(f"{trial}: {answer.get('message') or answer['error']}")


_READ_TIMEOUT_S = 60.0


class PlannedTrials(Iterator[Trial]):
    """What is left of the planned trials. Made by `run.planned()`."""

    def __init__(self, client: Client, row: Trials | Scan, plan: RunPlan) -> None:
        self.row = row
        self._calls = [(_method(client, call.call, call.timeout_s), call) for call in plan.calls]

    def __len__(self) -> int:
        """How many are still to come."""
        return len(self.row)

    def __iter__(self) -> PlannedTrials:
        return self

    def __next__(self) -> Trial:
        trial = next(self.row)
        for method, call in self._calls:
            refuse_failure(trial, method(*call.args, **call.kwargs))
        return trial


def planned_trials(run: Run, plan: RunPlan | None) -> PlannedTrials:
    """The trials of a run by its plan. Raises `NotPlanned`, and what `run.trials()` raises."""
    if plan is None:
        raise NotPlanned(run.name)
    conditions = [condition.value for condition in conditions_at(plan, ())]
    row = run.trials(conditions, order=plan.order, seed=plan.seed, prepare=plan.prepare, again=plan.again)
    client = run.client
    return PlannedTrials(client, row if plan.set is None else _scan(client, row, plan, plan.set), plan)


def _scan(client: Client, row: Trials, plan: RunPlan, setting: PlannedSetting) -> Scan:
    read = None if plan.read is None else _method(client, plan.read, _READ_TIMEOUT_S)
    setter = _method(client, setting.call, setting.timeout_s)

    def set_to(condition: Any) -> Any:
        return setter(**condition) if isinstance(condition, Mapping) else setter(condition)

    return Scan(row, set_to, read, plan.within, several=False)


def _method(client: Client, call: str, timeout_s: float) -> Callable[..., Any]:
    instance, _, name = call.rpartition(".")
    method: Callable[..., Any] = getattr(client.proxy(instance, timeout_s, of_class=False), name)
    return method
