"""The trials of a run, one after the other: the steps between two trials, and the rule by which a trial counts.

From top to bottom: what a run gives its trials; `TrialRow`, which takes the run from one trial to the next; `Trials`,
the iterator that the user's loop holds.

Each step is over before the next begins. First the end of the trial before: every instance has taken on the tag between
trials, and all data of that trial is on disk. Then waiting while the run is held up; the record of a condition that is
drawn; waiting for instances that are restarting; the record that the trial begins; its tag; its preparation. Then the
body runs.

With `overlap`, the bodies of several trials are over while what they have caused is still in work. The tag then changes
at once, and the end of a trial is awaited before the one begins that would be too many. What belongs to which trial
goes by causes, so nothing else changes.

Rows nest: one that begins while a trial is open is inside of that trial. After each of its trials the tag is that of
the trial around it again.

Promises: no trial is skipped, and none begins twice without a record of it. The trap: only the next call of `next()`,
or the end of `with trial:`, ends a trial well. Therefore these are iterators, not generators: a generator cannot tell
`break` from an exception.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from ether.calls.progress import ProgressBar
from ether.config.names import PREPARE
from ether.connection.deadline import Deadline
from ether.errors import EncodeError, EtherError, InstanceLost, NoResponder, RemoteError, TrialDisturbed
from ether.log import get_ether_logger
from ether.protocol.run_record import DISTURBED, DONE, FAILED, LEFT, Attempts, TrialPlan
from ether.runs import trial_rules
from ether.runs.conditions import END, ConditionSource, as_recorded
from ether.runs.tag_broadcast import TagBroadcast
from ether.runs.trial import Trial

logger = get_ether_logger("Ether")

READY_S = 60.0
"""Default bound of a trial's preparation."""

_ERROR_CHARS = 2000
_LEAST_S = 0.1
_OUTSIDE_S = 5.0
"""Bound for the change of the tag after a trial that does not count."""
_NOTICED_S = 2.0
"""How long a death may be known to the caller of a dead instance before it is known to the session."""
_OF_A_DEATH = (InstanceLost.__name__, NoResponder.__name__, "SyncError", "TransportError")
"""The remote classes of errors by which a method says that another instance was not there for it."""


class Retag(Protocol):
    """Makes this thread and every instance save under this trial (None: between trials) and attempt; `what` is the name
    of the step for error texts. Returns what is not finished of a trial that ends by this, by instance."""

    def __call__(
        self, trial: int | None, attempt: int, what: str, timeout_s: float, /, *, waits: bool = True
    ) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class RunServices:
    """What a run gives its trials: facts of the run, and the ways in which trials act on the run and its session."""

    run: str
    """The run's id."""
    attempts: MutableMapping[int, Attempts]
    """What became of the trials so far, by number, also of those from before this program."""
    tags: TagBroadcast
    show_progress: bool | None
    """Whether a progress bar is drawn; None: where standard error is a terminal."""
    checkpoint: Callable[[], object]
    """Returns when nothing holds the run up."""
    note: Callable[[str, Mapping[str, Any]], None]
    """Brings an event of the run, with its facts, to disk."""
    retag: Retag
    """As `Run.retag`."""
    await_work: Callable[[int, int, str, float], Mapping[str, str]]
    """As `Run.await_work`."""
    leave_body: Callable[[int, int], None]
    """From now on this thread does nothing because of this trial and attempt."""
    sync: Callable[[str, Mapping[str, Any], float], dict[str, Any]]
    """Runs the methods that are marked for a sync topic: topic, arguments, time limit in seconds; their results."""
    living: Callable[[], Mapping[str, str]]
    """The instances whose process is there, each with its incarnation, also those that do not answer at present."""
    await_change: Callable[[Callable[[], bool], float], bool]
    """Waits until a condition holds that depends on the instances of the session, or so many seconds."""
    new_number: Callable[[], int]
    """The number of a trial whose condition was just drawn."""
    open: list[TrialRow]
    """The rows that have an open trial, the innermost last."""


