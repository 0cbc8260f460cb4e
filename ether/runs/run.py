"""A named run while it goes on: its beginning and end, its trials, and what holds it up.

    with ether.run("dose-response", compound="A") as run:
        for trial in run.trials([0.1, 0.3, 1.0], order="random"):
            …

Promises: the beginning and the end of the run and of each trial are on disk before the next step, so that any program
can tell from the ledger what was done before a crash. There is one run at a time in a session.

The trap: data of a trial counts only when the trial's end is on disk. A trial that is left by an exception or `break`
has no such end, and is tried again when the run is resumed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.config.names import PREPARE
from ether.connection import causes
from ether.connection.deadline import Deadline
from ether.connection.inherited_causes import follow_threads
from ether.errors import EtherError, NotPlanned, RunDiffers, RunGoesOn, RunStopped
from ether.errors.keywords import named_keywords
from ether.log import get_ether_logger
from ether.protocol.presence import LIVES
from ether.protocol.run_record import (
    ABORTED,
    ENDED,
    FAILED,
    INTERRUPTED,
    LEFT,
    RUNNING,
    Attempts,
    PlanKey,
    RunState,
    TrialPlan,
)
from ether.recording.tags import Tag
from ether.recording.writer import RecordWriter
from ether.runs import trial_rules
from ether.runs.conditions import AdaptedConditions, ConditionSource, IteratedConditions, as_recorded, strategy_of
from ether.runs.interlock import PAUSED, Interlock
from ether.runs.plan.plan_rules import conditions_at, shape_of
from ether.runs.run_control import RunControl, status_of_run
from ether.runs.run_log import RunLog
from ether.runs.scans import PlannedTrials, Reader, Scan, Setter, Tolerance
from ether.runs.tag_broadcast import TagBroadcast
from ether.runs.trial import Trial
from ether.runs.trials import READY_S, RunServices, TrialOptions, TrialRow, Trials
from ether.session.client import Client
from ether.wire.run_ids import is_simulated_run, latest, next_id

if TYPE_CHECKING:
    from ether.config.plan import RunPlan

logger = get_ether_logger("Ether")

_OWNER_ANSWERS_S = 3.0
_ERROR_CHARS = 2000
_UNRECORDED_TURNS = 10
"""A program that died may have sent tags whose turns are not on disk: fewer than this. A resumed run begins above them,
because instances ignore tags that are older than the one they have."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the caller of `ether.run()` asked for. `metadata` is recorded with the beginning; `owner` are the facts of
    the program that leads the run."""

    name: str
    metadata: Mapping[str, Any]
    owner: Mapping[str, Any]
    resume: bool = False
    suspend_while: Mapping[str, object] = field(default_factory=dict)
    progress: bool | None = None
    plan: RunPlan | None = None
    """The plan that the configuration has for this run."""


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row of trials begins: in the row `outer`, whose open trial and attempt are `within`, after `nth` others;
    or in no trial."""

    outer: TrialRow | None
    within: tuple[int, int] | None
    nth: int

    @property
    def key(self) -> PlanKey:
        """By which the row is found when the run is resumed."""
        return None if self.within is None else self.within[0], self.nth


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The order that the caller asked for; `shape` has the number of values of each parameter of a grid."""

    order: str
    seed: int | None
    shape: tuple[int, ...] = ()


@named_keywords("run")
class Run:
    """A named run: a context manager. Made by `ether.run()`."""

    def __init__(
        self,
        client: Client,
        record_writer: RecordWriter,
        options: RunOptions,
        is_dead_here: Callable[[Mapping[str, Any]], bool | None],
    ) -> None:
        """`is_dead_here` tells from the owner's facts of a run whether its program has ended; None where that cannot be
        known on this machine."""
        self.name = options.name
        self.metadata = dict(options.metadata)
        self.state = RunState("")
        """The record of this run from before this program resumed it; empty for a new run."""
        self._client, self._options, self._is_dead_here = client, options, is_dead_here
        self._log = RunLog(client, record_writer)
        self._tags = TagBroadcast(client, record_writer)
        self._interlock = Interlock()
        self._stopped = ""
        """Who has ended this run, and why; empty while it may go on."""
        self._control: RunControl | None = None
        self._rows: dict[PlanKey, TrialRow] = {}
        """The rows of trials that this program has begun; of several attempts of one the last."""
        self._open: list[TrialRow] = []
        """Those that have an open trial, the innermost last."""
        self._plans: dict[PlanKey, TrialPlan] = {}
        """The rows that were recorded before this program resumed the run."""
        self._top_rows = 0
        """How many rows have begun outside of all trials."""
        self._attempts: dict[int, Attempts] = {}
        """What became of the trials so far."""
        self._turn = 0
        """Counts the tags of this run, also those of programs that led it before."""
        self._numbered = 0
        """The highest number that a trial has."""
        self._bodies: list[str] = []
        """The origins of the trials whose body goes on, the outermost first."""
        self._outside = causes.NOTHING
        """The cause of the code around the bodies."""
        self._begun = False
        """Whether this program has recorded that the run begins, or goes on. A run that was over does so only where
        there is something left to do."""

    # -- beginning and end

    @property
    def id(self) -> str:
        """`name/N`: the Nth run of its name."""
        return self.state.id

    @property
    def resumed(self) -> bool:
        """Whether this is the continuation of a run that was cut short."""
        return self.state.begun > 0

    def __enter__(self) -> Run:
        known = self._log.runs()
        self._close_the_dead(known)
        self._choose(known)
        if self.resumed and self.state.status == ENDED:
            logger.info("Run %s is over; nothing is recorded of it unless there are further trials", self.id)
        else:
            self._go_on()
        return self

    def _go_on(self) -> None:
        """Record that the run begins, or goes on, where this program has not done it yet."""
        if self._begun:
            return
        follow_threads()
        program = self._client.link.source
        self._control = RunControl(self._client.link, self._client.topics, program, self._carry_out)
        try:
            self._begin()
        except BaseException:
            self._let_go()
            raise
        self._begun = True

    def _begin(self) -> None:
        facts = {"name": self.name, "status": RUNNING, "owner": dict(self._options.owner)}
        more: dict[str, Any] = {"resumed": True} if self.resumed else {"metadata": self.metadata}
        self._log.record(self.id, "begin", {**facts, **more, "turn": self._turn})
        self.retag(None, 1, "the run")
        self._interlock.watch(self._client, self._options.suspend_while)
        logger.info("Run %s %s", self.id, "goes on" if self.resumed else "begins")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._begun:
            return
        status, why = _how_it_ended(error)
        ended = self._leave_bodies(None)
        try:
            if self._open and isinstance(error, Exception):
                self._open[-1].explain(error)
            for row in reversed(self._open.copy()):
                row.leave(status if error is not None else LEFT, why)
            for row in self._rows.values():
                row.leave_endings(status, why)
            if error is None:
                # Whether a trial needs all trials inside of it, its body has decided.
                over = all(row.finished for (around, _), row in self._rows.items() if around is None)
                status = ENDED if over else LEFT
            # The last tag takes every instance out of the run. When it has been taken on, all data of the run is on
            # disk, and only then the end is recorded.
            self._turn += 1
            last = Tag(self.id, self._turn, goes_on=False)
            self._tags.broadcast(last, READY_S, f"run {self.id!r}", ended if error is None else ())
            self._log.record(self.id, "end", {"status": status, "error": why, "turn": self._turn})
            logger.info("Run %s: %s", self.id, status)
        except EtherError as problem:
            if error is None:
                raise
            # The user's own exception is on its way, and says more than this one. Without its end the run counts as
            # aborted, once its program has ended.
            logger.error("the end of run %s could not be recorded: %s", self.id, problem)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        self._interlock.end()
        self._tags.clear()

    # -- earlier runs

    def _choose(self, known: Mapping[str, RunState]) -> None:
        """Resume the last run of this name, or take the next number."""
        last = latest(self.name, known)
        if self._options.resume and last is not None:
            self.state = self._log.runs(last)[last]  # with the results, which the list of all runs lacks
            self._attempts = dict(self.state.trials)
            self._plans = {plan.key: plan for plan in self.state.plans}
            numbers = (number for plan in self.state.plans for number in plan.order)
            self._numbered = max([*numbers, *self._attempts], default=0)
            self._turn = self.state.turn + _UNRECORDED_TURNS
            self._check_metadata()
            self._check_devices()
        else:
            self.state = RunState(next_id(self.name, known), self.name)

    def _check_devices(self) -> None:
        """A run that was begun on simulated devices is not resumed on real ones, nor the other way round."""
        before, now = (
            is_simulated_run(str(owner.get("session_run", ""))) for owner in (self.state.owner, self._options.owner)
        )
        if before != now:
            words = {True: "simulated", False: "real"}
            raise RunDiffers(self.id, f"its devices were {words[before]}, and are {words[now]} now")

    def _check_metadata(self) -> None:
        """Metadata that is given with `resume` has to be the recorded one; without any, the recorded one is taken."""
        given = as_recorded(self.metadata)
        recorded = dict(self.state.metadata)
        if given and given != recorded:
            raise RunDiffers(self.id, f"its metadata were {recorded!r:.200}, and are {given!r:.200} now")
        self.metadata = recorded

    def _close_the_dead(self, known: Mapping[str, RunState]) -> None:
        """Record the end of every run whose program died without recording it. Raises `RunGoesOn` for a run that still
        goes on."""
        for run in [state for state in known.values() if state.status == RUNNING]:
            if self._goes_on(run):
                raise RunGoesOn(self.name, run.id, _owner_text(run.owner))
            for number, attempts in run.trials.items():
                if attempts.open:
                    ended = {"trial": number, "attempt": attempts.tried, "status": ABORTED}
                    self._log.record(run.id, "trial-end", ended)
            ended = {"status": ABORTED, "error": "its program died", "turn": run.turn}
            self._log.record(run.id, "end", ended)
            logger.warning("Run %s had no end: its program died. It is closed as aborted", run.id)

    def _goes_on(self, run: RunState) -> bool:
        if self._is_dead_here(run.owner):
            return False
        # A living program may have lost its broker before it could record the run's end, and may even be this program.
        # So the program itself is asked which run it leads.
        return status_of_run(self._client, str(run.owner.get("program")), _OWNER_ANSWERS_S) == run.id

    # -- trials

    def trials(
        self, trials: int | Iterable[Any] | Callable[[], Any], *, order: str = trial_rules.GIVEN,
        seed: int | None = None, prepare: str | None = PREPARE, again: int = 0, timeout_s: float = READY_S,
        overlap: int = 1,
    ) -> Trials:  # fmt: skip
        """A number of trials, or one trial for each condition of a list, to be iterated over:
        `for trial in run.trials([0.1, 0.3], order="random")`.

        `order` is "given" or "random". The same `seed` gives the same random order; without one, a seed is drawn and
        recorded. From a generator (from anything iterable without a length), and from a function without arguments,
        conditions are drawn one by one, each when its turn comes; a function ends them with None.

        Before the body of each trial, every method marked `@ether_sync(topic=prepare)` runs, on all instances at the
        same time. Its arguments are `trial`, `attempt`, `run` and `condition`, and the keys of the condition where
        that is a dict. With `prepare=None` nothing is prepared. `timeout_s` bounds, in seconds, the preparation of each
        trial, and at its end the wait for what it caused. With `overlap=2` a trial begins while what the one before has
        caused is still in work, with 3 also the one before that; for these, several may be repeated after a death.

        `again` is how many times in a row a trial is repeated at once because an instance died during it; after that,
        `TrialDisturbed` is raised. Where the body raises an exception because of the death, as a call does, the trial
        is repeated if the body is in a `with` block, `for trial in run.trials(…, again=3): with trial: …`, or a
        function, `run.each(function, conditions, again=3)`.

        Trials may be inside of a trial, at any depth: those belong to it. A resumed run leaves out the trials that are
        done. Raises `RunDiffers` where the conditions are not those with which the run began, `ValueError` for an
        unknown order, a negative number, or an order that conditions cannot have that are drawn, `TypeError` for
        anything else than a number or conditions, `EncodeError` for a condition that no message can carry. While
        iterating: `TrialNotReady`, `TrialDisturbed`, `SyncError`, `NotSaved`, and `EncodeError` for a result.
        """
        if not isinstance(overlap, int) or overlap < 1:
            raise ValueError(f"overlap is the number of trials that may be in work at a time, from 1, not {overlap!r}")
        options = TrialOptions(prepare, again, timeout_s, overlap)
        drawn = trial_rules.drawn_from(trials, order)
        if drawn is not None:
            return self._drawn_row(self._next_place(), IteratedConditions(drawn), options)
        given = trial_rules.conditions_of(trials)  # type: ignore[arg-type]  # a function is drawn from
        return self._listed_row(given, Arrangement(order, seed), options)

    def scan(  # noqa: PLR0913  the user's surface: each is an option that a call names
        self, setter: Setter, values: Iterable[Any] | Mapping[str, Iterable[Any]] | Trials, *,
        read: Reader | None = None, by: str = trial_rules.GRID, within: Tolerance | None = None,
        order: str = trial_rules.GIVEN, seed: int | None = None, prepare: str | None = PREPARE, again: int = 0,
        timeout_s: float = READY_S,
    ) -> Scan:  # fmt: skip
        """Trials over the values of one parameter, or of several: `for trial in run.scan(stage.move, [0, 1, 2])`.

        Before the body of each trial, `setter` is called with the value. Where `values` is a dict from parameters to
        lists, `setter` gets one keyword argument for each parameter, for every combination (`by="grid"`, the last
        parameter changes fastest), or for the first value of each, then the second (`by="zip"`, lists of equal length).
        A grid has one order more, "snake": to and fro, so that only one parameter changes from each trial to the next,
        to the value beside.

        Several devices: `setter` is a dict from the parameters to setters,
        `run.scan({"x": stage.move, "mW": laser.set_power}, {"x": [0, 1], "mW": [5, 10]})`. They are called in that
        order, each with its value, for every trial. A scan that adapts: `run.scan(stage.move, run.adapt(strategy))`,
        with all options of the trials in `adapt`.

        `read` is called after `setter`. Its result is `trial.readback`, and is recorded beside the set value. A number
        that is more than `within` away from the set value, in the value's own unit, raises `ReadbackDiffers`. `read`
        and `within` may be dicts by parameter, too. An instance that dies in `setter` or `read` repeats the trial as
        `again` says. All other parameters and errors are those of `trials`.
        """
        options = TrialOptions(prepare, again, timeout_s)
        if isinstance(values, Trials):
            if options != TrialOptions() or order != trial_rules.GIVEN:
                raise ValueError(
                    "order, prepare, again and timeout_s of trials that are given belong to their own call"
                )
            return Scan(values, setter, read, within)
        if not isinstance(values, Mapping):
            left = self.trials(values, order=order, seed=seed, prepare=prepare, again=again, timeout_s=timeout_s)
            return Scan(left, setter, read, within, several=False)
        lists = {name: list(each) for name, each in values.items()}
        if isinstance(setter, Mapping) and set(setter) != set(lists):
            raise ValueError(f"the setters are of {', '.join(setter)}, and the values of {', '.join(lists)}")
        shape = tuple(len(each) for each in lists.values()) if by == trial_rules.GRID else ()
        left = self._listed_row(trial_rules.grid_of(lists, by), Arrangement(order, seed, shape), options)
        return Scan(left, setter, read, within, several=True)

    def adapt(
        self, strategy: object, *, prepare: str | None = PREPARE, again: int = 0, timeout_s: float = READY_S
    ) -> Trials:
        """Trials whose conditions depend on the results so far: `for trial in run.adapt(strategy): with trial: …`. The
        body sets `trial.result`, which is recorded with the trial's end; without it, the result is None.

        `strategy` is asked for the next condition before each trial, and ends the trials with None:
        an object with `ask()` and `tell(condition, result)`; a generator that yields conditions and is sent the result
        of each; or a function, which gets the list of all (condition, result) so far and has no other memory.

        Each condition is on disk before its trial begins. A resumed run tells the strategy the recorded results again,
        in their order, and goes on with the condition that was not done. A generator that asks for other ones then is
        `RunDiffers`; an object with ask and tell is told what was done, with a warning. Conditions and results have the
        form in which they are recorded, where a tuple is a list.

        The other parameters and errors are those of `trials`; the strategy's own exceptions come as they are.
        """
        source = AdaptedConditions(strategy_of(strategy))
        return self._drawn_row(self._next_place(), source, TrialOptions(prepare, again, timeout_s))

    def each(
        self, function: Callable[[Trial], Any],
        conditions: int | Iterable[Any] | Callable[[], Any] | Trials | Scan | PlannedTrials, **options: Any,
    ) -> list[Any]:  # fmt: skip
        """Call a function with each trial: `results = run.each(measure, [0.1, 0.3], again=3)`. What it returns is
        `trial.result`, unless it is None. Where an instance dies in a call, the trial is repeated as `again` says.

        `conditions` and `options` are those of `trials`; or `conditions` are trials of their own, such as
        `run.scan(…)`. Returns the results of all trials that are done, also of those before the run was resumed, in the
        order of their numbers, in the form in which they are recorded. Errors are those of `trials`, and whatever the
        function raises."""
        if isinstance(conditions, (Trials, Scan, PlannedTrials)):
            if options:
                raise TypeError(f"{', '.join(options)}: options of trials that are given belong to their own call")
            trials = conditions
        else:
            trials = self.trials(conditions, **options)
        for trial in trials:
            with trial:
                result = function(trial)
                if result is not None:
                    trial.result = result
        return trials.row.results()

    def planned(self) -> PlannedTrials:
        """The trials of the plan that the configuration has for a run of this name (`plan:`), exactly as `ether plan`
        checks them. The planned setting and calls are made before the body of each trial.

        Raises `NotPlanned` where there is no such plan; otherwise as `trials` and `scan`."""
        plan = self._options.plan
        if plan is None:
            raise NotPlanned(self.name)
        conditions = [condition.value for condition in conditions_at(plan, ())]
        arrangement = Arrangement(plan.order, plan.seed, shape_of(plan))
        left = self._listed_row(conditions, arrangement, TrialOptions(plan.prepare, plan.again))
        return PlannedTrials(self._client, left, plan)

    # -- rows of trials

    def _next_place(self) -> RowPlace:
        """The place of a row that begins now: inside of the innermost trial that is open, or of none."""
        while self._open and not self._open[-1].in_loop:
            self._open[-1].left_by_break()
        outer = self._open[-1] if self._open else None
        trial = None if outer is None else outer.current
        if outer is None or trial is None:
            nth, self._top_rows = self._top_rows, self._top_rows + 1
            return RowPlace(None, None, nth)
        nth, outer.rows = outer.rows, outer.rows + 1
        return RowPlace(outer, (trial.number, trial.attempt), nth)

    def _recorded_at(self, place: RowPlace) -> TrialPlan | None:
        """The plan of a row that began before: in this program, in an earlier attempt of the trial that it is inside
        of, or before the run was resumed."""
        if place.key in self._rows:
            return self._rows[place.key].plan
        return self._plans.get(place.key)

    def _listed_row(self, given: Sequence[Any], arrangement: Arrangement, options: TrialOptions) -> Trials:
        place = self._next_place()
        plan = self._recorded_at(place)
        if plan is None:
            plan = self._new_plan(place, given, arrangement)
        elif plan.drawn:  # it was a generator's once
            return self._drawn_row(place, IteratedConditions(iter(given)), options)
        elif why := trial_rules.difference(plan.conditions, as_recorded(given)):
            raise RunDiffers(self.id, why)
        return self._begun_row(place, TrialRow(self._services(), plan, given, None, options, place.outer))

    def _drawn_row(self, place: RowPlace, source: ConditionSource, options: TrialOptions) -> Trials:
        plan = self._recorded_at(place)
        if plan is None:
            plan = TrialPlan(self._numbered + 1, (), (), None, place.within, place.nth, drawn=True, complete=False)
            self.note("plan", plan.to_value())
        if not plan.drawn and isinstance(source, AdaptedConditions):
            raise RunDiffers(self.id, "its conditions were all given before the first trial, and adapt to results now")
        conditions = source.restore(self.id, plan, self._attempts)
        row = TrialRow(
            self._services(), plan, conditions, None if plan.complete else source, options, place.outer
        )  # fmt: skip
        return self._begun_row(place, row)

    def _begun_row(self, place: RowPlace, row: TrialRow) -> Trials:
        self._rows[place.key] = row
        return Trials(row)

    def _new_plan(self, place: RowPlace, given: Sequence[Any], arrangement: Arrangement) -> TrialPlan:
        order, seed = arrangement.order, arrangement.seed
        if seed is None and order == trial_rules.RANDOM:
            seed = random.SystemRandom().randrange(1 << 32)
        made = trial_rules.make_plan(self._numbered + 1, given, order, seed, arrangement.shape)
        plan = replace(made, within=place.within, nth=place.nth)
        self.note("plan", plan.to_value())
        self._numbered += len(given)
        return plan

    def _new_number(self) -> int:
        self._numbered += 1
        return self._numbered

    def _services(self) -> RunServices:
        return RunServices(
            run=self.id,
            attempts=self._attempts,
            tags=self._tags,
            show_progress=self._options.progress,
            checkpoint=self.checkpoint,
            note=self.note,
            retag=self.retag,
            await_work=self.await_work,
            leave_body=self.leave_body,
            sync=self._client.session.sync,
            living=self._living,
            await_change=self._client.session.await_change,
            new_number=self._new_number,
            open=self._open,
        )

    def _living(self) -> dict[str, str]:
        known = self._client.session.announcements()
        return {one.name: one.incarnation for one in known if one.kind == "instance" and one.state in LIVES}

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Record an event of this run; returns when it is on disk. Raises `NotSaved`, `EncodeError`."""
        self._go_on()
        self._log.record(self.id, event, {**facts, "turn": self._turn})

    def retag(
        self, trial: int | None, attempt: int, what: str, timeout_s: float = READY_S, *, waits: bool = True
    ) -> Mapping[str, str]:
        """From now on, what this thread does is caused by this trial, and all data that any instance saves without
        another cause belongs to it by time; to none with None. Trials whose body ends by this are waited for: returns
        when their data is on disk, and what they have caused is finished. What is not finished after `timeout_s`
        seconds is returned, by instance. Without `waits` nothing is waited for, and `await_work` has to follow. Raises
        `TrialNotReady` with `what` as the name of the step."""
        self._turn += 1
        tag = Tag(self.id, self._turn, trial, attempt)
        ended = self._leave_bodies(tag.origin)
        unfinished: Mapping[str, str] = {}
        if waits:
            unfinished = self._tags.broadcast(tag, timeout_s, what, ended)
            self._warn_of(unfinished, what, timeout_s)
        else:
            self._tags.switch(tag, timeout_s, what)
        self._enter_body(tag.origin)
        return unfinished

    def await_work(self, trial: int, attempt: int, what: str, timeout_s: float) -> Mapping[str, str]:
        """The part of the end of a trial that `retag` has left out: wait, and return what is not finished."""
        origin = Tag(self.id, 0, trial, attempt).origin
        assert origin is not None
        unfinished = self._tags.await_work(origin, Deadline(timeout_s), what)
        self._warn_of(unfinished, what, timeout_s)
        return unfinished

    def _warn_of(self, unfinished: Mapping[str, str], what: str, timeout_s: float) -> None:
        for name, why in unfinished.items():
            logger.warning("%s is over, and %s has not finished what it caused after %g s: %s. It counts without that;"
                           " what is still saved of it keeps its number", what, name, timeout_s, why)  # fmt: skip

    def _enter_body(self, origin: str | None) -> None:
        """From now on, what this thread does is caused by a trial."""
        if origin is not None and origin not in self._bodies:
            if not self._bodies:
                self._outside = causes.current()
            causes.become(self._cause_of(origin))
            self._bodies.append(origin)

    def leave_body(self, trial: int, attempt: int) -> None:
        """The body of a trial, and what is inside of it, has ended without `retag`: by an exception or `break`. Nobody
        waits for what it has caused, since it does not count."""
        origin = Tag(self.id, 0, trial, attempt).origin
        if origin in self._bodies:
            at = self._bodies.index(origin)
            self._leave_bodies(self._bodies[at - 1] if at else None)

    def _cause_of(self, origin: str) -> causes.Cause:
        return self._outside._replace(origin=origin, work=self._client.link.caused)

    def _leave_bodies(self, back_to: str | None) -> list[str]:
        """Bodies end: all of them, or those inside of the trial `back_to`, where that one goes on. Returns their
        origins, the outermost first."""
        keep = self._bodies.index(back_to) + 1 if back_to in self._bodies else len(self._bodies) if back_to else 0
        ended, self._bodies = self._bodies[keep:], self._bodies[:keep]
        if ended:
            causes.become(self._cause_of(self._bodies[-1]) if self._bodies else self._outside)
        return ended

    # -- pause and interlocks

    def pause(self, why: str = "asked to") -> None:
        """Hold the run up before its next trial, or at its next `checkpoint()`. May be called from any thread."""
        self._interlock.close(PAUSED, f"paused: {why}")

    def resume(self) -> None:
        """Let the run go on after `pause()`. May be called from any thread."""
        self._interlock.open(PAUSED)

    def stop(self, why: str = "asked to") -> None:
        """End the run: `RunStopped` is raised where its next trial would begin, or at its next `checkpoint()`, also
        while it is held up. May be called from any thread."""
        self._stopped = why
        self._interlock.release()

    @property
    def held_up_by(self) -> str:
        """The reason why the run does not go on at present; "" where nothing holds it up."""
        return self._interlock.why

    def checkpoint(self) -> float:
        """Inside of a trial: wait here while the run is paused or suspended. Returns the seconds that it has waited."""
        self._go_on()
        waited_s = self._interlock.pass_through(self._note_held_up, self._note_going_on)
        if self._stopped:
            raise RunStopped(self.id, self._stopped)
        return waited_s

    def _note_held_up(self, why: str) -> None:
        logger.warning("Run %s waits: %s", self.id, why)
        self.note("pause" if why.startswith(f"{PAUSED}:") else "suspend", {"why": why})

    def _note_going_on(self, waited_s: float) -> None:
        logger.warning("Run %s goes on after %.3f s", self.id, waited_s)
        self.note("goes-on", {"waited_s": round(waited_s, 3)})

    def _carry_out(self, verb: str, why: str) -> Mapping[str, Any]:
        """A request of another program. Called on the dispatch thread, so it must not wait."""
        match verb:
            case "status":
                return {"run": self.id, "held_up_by": self._interlock.why}
            case "pause":
                self.pause(why or "asked to by another program")
            case "resume":
                self.resume()
            case "stop":
                self.stop(why or "asked to by another program")
            case _:
                raise KeyError(f"a run knows no request {verb!r}; it knows pause, resume, status, stop")
        return {"run": self.id}

    def __repr__(self) -> str:
        return f"<run {self.id or self.name}>"


def _how_it_ended(error: BaseException | None) -> tuple[str, str]:
    """The status and the error text of a run whose block was left by `error`."""
    if error is None:
        return ENDED, ""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "Ctrl-C"
    if isinstance(error, RunStopped):
        return INTERRUPTED, error.why[:_ERROR_CHARS]
    return FAILED, f"{type(error).__name__}: {error}"[:_ERROR_CHARS]


def _owner_text(owner: Mapping[str, Any]) -> str:
    return f"{owner.get('program')} (pid {owner.get('pid')} on {owner.get('host')})"
