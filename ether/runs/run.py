"""A named run while it goes on: its beginning and end, its trials, what holds it up.

    with ether.run("dose-response", compound="A") as run:
        for trial in run.trials([0.1, 0.3, 1.0], order="random"):
            …

Promises: beginning, end, and those of each trial are on disk before the next thing happens, so that whoever comes after
a death reads them. One run at a time in a session.

The trap: what is measured in the body of a trial counts only when the trial's end is on disk. A trial that is left by
an exception or `break` has no such end, and is tried again by a run that is resumed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.config.names import PREPARE
from ether.errors import EtherError, RunDiffers, RunGoesOn
from ether.log import get_ether_logger
from ether.protocol import run_record
from ether.protocol.run_record import RunState
from ether.recording.tags import Tag
from ether.recording.writer import RecordWriter
from ether.runs import trial_rules as decisions
from ether.runs.interlock import PAUSED, Interlock
from ether.runs.run_control import RUN, RunControl
from ether.runs.run_log import RunLog
from ether.runs.tag_broadcast import TagBroadcast
from ether.runs.trials import READY_S, Scan, Trials
from ether.session.client import Client
from ether.wire.codec import decode, encode
from ether.wire.run_ids import is_simulated_run, latest, next_id

if TYPE_CHECKING:
    from ether.config.plan import RunPlan
    from ether.runs.trials import PlannedTrials

logger = get_ether_logger("Ether")

_OWNER_ANSWERS_S = 3.0
_ERROR_CHARS = 2000
_UNRECORDED_TURNS = 10
"""More than the turns that a tag can have had after the last fact that says so."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What was asked for. `metadata` is recorded with the beginning; `owner` says whose run it is."""

    name: str
    metadata: Mapping[str, Any]
    owner: Mapping[str, Any]
    resume: bool = False
    suspend_while: Mapping[str, object] = field(default_factory=dict)
    progress: bool | None = None
    plan: RunPlan | None = None
    """What the configuration plans for this run."""


