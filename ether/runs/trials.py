"""The trials of a run, one after the other: the steps between two trials, and the rule by which a trial counts.

From top to bottom: one `Trial`; `Trials`, which takes the run from one trial to the next; `Scan`, which calls a setter
before the body of each trial; `PlannedTrials`, which carries out the `plan:` of the configuration.

Each step is over before the next begins. First the end of the trial before: every instance has taken on the tag between
trials, and all data of that trial is on disk. Then waiting while the run is held up; waiting for instances that are
restarting; the record that the trial begins; its tag; its preparation. Then the body runs.

Promises: no trial is skipped, and none begins twice without a record of it. The trap: only the next call of `next()`
ends a trial well. Therefore these are iterators, not generators: a generator cannot tell `break` from an exception.
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
from ether.errors import NoResponder, ReadbackDiffers, TrialDisturbed
from ether.log import get_ether_logger
from ether.protocol.run_record import DISTURBED, DONE, Attempts, TrialPlan
from ether.runs import trial_rules
from ether.runs.tag_broadcast import TagBroadcast

if TYPE_CHECKING:
    from ether.config.plan import RunPlan
    from ether.session.client import Client

logger = get_ether_logger("Ether")

READY_S = 60.0
"""Default bound of a trial's preparation."""

_READ_TIMEOUT_S = 60.0
"""Bound of one planned reading; the plan gives none."""


@dataclass(frozen=True, slots=True)
class RunServices:
    """What a run gives its trials: facts of the run, and the ways in which trials act on the run and its session."""

    run: str
    """The run's id."""
    recorded: Mapping[int, Attempts]
    """The trials that were begun before this program resumed the run, by number."""
    tags: TagBroadcast
    show_progress: bool | None
    """Whether a progress bar is drawn; None: where standard error is a terminal."""
    checkpoint: Callable[[], object]
    """Returns when nothing holds the run up."""
    note: Callable[[str, Mapping[str, Any]], None]
    """Brings an event of the run, with its facts, to disk."""
    retag: Callable[[int | None, int, str, float], None]
    """Makes every instance save under this trial (None: between trials) and attempt; then the name of the step for
    error texts, and a time limit in seconds."""
    sync: Callable[[str, Mapping[str, Any], float], dict[str, Any]]
    """Runs the methods that are marked for a sync topic: topic, arguments, time limit in seconds; their results."""


@dataclass(eq=False)
class Trial:
    """One trial, as the body of the loop gets it.

    `number` is the place of its condition in the list, from 1; `attempt` is 1, and higher after attempts that were cut
    short; `place` counts the trials of the loop in the order in which they happen, from 1 to `of`.
    """

    number: int
    condition: Any
    attempt: int
    run: str
    place: int = 0
    of: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    """Free for values that belong to this trial; recorded with its end."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """What each instance's preparation returned, by instance name."""
    readback: Any = None
    """The value that a scan read back after setting the condition."""

    @property
    def repeated(self) -> bool:
        """Whether the trial was begun before."""
        return self.attempt > 1

    def __str__(self) -> str:
        again = f", attempt {self.attempt}" if self.repeated else ""
        return f"trial {self.number}{again} of run {self.run!r}"