@dataclass(frozen=True, slots=True)
class TrialOptions:
    """What the caller of `Run.trials` asked for beside the conditions, as it is described there."""

    prepare: str | None = PREPARE
    again: int = 0
    timeout_s: float = READY_S
    overlap: int = 1


class Ending(NamedTuple):
    """A trial whose body is over, and that may still have something in work."""

    trial: Trial
    took_s: float
    incarnations: dict[str, str]
    """The instances that take part in it."""


class TrialRow:
    """One row of trials: those that are done, the one that is open, those that are still to come."""

    def __init__(
        self, services: RunServices, plan: TrialPlan, conditions: Sequence[Any], source: ConditionSource | None,
        options: TrialOptions, outer: TrialRow | None,
    ) -> None:  # fmt: skip
        """`conditions` are the caller's own objects; `plan` has them as they are recorded. `source` is where further
        ones are drawn from, `outer` the row with the trial that this one is inside of."""
        self._run, self._source, self._options, self._outer = services, source, options, outer
        self._plan, self._numbers = plan, list(plan.order)
        self._conditions = dict(zip(sorted(plan.order), conditions, strict=True))
        self._left = [number for number, _ in trial_rules.left_of(plan, services.attempts)]
        self._given_up: set[int] = set()
        """Trials that failed and whose exception the program has caught: the next life tries them again."""
        self._took = [services.attempts[n].seconds for n in plan.order if n in services.attempts]
        self.current: Trial | None = None
        self.rows = 0
        """How many rows have begun inside of the current trial."""
        self.loop: weakref.ref[Trials] | None = None
        """The iterator that the user's loop holds. It is gone when the loop was left by `break`."""
        self._expected: dict[str, str] = services.tags.incarnations() | ({} if outer is None else outer._expected)
        self._incarnations: dict[str, str] = {}
        """The instances that take part in the current trial, each with its incarnation."""
        self._began = 0.0
        self._repeats = 0
        self._endings: list[Ending] = []
        """Trials that overlap the current one, the oldest first."""
        self._bar = self._new_bar()

    @property
    def plan(self) -> TrialPlan:
        """The row as it is recorded so far."""
        if not self._plan.drawn:
            return self._plan
        drawn = tuple(as_recorded(self._conditions[number]) for number in self._numbers)
        return replace(self._plan, order=tuple(self._numbers), conditions=drawn)

    @property
    def left(self) -> int | None:
        """The number of trials that are still to come; None where that is not known."""
        return len(self._left) if self._source is None else None

    @property
    def finished(self) -> bool:
        """Whether every trial is done: none is left, none is open, and none can be drawn."""
        open_ones = self.current is not None or self._endings
        return not self._left and not self._given_up and not open_ones and self._source is None

    @property
    def in_loop(self) -> bool:
        """Whether the program is still inside of the loop, or of the body of its current trial."""
        held = self.loop is not None and self.loop() is not None
        return held or (self.current is not None and self.current.entered)

    def results(self) -> list[Any]:
        """The results of the trials that are done, in the order of their numbers."""
        attempts = ((number, self._run.attempts.get(number, Attempts())) for number in sorted(self._numbers))
        return [found.result for _, found in attempts if found.counts is not None]

    def next_trial(self) -> Trial | None:
        """End the current trial and begin the next one; None where there is none."""
        self.end_well()
        while self._left or self._source is not None:
            self._run.checkpoint()
            if not self._left and not self._draw():
                break
            self._finish_endings(self._options.overlap - 1)
            trial = self._next_of(self._left[0])
            self._begin(trial)
            try:
                trial.prepared = self._prepared(trial)
            except Exception as error:
                if not trial.ended(error):
                    raise
                continue
            self._began = time.monotonic()
            self._draw_bar()
            return trial
        self._finish_endings(0)
        if self._left:  # of those that overlapped, one has to be repeated
            return self.next_trial()
        self._close_bar()
        return None

    def _draw(self) -> bool:
        """Draw the next condition, and bring it to disk; returns whether there is one."""
        assert self._source is not None
        place = {"within": self._plan.within and list(self._plan.within), "nth": self._plan.nth}
        try:
            condition = self._source.draw()
        except Exception as error:
            error.add_note(f"while run {self._run.run!r} drew the condition after {len(self._numbers)} others")
            raise
        if condition is END:
            self._run.note("plan-end", {**place, "of": len(self._numbers)})
            self._plan, self._source = replace(self._plan, complete=True), None
            return False
        number = self._run.new_number()
        self._run.note("draw", {**place, "trial": number, "condition": condition})
        self._numbers.append(number)
        self._conditions[number] = condition
        self._left.append(number)
        return True

    # -- the beginning of a trial

    def _next_of(self, number: int) -> Trial:
        drawn, outer = self._plan.drawn, self._outer
        return Trial(
            number, self._conditions[number], self._run.attempts.get(number, Attempts()).tried + 1, self._run.run,
            len(self._numbers) - len(self._left) + 1, None if drawn else len(self._numbers),
            None if outer is None else outer.current, owner=self,
        )  # fmt: skip

    def _begin(self, trial: Trial) -> None:
        self._run.tags.await_back(self._expected, Deadline(self._options.timeout_s), str(trial))
        around = {} if trial.within is None else {"within": [trial.within.number, trial.within.attempt]}
        self._run.note("trial", {**_ids(trial), "condition": trial.condition, **around})
        # From here on the attempt is on record. Whatever fails next, a further try of this trial is the next attempt.
        before = self._run.attempts.get(trial.number, Attempts())
        self._run.attempts[trial.number] = replace(before, tried=trial.attempt, open=True)
        self.current, self.rows = trial, 0
        self._run.open.append(self)
        self._incarnations = self._tag(trial)
        if self._outer is not None:
            self._outer.joined_by(self._incarnations)

    def _tag(self, trial: Trial) -> dict[str, str]:
        """Make every instance save under this trial; returns the instances that take part, with their incarnations.

        An instance that dies meanwhile is awaited, and all are tagged again: otherwise it would come back unprepared,
        and since it was not counted at the beginning, its death would not be noticed at the end."""
        tags, deadline = self._run.tags, Deadline(self._options.timeout_s)
        while True:
            self._retag(*_place_of(trial), self._options.timeout_s)
            incarnations = tags.incarnations()
            if not tags.left_out(self._expected, incarnations):
                return incarnations
            tags.await_back(self._expected, deadline, str(trial))

    def _retag(self, number: int | None, attempt: int, what: str, timeout_s: float) -> Mapping[str, str]:
        """Change the tag; what the trial before has caused is waited for later where trials overlap."""
        if self._options.overlap > 1:
            return self._run.retag(number, attempt, what, timeout_s, waits=False)
        return self._run.retag(number, attempt, what, timeout_s)

    def _prepared(self, trial: Trial) -> dict[str, Any]:
        """Run the preparing methods of all instances; their results."""
        topic = self._options.prepare
        if topic is None:
            return {}
        condition = trial.condition if isinstance(trial.condition, Mapping) else {}
        arguments = {**condition, "condition": trial.condition, **_ids(trial), "run": trial.run}
        try:
            return self._run.sync(topic, arguments, self._options.timeout_s)
        except NoResponder:
            # Without any `@ether_sync(topic="prepare_trial")` there is nothing to prepare. A topic that the caller
            # chose himself is a mistake where no method has it.
            if topic != PREPARE:
                raise
            logger.debug("nobody is marked ether_sync(topic=%r): nothing to prepare", PREPARE)
            return {}

    # -- the end of a trial

    def end_well(self) -> None:
        """The body has returned: the trial counts, unless an instance died during it."""
        trial = self.current
        if trial is None:
            return
        took_s = time.monotonic() - self._began
        self._leave_inside("")
        # The tag changes first: `retag` returns when the data of this trial is on disk, and only then may its end be.
        ending = Ending(trial, took_s, self._incarnations)
        if self._options.overlap == 1:
            self._finish(ending, self._end_everywhere(trial))
            return
        self._step_outside(trial, self._options.timeout_s)
        self.current = None
        self._run.open.remove(self)
        self._left.remove(trial.number)
        self._endings.append(ending)

    def _finish_endings(self, most: int) -> None:
        """Wait until no more than so many trials that overlap the next one have something in work."""
        while len(self._endings) > most:
            ending = self._endings.pop(0)
            # From here on it is as if its body had ended now.
            self.current, self._incarnations = ending.trial, ending.incarnations
            self._run.open.append(self)
            self._left.insert(0, ending.trial.number)
            self._finish(ending, self._await_work(ending.trial, Deadline(self._options.timeout_s)))

    def _finish(self, ending: Ending, unfinished: Mapping[str, str]) -> None:
        """A trial's work is finished: it counts, unless an instance died during it."""
        trial, took_s, _ = ending
        if died := self._died():
            disturbed = TrialDisturbed(str(trial), died)
            if not self._disturbed(trial, died, str(disturbed)):
                raise disturbed
            return
        left = {"unfinished": dict(unfinished)} if unfinished else {}
        try:
            self._end(trial, DONE, {"state": trial.state, "took_s": took_s, "result": trial.result, **left})
        except EncodeError as error:
            error.add_note(f"in trial.result or trial.state of {trial}")
            raise
        result = as_recorded(trial.result)
        self._run.attempts[trial.number] = Attempts(trial.attempt, trial.attempt, False, took_s, result)
        self._left.remove(trial.number)
        self._took.append(took_s)
        self._repeats = 0
        self._draw_bar()
        if self._source is not None:
            self._source.tell(trial.condition, result)

    def _end_everywhere(self, trial: Trial) -> Mapping[str, str]:
        """Step outside of a trial, with every instance that takes part in it; returns what is not finished. One that
        hangs, or is busy beyond its signs of life, has not died: it is awaited, as it is at the beginning of a trial,
        and asked for its work then."""
        deadline = Deadline(self._options.timeout_s)
        unfinished = self._step_outside(trial, self._options.timeout_s)
        while self._hung():
            self._await_hung(trial, deadline)
            self._step_outside(trial, max(deadline.left(), _LEAST_S))
            unfinished = self._run.await_work(*_place_of(trial), max(deadline.left(), _LEAST_S))
        return unfinished

    def _await_work(self, trial: Trial, deadline: Deadline) -> Mapping[str, str]:
        """The same, for a trial that was stepped outside of before."""
        unfinished = self._run.await_work(*_place_of(trial), deadline.timeout_s)
        while self._hung():
            self._await_hung(trial, deadline)
            unfinished = self._run.await_work(*_place_of(trial), max(deadline.left(), _LEAST_S))
        return unfinished

    def _await_hung(self, trial: Trial, deadline: Deadline) -> None:
        if not self._run.await_change(lambda: not self._hung(), deadline.left()):
            self._run.tags.await_back(self._hung(), Deadline(0), str(trial))  # raises, with what is known of it

    def _hung(self) -> list[str]:
        """The instances that take part in the current trial, whose process is there, and that do not answer."""
        living, answering = self._run.living(), self._run.tags.incarnations()
        return [name for name, it in self._incarnations.items() if living.get(name) == it and name not in answering]

    def _step_outside(self, trial: Trial, timeout_s: float) -> Mapping[str, str]:
        """Whatever is saved from now on belongs to the trial around this one, or to none."""
        around = next((row.current for row in reversed(self._run.open) if row is not self), None)
        number, attempt = (None, trial.attempt) if around is None else (around.number, around.attempt)
        return self._retag(number, attempt, str(trial), timeout_s)

    def body_ended(self, trial: Trial, error: BaseException | None) -> bool:
        """The body of a `with trial:`, or a step before the body, has ended. Returns whether the trial is repeated
        instead of raising `error`."""
        if self.current is not trial:
            return False  # it was ended before
        if error is None:
            self.end_well()
        elif isinstance(error, Exception):  # Ctrl-C and the like end the run
            try:
                repeated = self._failed(trial, error)
            except EtherError as problem:
                # The user's own exception is on its way, and says more than this one.
                logger.error("that %s failed could not be recorded: %s", trial, problem)
                return False
            self._try_to_step_outside(trial)
            return repeated
        return False

    def _try_to_step_outside(self, trial: Trial) -> None:
        """After a trial that does not count. Where an instance does not answer, the next trial changes the tag."""
        try:
            self._step_outside(trial, _OUTSIDE_S)
        except EtherError as problem:
            logger.debug("the tag of %s stays until the next trial: %s", trial, problem)

    def _failed(self, trial: Trial, error: Exception) -> bool:
        self._leave_inside(_text_of(error), FAILED)
        if not (lost := self._lost_in(error)):
            self._end(trial, FAILED, {"error": _text_of(error)})
            self._give_up(trial)
            return False
        if self._disturbed(trial, lost, _text_of(error)):
            return True
        error.add_note(
            f"{', '.join(lost)} died during {trial}; it is repeated at once as often as again= says, which was"
            f" {self._options.again}. Run the program again with resume=True: it goes on with this trial."
        )
        return False

    def _died(self) -> list[str]:
        """The instances that took part at the beginning and are gone, or came back under another incarnation."""
        now = self._run.living()
        return sorted(name for name, incarnation in self._incarnations.items() if now.get(name) != incarnation)

    def _lost_in(self, error: Exception) -> list[str]:
        """The instances that died during the current trial, as far as they or `error` tell. A caller may know of a
        death a moment before the session does."""
        named = {error.instance} if isinstance(error, InstanceLost) else set()
        if not named and not self._died() and _may_be_of_a_death(error):
            self._run.await_change(lambda: bool(self._died()), _NOTICED_S)
        return sorted({*named, *self._died()})

    def _disturbed(self, trial: Trial, died: list[str], why: str) -> bool:
        """Record that instances died during a trial; returns whether it is repeated at once."""
        self._end(trial, DISTURBED, {"error": why, "died": died})
        if self._outer is not None:
            self._outer.left_by(died)
        self._repeats += 1
        if self._repeats > self._options.again:
            self._give_up(trial)
            return False
        logger.warning("%s is repeated: %s died during it", trial, ", ".join(died))
        return True

    def left_by(self, names: Iterable[str]) -> None:
        """Instances died during a trial inside of the current one. It is repeated there, so this one is not."""
        for name in names:
            self._incarnations.pop(name, None)
        if self._outer is not None:
            self._outer.left_by(names)

    def joined_by(self, incarnations: Mapping[str, str]) -> None:
        """A trial inside of the current one begins; with it instances that have come back take part here again."""
        self._incarnations = {**incarnations, **self._incarnations}
        if self._outer is not None:
            self._outer.joined_by(incarnations)

    def _give_up(self, trial: Trial) -> None:
        self._left.remove(trial.number)
        self._given_up.add(trial.number)
        self._repeats = 0

    def _leave_inside(self, why: str, status: str = LEFT) -> None:
        """Trials inside of the current one are still open where their loops were left; they do not count."""
        for row in [row for row in reversed(self._run.open) if row.is_inside(self)]:
            row.leave(status, why)

    def is_inside(self, outer: TrialRow) -> bool:
        """Whether this row is inside of a trial of another one, at any depth."""
        return self._outer is not None and (self._outer is outer or self._outer.is_inside(outer))

    def left_by_break(self) -> None:
        """The loop has ended without the iterator, and the program goes on outside of it."""
        trial = self.current
        self.leave(LEFT, "")
        if trial is not None:
            self._try_to_step_outside(trial)

    def leave(self, status: str, why: str) -> None:
        """The loop, or the run, ends here: an open trial does not count."""
        trial = self.current
        if trial is not None:
            self._end(trial, status, {"error": why} if why else {})
        self._close_bar()

    def leave_endings(self, status: str, why: str) -> None:
        """The run ends here: trials whose body is over are waited for, unless something went wrong (`why`); then they
        do not count."""
        if not why:
            self._finish_endings(0)
        while self._endings:
            trial = self._endings.pop(0).trial
            self._run.open.append(self)
            self._left.insert(0, trial.number)
            self._end(trial, status, {"error": why})

    def explain(self, error: Exception) -> None:
        """Tell the user, on an exception that left a plain `for`, that `again=` could not hold."""
        trial = self.current
        if trial is not None and (lost := self._lost_in(error)):
            error.add_note(
                f"{', '.join(lost)} died in the body of {trial}. A plain `for` cannot repeat such a trial, because the"
                " exception leaves the loop; with `for trial in run.trials(…, again=3):` and `with trial:` around the"
                " body, or run.each(function, conditions, again=3), it is repeated at once. Run the program again with"
                " resume=True: it goes on with this trial."
            )

    def _end(self, trial: Trial, status: str, facts: Mapping[str, Any]) -> None:
        self._run.note("trial-end", {**_ids(trial), "status": status, **facts})
        before = self._run.attempts[trial.number]
        self._run.attempts[trial.number] = replace(before, open=False)
        self._run.leave_body(trial.number, trial.attempt)
        self.current = None
        self._run.open.remove(self)

    def note_setting(self, trial: Trial) -> None:
        """Record the value that a scan has set, and the value that it has read back."""
        self._run.note("set", {**_ids(trial), "asked": trial.condition, "readback": trial.readback})

    # -- progress

    def _new_bar(self) -> ProgressBar | None:
        wanted = self._run.show_progress
        shown = sys.stderr.isatty() if wanted is None else wanted
        return ProgressBar(self._run.run) if shown and self._outer is None else None

    def _draw_bar(self) -> None:
        if self._bar is None:
            return
        done = len(self._numbers) - len(self._left)
        if self._plan.drawn:
            self._bar.draw(None, f"{done} trials")
            return
        left_s = trial_rules.seconds_left(self._took, len(self._left))
        text = f"{done} of {len(self._numbers)} trials" + (
            f", {trial_rules.duration_text(left_s)} left" if left_s and self._left else ""
        )
        self._bar.draw(done / len(self._numbers), text)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Trials(Iterator[Trial]):
    """The trials that are still to be done. Made by `run.trials()` and `run.adapt()`."""

    def __init__(self, row: TrialRow) -> None:
        self.row = row
        # Weak, so that the row can see whether the user's loop still goes on: the loop alone holds this iterator.
        row.loop = weakref.ref(self)

    def __len__(self) -> int:
        """The number of trials that are still to come."""
        left = self.row.left
        if left is None:
            raise TypeError("how many trials are still to come is not known: their conditions are drawn one by one")
        return left

    def __iter__(self) -> Trials:
        return self

    def __next__(self) -> Trial:
        trial = self.row.next_trial()
        if trial is None:
            raise StopIteration
        return trial


def _place_of(trial: Trial) -> tuple[int, int, str]:
    """Number, attempt, and the name for error texts."""
    return trial.number, trial.attempt, str(trial)


def _ids(trial: Trial) -> dict[str, int]:
    return {"trial": trial.number, "attempt": trial.attempt}


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARS]


def _may_be_of_a_death(error: Exception) -> bool:
    """Whether an exception may come of the death of an instance, of which the session does not know yet. `NoResponder`
    of a call of this program's is none: it comes of what the session knows."""
    if isinstance(error, RemoteError):
        return error.remote_class in _OF_A_DEATH
    return isinstance(error, (ConnectionError, TimeoutError))