class Run:
    """A named run: a context manager. Made by `ether.run()`."""

    def __init__(
        self,
        client: Client,
        record_writer: RecordWriter,
        options: RunOptions,
        is_dead_here: Callable[[Mapping[str, Any]], bool | None],
    ) -> None:
        """`is_dead_here` says whether the program of a run has ended, None where that is not known on this machine."""
        self.name = options.name
        self.metadata = dict(options.metadata)
        self.state = RunState("")
        """What was recorded of it before this program went on with it."""
        self._client, self._options, self._is_dead_here = client, options, is_dead_here
        self._book = RunLog(client, record_writer)
        self._spreader = TagBroadcast(client, record_writer)
        self._gate = Interlock()
        self._ear: RunControl | None = None
        self._rows: list[Trials] = []
        self._turn = 0
        self._planned = 0

    # -- its beginning and end

    @property
    def id(self) -> str:
        """`name/N`: the Nth run of its name."""
        return self.state.id

    @property
    def resumed(self) -> bool:
        """Whether it goes on with a run that was cut short."""
        return self.state.begun > 0

    def __enter__(self) -> Run:
        known = self._book.runs()
        self._close_the_dead(known)
        self._choose(known)
        program = self._client.link.source
        self._ear = RunControl(self._client.link, self._client.topics, program, self._asked)
        try:
            self._begin()
        except BaseException:
            self._let_go()
            raise
        return self

    def _begin(self) -> None:
        facts = {"name": self.name, "status": run_record.RUNNING, "owner": dict(self._options.owner)}
        more: dict[str, Any] = {"resumed": True} if self.resumed else {"metadata": self.metadata}
        self._book.note(self.id, "begin", {**facts, **more, "turn": self._turn})
        self.retag(None, 1, "the run")
        self._gate.watch(self._client, self._options.suspend_while)
        logger.info("Run %s %s", self.id, "goes on" if self.resumed else "begins")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        status, why = _how_it_ended(error)
        try:
            for row in self._rows:
                row.leave(status if error is not None else run_record.LEFT, why)
            if error is None:
                status = run_record.ENDED if all(row.finished for row in self._rows) else run_record.LEFT
            self._turn += 1
            self._spreader.spread(Tag(self.id, self._turn, goes_on=False), READY_S, f"run {self.id!r}")
            self._book.note(self.id, "end", {"status": status, "error": why, "turn": self._turn})
            logger.info("Run %s: %s", self.id, status)
        except EtherError as problem:
            if error is None:
                raise
            logger.error("the end of run %s could not be recorded: %s", self.id, problem)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._ear is not None:
            self._ear.close()
            self._ear = None
        self._gate.end()
        self._spreader.clear()

    # -- what other runs there are

    def _choose(self, known: Mapping[str, RunState]) -> None:
        last = latest(self.name, known)
        if self._options.resume and last is not None:
            self.state = known[last]
            self._turn = self.state.turn + _UNRECORDED_TURNS
            self._check_metadata()
            self._check_devices()
        else:
            self.state = RunState(next_id(self.name, known), self.name)

    def _check_devices(self) -> None:
        """What was begun on simulated devices does not go on with real ones, nor the other way round."""
        before, now = (
            is_simulated_run(str(owner.get("session_run", ""))) for owner in (self.state.owner, self._options.owner)
        )
        if before != now:
            words = {True: "simulated", False: "real"}
            raise RunDiffers(self.id, f"its devices were {words[before]}, and are {words[now]} now")

    def _check_metadata(self) -> None:
        given = plain(self.metadata)
        recorded = dict(self.state.metadata)
        if given and given != recorded:
            raise RunDiffers(self.id, f"its metadata were {recorded!r:.200}, and are {given!r:.200} now")
        self.metadata = recorded

    def _close_the_dead(self, known: Mapping[str, RunState]) -> None:
        """A run without an end whose program is gone was aborted; where the program lives, it is its turn."""
        for run in [state for state in known.values() if state.status == run_record.RUNNING]:
            if self._lives(run):
                raise RunGoesOn(self.name, run.id, _told_owner(run.owner))
            for number, attempts in run.trials.items():
                if attempts.open:
                    ended = {"trial": number, "attempt": attempts.tried, "status": run_record.ABORTED}
                    self._book.note(run.id, "trial-end", ended)
            ended = {"status": run_record.ABORTED, "error": "its program died", "turn": run.turn}
            self._book.note(run.id, "end", ended)
            logger.warning("Run %s had no end: its program died. It is closed as aborted", run.id)

    def _lives(self, run: RunState) -> bool:
        if self._is_dead_here(run.owner):
            return False
        # A program that lives may have lost its broker before it could say that the run is over; it may be this one.
        return status_of_run(self._client, str(run.owner.get("program")), _OWNER_ANSWERS_S) == run.id

    # -- trials

    def trials(
        self, trials: int | Iterable[Any], *, order: str = decisions.GIVEN, seed: int | None = None,
        prepare: str | None = PREPARE, again: int = 0, timeout_s: float = READY_S,
    ) -> Trials:  # fmt: skip
        """A number of trials, or one for each of the conditions: `for trial in run.trials([0.1, 0.3], order="random")`.

        `order` is "given" or "random"; the same `seed` makes the same order, and without one a seed is drawn and
        recorded. Before each trial every method marked `@ether_sync(topic=prepare)` runs, with `trial`, `attempt`,
        `run`, `condition` and, where the condition is a dict, its keys as arguments; None prepares nothing. `again` is
        how often a trial during which an instance died is repeated at once; otherwise that is `TrialDisturbed`.
        `timeout_s` bounds each trial's preparation.

        In a run that is resumed, those that are done are left out. Raises `RunDiffers` where the conditions are not
        those that the run began with, `ValueError`, `EncodeError`.
        """
        given = decisions.conditions_of(trials)
        first = self._planned + 1
        self._planned += len(given)
        recorded = next((plan for plan in self.state.plans if plan.first == first), None)
        plan = self._planned_before(recorded, given) if recorded else self._new_plan(first, given, order, seed)
        row = Trials(self, plan, given, prepare, again, timeout_s)
        self._rows.append(row)
        return row

    def scan(
        self, setter: Callable[..., Any], values: Iterable[Any] | Mapping[str, Iterable[Any]], *,
        read: Callable[[], Any] | None = None, by: str = decisions.GRID, within: float | None = None,
        order: str = decisions.GIVEN, seed: int | None = None, prepare: str | None = PREPARE, again: int = 0,
        timeout_s: float = READY_S,
    ) -> Scan:  # fmt: skip
        """Trials over the values of one parameter, or of several: `for trial in run.scan(stage.move, [0, 1, 2])`.

        Before the body of each trial `setter` is called with the value; where `values` is a dict of parameters, with
        one argument for each, for every combination (`by="grid"`) or the first of each, then the second (`by="zip"`).
        `read` is called after it; what it returns is `trial.readback`, and is recorded beside what was set. Where it
        is a number that is more than `within` away, that is `ReadbackDiffers`. The rest is as for `trials`.
        """
        conditions = decisions.grid_of(values, by) if isinstance(values, Mapping) else list(values)
        row = self.trials(conditions, order=order, seed=seed, prepare=prepare, again=again, timeout_s=timeout_s)
        return Scan(row, setter, read, within, several=isinstance(values, Mapping))

    def planned(self) -> PlannedTrials:
        """The trials that the configuration plans for a run of this name (`plan:`), as `ether plan` checks them: what
        is set and called in each comes before its body. Raises `NotPlanned`; otherwise as `trials` and `scan`."""
        from ether.runs.trials import planned_trials

        return planned_trials(self, self._options.plan)

    def _planned_before(self, recorded: run_record.TrialPlan, given: Sequence[Any]) -> run_record.TrialPlan:
        if why := decisions.difference(recorded.conditions, plain(given)):
            raise RunDiffers(self.id, why)
        return recorded

    def _new_plan(self, first: int, given: Sequence[Any], order: str, seed: int | None) -> run_record.TrialPlan:
        if seed is None and order == decisions.RANDOM:
            seed = random.SystemRandom().randrange(1 << 32)
        plan = decisions.make_plan(first, given, order, seed)
        self.note("plan", plan.to_value())
        return plan

    # -- being held up

    def pause(self, why: str = "asked to") -> None:
        """Hold the run up before its next trial, or at its next `checkpoint()`; from any thread."""
        self._gate.close(PAUSED, f"paused: {why}")

    def resume(self) -> None:
        """Let it go on after `pause()`; from any thread."""
        self._gate.open(PAUSED)

    @property
    def held_up_by(self) -> str:
        """Why the run does not go on now; "" where it does."""
        return self._gate.why

    def checkpoint(self) -> float:
        """Inside of a trial: wait here while the run is paused or suspended; returns for how many seconds it was."""
        return self._gate.pass_through(
            lambda why: self._held(held_event(why), why), lambda waited_s: self._held("goes-on", f"{waited_s:.3f}")
        )

    def _held(self, event: str, why: str) -> None:
        logger.warning("Run %s %s", self.id, f"waits: {why}" if event != "goes-on" else f"goes on after {why} s")
        self.note(event, {"why": why} if event != "goes-on" else {"waited_s": float(why)})

    def _asked(self, verb: str, why: str) -> Mapping[str, Any]:
        """By another program, on the dispatch thread."""
        match verb:
            case "status":
                return {"run": self.id, "held_up_by": self._gate.why}
            case "pause":
                self.pause(why or "asked to by another program")
            case "resume":
                self.resume()
            case _:
                raise KeyError(f"a run knows no request {verb!r}; it knows pause, resume, status")
        return {"run": self.id}

    # -- for its trials

    @property
    def client(self) -> Client:
        """The way into the session."""
        return self._client

    @property
    def spreader(self) -> TagBroadcast:
        """Who brings tags to the instances."""
        return self._spreader

    @property
    def shows_progress(self) -> bool | None:
        """Whether a bar is drawn; None: where there is a terminal."""
        return self._options.progress

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Bring a fact of this run to disk."""
        self._book.note(self.id, event, {**facts, "turn": self._turn})

    def retag(self, trial: int | None, attempt: int, what: str, timeout_s: float = READY_S) -> None:
        """What everybody saves from now on belongs to this trial. Raises `TrialNotReady`."""
        self._turn += 1
        self._spreader.spread(Tag(self.id, self._turn, trial, attempt), timeout_s, what)

    def __repr__(self) -> str:
        return f"<run {self.id or self.name}>"


def held_event(why: str) -> str:
    """What is recorded where a run is held up."""
    return "pause" if why.startswith(f"{PAUSED}:") else "suspend"


def plain(value: Any) -> Any:
    """As it comes back from a ledger: tuples are lists then, keys are text."""
    return decode(*encode(value))


def ask_run(client: Client, program: str, verb: str, why: str, timeout_s: float) -> Mapping[str, Any] | None:
    """Ask the run of a program; its answer, None where no run of it answers. Raises `KeyError`."""
    client.session.open(timeout_s)
    barrier = client.session.ask(RUN, [program], timeout_s, {"do": verb, "why": why})
    answer = barrier.answers.get(program)
    if answer is not None and answer.failed:
        raise KeyError("; ".join(answer.failed.values()))
    return None if answer is None else answer.results


def status_of_run(client: Client, program: str, timeout_s: float) -> str | None:
    """The id of the run that goes on in a program."""
    told = ask_run(client, program, "status", "", timeout_s)
    return None if told is None else str(told.get("run"))


def _how_it_ended(error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return run_record.ENDED, ""
    if isinstance(error, KeyboardInterrupt):
        return run_record.INTERRUPTED, "Ctrl-C"
    return run_record.FAILED, f"{type(error).__name__}: {error}"[:_ERROR_CHARS]


def _told_owner(owner: Mapping[str, Any]) -> str:
    return f"{owner.get('program')} (pid {owner.get('pid')} on {owner.get('host')})"