class Trials(Iterator[Trial]):
    """The trials that are still to be done. Made by `run.trials()`."""

    def __init__(
        self,
        services: RunServices,
        plan: TrialPlan,
        conditions: Sequence[Any],
        prepare: str | None,
        again: int,
        timeout_s: float,
    ) -> None:
        """`conditions` are the caller's own objects; `plan` has them as they are recorded. The rest is as for
        `Run.trials`."""
        self.plan = plan
        self._run, self._conditions, self._prepare, self._timeout_s = services, conditions, prepare, timeout_s
        self._again = again
        self._left = list(trial_rules.left_of(plan, services.recorded))
        self._took = [services.recorded[n].seconds for n in plan.order if n in services.recorded]
        self._current: Trial | None = None
        self._expected = services.tags.incarnations()
        self._incarnations: dict[str, str] = {}
        """The instances that take part in the current trial, each with its incarnation."""
        self._began = 0.0
        self._repeats = 0
        self._bar = self._new_bar()

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        return len(self._left)

    @property
    def finished(self) -> bool:
        """Whether every trial is done: none is left, and none is open."""
        return not self._left and self._current is None

    def __iter__(self) -> Trials:
        return self

    def __next__(self) -> Trial:
        self._end_well()
        if not self._left:
            self._close_bar()
            raise StopIteration
        self._run.checkpoint()
        number, attempt = self._left[0]
        trial = Trial(
            number, self._conditions[number - self.plan.first], attempt, self._run.run,
            len(self.plan.order) - len(self._left) + 1, len(self.plan.order),
        )  # fmt: skip
        self._begin(trial)
        return trial

    # -- the beginning of a trial

    def _begin(self, trial: Trial) -> None:
        self._run.tags.await_back(self._expected, Deadline(self._timeout_s), str(trial))
        self._run.note(
            "trial", {"trial": trial.number, "attempt": trial.attempt, "condition": self.plan.condition(trial.number)}
        )
        # From here on the attempt is on record. Whatever fails next, a further try of this trial is the next attempt.
        self._current = trial
        self._left[0] = (trial.number, trial.attempt + 1)
        self._incarnations = self._tag(trial)
        trial.prepared = self._prepared(trial)
        self._began = time.monotonic()
        self._draw()

    def _tag(self, trial: Trial) -> dict[str, str]:
        """Make every instance save under this trial; returns the instances that take part, with their incarnations.

        An instance that dies meanwhile is awaited, and all are tagged again: otherwise it would come back unprepared,
        and since it was not counted at the beginning, its death would not be noticed at the end."""
        tags, deadline = self._run.tags, Deadline(self._timeout_s)
        while True:
            self._run.retag(trial.number, trial.attempt, str(trial), self._timeout_s)
            incarnations = tags.incarnations()
            if not tags.left_out(self._expected, incarnations):
                return incarnations
            tags.await_back(self._expected, deadline, str(trial))

    def _prepared(self, trial: Trial) -> dict[str, Any]:
        """Run the preparing methods of all instances; their results."""
        if self._prepare is None:
            return {}
        condition = trial.condition if isinstance(trial.condition, Mapping) else {}
        arguments = {
            **condition, "condition": trial.condition, "trial": trial.number, "attempt": trial.attempt,
            "run": trial.run,
        }  # fmt: skip
        try:
            return self._run.sync(self._prepare, arguments, self._timeout_s)
        except NoResponder:
            # Without any `@ether_sync(topic="prepare_trial")` there is nothing to prepare. A topic that the caller
            # chose himself is a mistake where no method has it.
            if self._prepare != PREPARE:
                raise
            logger.debug("nobody is marked ether_sync(topic=%r): nothing to prepare", PREPARE)
            return {}

    # -- the end of a trial

    def _end_well(self) -> None:
        """The body has returned: the trial counts, unless an instance died during it."""
        trial = self._current
        if trial is None:
            return
        took_s = time.monotonic() - self._began
        # The tag changes first: `retag` returns when the data of this trial is on disk, and only then may its end be.
        self._run.retag(None, trial.attempt, str(trial), self._timeout_s)
        if died := self._died():
            self._disturbed(trial, died)
            return
        self._end(trial, DONE, {"state": trial.state, "took_s": took_s})
        self._left.pop(0)
        self._took.append(took_s)
        self._repeats = 0
        self._draw()

    def _died(self) -> list[str]:
        """The instances that took part at the beginning and are gone, or came back under another incarnation."""
        now = self._run.tags.incarnations()
        return sorted(name for name, incarnation in self._incarnations.items() if now.get(name) != incarnation)

    def _disturbed(self, trial: Trial, died: list[str]) -> None:
        disturbed = TrialDisturbed(str(trial), died)
        self._end(trial, DISTURBED, {"error": str(disturbed)})
        self._repeats += 1
        if self._repeats > self._again:
            raise disturbed
        logger.warning("%s is repeated: %s died during it", trial, ", ".join(died))

    def leave(self, status: str, why: str) -> None:
        """The run ends here: an open trial does not count."""
        trial = self._current
        if trial is not None:
            self._end(trial, status, {"error": why} if why else {})
        self._close_bar()

    def _end(self, trial: Trial, status: str, facts: Mapping[str, Any]) -> None:
        self._run.note("trial-end", {"trial": trial.number, "attempt": trial.attempt, "status": status, **facts})
        self._current = None

    def note_setting(self, trial: Trial) -> None:
        """Record the value that a scan has set, and the value that it has read back."""
        values = {"asked": self.plan.condition(trial.number), "readback": trial.readback}
        self._run.note("set", {"trial": trial.number, "attempt": trial.attempt, **values})

    # -- progress

    def _new_bar(self) -> ProgressBar | None:
        wanted = self._run.show_progress
        shown = sys.stderr.isatty() if wanted is None else wanted
        return ProgressBar(self._run.run) if shown else None

    def _draw(self) -> None:
        if self._bar is None:
            return
        done, of = len(self.plan.order) - len(self._left), len(self.plan.order)
        left_s = trial_rules.seconds_left(self._took, len(self._left))
        text = f"{done} of {of} trials" + (
            f", {trial_rules.duration_text(left_s)} left" if left_s and self._left else ""
        )
        self._bar.draw(done / of, text)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Scan(Iterator[Trial]):
    """The trials of a scan that are still to be done. Made by `run.scan()`."""

    def __init__(
        self, trials: Trials, setter: Callable[..., Any], read: Callable[[], Any] | None, within: float | None, *,
        several: bool,
    ) -> None:  # fmt: skip
        """With `several`, a condition is a dict of the setter's arguments; otherwise it is the setter's one
        argument."""
        self._trials = trials
        self._setter, self._read, self._within, self._several = setter, read, within, several

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        return len(self._trials)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Trial:
        trial = next(self._trials)
        asked = trial.condition
        answer = self._setter(**asked) if self._several else self._setter(asked)
        refuse_failure(trial, answer)
        if self._read is not None:
            trial.readback = self._read()
            refuse_failure(trial, trial.readback)
        # Recorded before the comparison, so that a readback that differs is on disk, too.
        self._trials.note_setting(trial)
        self._check(trial, asked)
        return trial

    def _check(self, trial: Trial, asked: Any) -> None:
        """Compare the readback with the setting, number by number. Raises `ReadbackDiffers`.

        Several parameters are compared in the order of the condition's keys: a readback is one number, a list, or a
        dict in the same order. Another number of values differs, too."""
        if self._within is None or self._read is None:
            return
        found = trial.readback
        wanted = list(asked.values()) if isinstance(asked, Mapping) else [asked]
        if isinstance(found, Mapping):
            given = list(found.values())
        else:
            given = list(found) if isinstance(found, (list, tuple)) else [found]
        pairs = list(zip(wanted, given, strict=False))
        near = len(pairs) == len(wanted) and all(abs(one - other) <= self._within for one, other in pairs)
        if not near:
            raise ReadbackDiffers(str(trial), asked, found, self._within)


