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
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.config.names import PREPARE
from ether.errors import EtherError, NotPlanned, RunDiffers, RunGoesOn
from ether.log import get_ether_logger
from ether.protocol.run_record import ABORTED, ENDED, FAILED, INTERRUPTED, LEFT, RUNNING, RunState, TrialPlan
from ether.recording.tags import Tag
from ether.recording.writer import RecordWriter
from ether.runs import trial_rules
from ether.runs.interlock import PAUSED, Interlock
from ether.runs.plan.plan_rules import conditions_at
from ether.runs.run_control import RunControl, status_of_run
from ether.runs.run_log import RunLog
from ether.runs.tag_broadcast import TagBroadcast
from ether.runs.trials import READY_S, PlannedTrials, RunServices, Scan, Trials
from ether.session.client import Client
from ether.wire.codec import decode, encode
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
        self._control: RunControl | None = None
        self._all_trials: list[Trials] = []
        self._turn = 0
        """Counts the tags of this run, also those of programs that led it before."""
        self._numbered = 0
        """How many trials have a number so far."""

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
        program = self._client.link.source
        self._control = RunControl(self._client.link, self._client.topics, program, self._carry_out)
        try:
            self._begin()
        except BaseException:
            self._let_go()
            raise
        return self

    def _begin(self) -> None:
        facts = {"name": self.name, "status": RUNNING, "owner": dict(self._options.owner)}
        more: dict[str, Any] = {"resumed": True} if self.resumed else {"metadata": self.metadata}
        self._log.record(self.id, "begin", {**facts, **more, "turn": self._turn})
        self.retag(None, 1, "the run")
        self._interlock.watch(self._client, self._options.suspend_while)
        logger.info("Run %s %s", self.id, "goes on" if self.resumed else "begins")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        status, why = _how_it_ended(error)
        try:
            for trials in self._all_trials:
                trials.leave(status if error is not None else LEFT, why)
            if error is None:
                status = ENDED if all(trials.finished for trials in self._all_trials) else LEFT
            # The last tag takes every instance out of the run. When it has been taken on, all data of the run is on
            # disk, and only then the end is recorded.
            self._turn += 1
            self._tags.broadcast(Tag(self.id, self._turn, goes_on=False), READY_S, f"run {self.id!r}")
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
            self.state = known[last]
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
        self, trials: int | Iterable[Any], *, order: str = trial_rules.GIVEN, seed: int | None = None,
        prepare: str | None = PREPARE, again: int = 0, timeout_s: float = READY_S,
    ) -> Trials:  # fmt: skip
        """A number of trials, or one trial for each condition of a list, to be iterated over:
        `for trial in run.trials([0.1, 0.3], order="random")`.

        `order` is "given" or "random". The same `seed` gives the same random order; without one, a seed is drawn and
        recorded.

        Before the body of each trial, every method marked `@ether_sync(topic=prepare)` runs, on all instances at the
        same time. Its arguments are `trial`, `attempt`, `run` and `condition`, and the keys of the condition where
        that is a dict. With `prepare=None` nothing is prepared. `timeout_s` bounds the preparation of each trial, in
        seconds.

        `again` is how many times in a row a trial is repeated at once because an instance died during it; after that,
        `TrialDisturbed` is raised.

        A resumed run leaves out the trials that are done. Raises `RunDiffers` where the conditions are not those with
        which the run began, `ValueError` for an unknown order or a negative number, `TypeError` for anything else than
        a number or a list, `EncodeError` for a condition that no message can carry. While iterating: `TrialNotReady`,
        `TrialDisturbed`, `SyncError`, `NotSaved`.
        """
        given = trial_rules.conditions_of(trials)
        first = self._numbered + 1
        self._numbered += len(given)
        recorded = next((plan for plan in self.state.plans if plan.first == first), None)
        plan = self._checked(recorded, given) if recorded else self._new_plan(first, given, order, seed)
        left = Trials(self._services(), plan, given, prepare, again, timeout_s)
        self._all_trials.append(left)
        return left

    def scan(  # noqa: PLR0913  the user's surface: each is an option that a call names
        self, setter: Callable[..., Any], values: Iterable[Any] | Mapping[str, Iterable[Any]], *,
        read: Callable[[], Any] | None = None, by: str = trial_rules.GRID, within: float | None = None,
        order: str = trial_rules.GIVEN, seed: int | None = None, prepare: str | None = PREPARE, again: int = 0,
        timeout_s: float = READY_S,
    ) -> Scan:  # fmt: skip
        """Trials over the values of one parameter, or of several: `for trial in run.scan(stage.move, [0, 1, 2])`.

        Before the body of each trial, `setter` is called with the value. Where `values` is a dict from parameters to
        lists, `setter` gets one keyword argument for each parameter, for every combination (`by="grid"`, the last
        parameter changes fastest), or for the first value of each, then the second (`by="zip"`, lists of equal length).

        `read` is called after `setter`. Its result is `trial.readback`, and is recorded beside the set value. A number
        that is more than `within` away from the set value, in the value's own unit, raises `ReadbackDiffers`. All other
        parameters and errors are those of `trials`.
        """
        conditions = trial_rules.grid_of(values, by) if isinstance(values, Mapping) else list(values)
        left = self.trials(conditions, order=order, seed=seed, prepare=prepare, again=again, timeout_s=timeout_s)
        return Scan(left, setter, read, within, several=isinstance(values, Mapping))

    def planned(self) -> PlannedTrials:
        """The trials of the plan that the configuration has for a run of this name (`plan:`), exactly as `ether plan`
        checks them. The planned setting and calls are made before the body of each trial.

        Raises `NotPlanned` where there is no such plan; otherwise as `trials` and `scan`."""
        plan = self._options.plan
        if plan is None:
            raise NotPlanned(self.name)
        conditions = [condition.value for condition in conditions_at(plan, ())]
        left = self.trials(conditions, order=plan.order, seed=plan.seed, prepare=plan.prepare, again=plan.again)
        return PlannedTrials(self._client, left, plan)

    def _checked(self, recorded: TrialPlan, given: Sequence[Any]) -> TrialPlan:
        """The recorded plan of a resumed run. Raises `RunDiffers` where the conditions are other ones now."""
        if why := trial_rules.difference(recorded.conditions, as_recorded(given)):
            raise RunDiffers(self.id, why)
        return recorded

    def _new_plan(self, first: int, given: Sequence[Any], order: str, seed: int | None) -> TrialPlan:
        if seed is None and order == trial_rules.RANDOM:
            seed = random.SystemRandom().randrange(1 << 32)
        plan = trial_rules.make_plan(first, given, order, seed)
        self.note("plan", plan.to_value())
        return plan

    def _services(self) -> RunServices:
        return RunServices(
            run=self.id,
            recorded=self.state.trials,
            tags=self._tags,
            show_progress=self._options.progress,
            checkpoint=self.checkpoint,
            note=self.note,
            retag=self.retag,
            sync=self._client.session.sync,
        )

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Record an event of this run; returns when it is on disk. Raises `NotSaved`, `EncodeError`."""
        self._log.record(self.id, event, {**facts, "turn": self._turn})

    def retag(self, trial: int | None, attempt: int, what: str, timeout_s: float = READY_S) -> None:
        """From now on, all data that any instance saves belongs to this trial; to none with None. Returns when the data
        from before is on disk. Raises `TrialNotReady` with `what` as the name of the step."""
        self._turn += 1
        self._tags.broadcast(Tag(self.id, self._turn, trial, attempt), timeout_s, what)

    # -- pause and interlocks

    def pause(self, why: str = "asked to") -> None:
        """Hold the run up before its next trial, or at its next `checkpoint()`. May be called from any thread."""
        self._interlock.close(PAUSED, f"paused: {why}")

    def resume(self) -> None:
        """Let the run go on after `pause()`. May be called from any thread."""
        self._interlock.open(PAUSED)

    @property
    def held_up_by(self) -> str:
        """The reason why the run does not go on at present; "" where nothing holds it up."""
        return self._interlock.why

    def checkpoint(self) -> float:
        """Inside of a trial: wait here while the run is paused or suspended. Returns the seconds that it has waited."""
        return self._interlock.pass_through(self._note_held_up, self._note_going_on)

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
            case _:
                raise KeyError(f"a run knows no request {verb!r}; it knows pause, resume, status")
        return {"run": self.id}

    def __repr__(self) -> str:
        return f"<run {self.id or self.name}>"


def as_recorded(value: Any) -> Any:
    """A value as it comes back from a ledger, to be compared with one: tuples become lists, keys become text."""
    return decode(*encode(value))


def _how_it_ended(error: BaseException | None) -> tuple[str, str]:
    """The status and the error text of a run whose block was left by `error`."""
    if error is None:
        return ENDED, ""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "Ctrl-C"
    return FAILED, f"{type(error).__name__}: {error}"[:_ERROR_CHARS]


def _owner_text(owner: Mapping[str, Any]) -> str:
    return f"{owner.get('program')} (pid {owner.get('pid')} on {owner.get('host')})"