class PlannedTrials(Iterator[Trial]):
    """The trials of a run's plan that are still to be done. Made by `run.planned()`."""

    def __init__(self, client: Client, trials: Trials, plan: RunPlan) -> None:
        """`trials` have the conditions of `plan`; its setting and calls go to the instances that it names."""
        self._trials = trials if plan.set is None else _planned_scan(client, trials, plan)
        self._calls = [(_method(client, call.call, call.timeout_s), call) for call in plan.calls]

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        return len(self._trials)

    def __iter__(self) -> PlannedTrials:
        return self

    def __next__(self) -> Trial:
        trial = next(self._trials)
        for method, call in self._calls:
            refuse_failure(trial, method(*call.args, **call.kwargs))
        return trial


def _planned_scan(client: Client, trials: Trials, plan: RunPlan) -> Scan:
    """The scan of a plan that has a setting."""
    assert plan.set is not None
    read = None if plan.read is None else _method(client, plan.read, _READ_TIMEOUT_S)
    setter = _method(client, plan.set.call, plan.set.timeout_s)

    def set_to(condition: Any) -> Any:
        # In a plan each condition decides by itself: a list of conditions may mix dicts and single values.
        return setter(**condition) if isinstance(condition, Mapping) else setter(condition)

    return Scan(trials, set_to, read, plan.within, several=False)


def _method(client: Client, call: str, timeout_s: float) -> Callable[..., Any]:
    """The method of an instance that the text `instance.method` names."""
    instance, _, name = call.rpartition(".")
    method: Callable[..., Any] = getattr(client.proxy(instance, timeout_s, of_class=False), name)
    return method


def refuse_failure(trial: Trial, answer: object) -> None:
    """Raise `RuntimeError` for the answer of a method marked `@ether_save` whose status is `error`."""
    if isinstance(answer, Mapping) and answer.get("status") == "error" and "error" in answer:
        raise RuntimeError(f"{trial}: {answer.get('message') or answer['error']}")
