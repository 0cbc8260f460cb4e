"""Everything that `ether plan` finds out: faults of instances and runs, how long the runs take, what they write.

Promises: nothing is started, opened or written. The past is read from the session's ledger, or from the one that is
named; where there is none, it says that it does not know. The trap: a ledger of another machine tells of its disk and
its speed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ether.config import EtherConfig
from ether.config.plan import RunPlan
from ether.errors import ConfigError, LedgerError, NoLedger, SeveralLedgers
from ether.ledger.places import data_folder, default_folder, find_ledger
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.log import get_ether_logger
from ether.protocol.run_record import RunState
from ether.reading.run_facts import runs_in
from ether.runs.plan.call_rules import PlanFault, nearest
from ether.runs.plan.classes import PlannedLab, lines_of
from ether.runs.plan.estimate_rules import Estimate, Past, PastTopic, disk_faults, estimate, past_trials, time_faults
from ether.runs.plan.plan_rules import run_faults, trial_count
from ether.runs.plan.script import Program, read_program
from ether.runs.plan.script_faults import program_faults

logger = get_ether_logger("Ether")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What is known of one run. `free_bytes` is what the ledger's disk has."""

    name: str
    estimate: Estimate
    past: Past
    free_bytes: float


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """A fault, and the line in which it is written."""

    fault: PlanFault
    line: int | None
    file: str = ""
    """The program in which it is written; "" for the configuration."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What was found. `unseen` is what could not be looked at from here, `instances` are their names."""

    instances: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    findings: tuple[PlanFinding, ...]
    unseen: tuple[str, ...]
    folder: str


def plan_report(
    config: EtherConfig,
    only: str | None,
    ledger: str | None,
    environment: Mapping[str, str],
    programs: Sequence[str] = (),
    *,
    simulated: bool = False,
) -> PlanReport:
    """Look at everything. `only` is one run's name, `ledger` the session or folder whose past counts, `programs` are
    files that are read and not run. Raises `ConfigError`, `NoLedger` and `SeveralLedgers` for what was named and is not
    there, `LedgerError`."""
    plans = _chosen(config, only)
    read = {file: _read(file) for file in programs}
    published = [topic for program in read.values() for topic in sorted(program.publishes)]
    lab = PlannedLab.of(config, simulated=simulated)
    folder = _folder(config, environment)
    faults, runs = list(lab.faults), []
    states, past_folder = _states(config, ledger, environment)
    for name, plan in plans.items():
        place = ("plan", name)
        heard = plan.model_copy(update={"outside": (*plan.outside, *published)})
        found = run_faults(heard, place, lab.members, _recorded(config))
        faults += found
        run = _planned(name, plan, states, past_folder, folder)
        faults += time_faults(plan, place, run.estimate, run.past)
        faults += disk_faults(place, run.estimate, run.free_bytes, str(folder))
        runs.append(run)
    if plans and (blind := [name for name, member in lab.members.items() if member.spec is None]):
        lab.unseen.append(f"whether topics come, and sync topics are marked: {', '.join(blind)} may do it")
    lines = lines_of(faults, config)
    findings = sorted((PlanFinding(fault, lines[fault]) for fault in faults), key=lambda found: found.line or 0)
    for file, program in read.items():
        findings += _of_program(file, program, config, lab)
    return PlanReport(tuple(lab.members), tuple(runs), tuple(findings), tuple(lab.unseen), str(folder))


def _read(file: str) -> Program:
    try:
        return read_program(Path(file).read_bytes(), file)
    except OSError as error:
        raise ConfigError(f"the program cannot be read: {error.strerror or error}.", file=file) from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(f"this is no Python: {getattr(error, 'msg', error)}.", file=file, line=line) from error


def _of_program(file: str, program: Program, config: EtherConfig, lab: PlannedLab) -> list[PlanFinding]:
    """What is wrong with a program. What cannot be read in it is said."""
    if program.unread:
        lines = ", ".join(map(str, program.unread))
        lab.unseen.append(f"{file}, line {lines}: what is meant is only known when it runs")
    outside = [topic for plan in config.plan.values() for topic in plan.outside]
    found = program_faults(program, lab.members, config.plan, outside)
    return [PlanFinding(each.fault, each.line, file) for each in found]


def _chosen(config: EtherConfig, only: str | None) -> Mapping[str, RunPlan]:
    if only is None:
        return config.plan
    if only not in config.plan:
        planned = ", ".join(config.plan) or "none"
        raise ConfigError(
            f"no run {only!r} is planned; planned are: {planned}.", path="plan", nearest=nearest(only, config.plan)
        )
    return {only: config.plan[only]}


def _recorded(config: EtherConfig) -> Iterable[str] | None:
    if config.record is None:
        return ()
    return None if isinstance(config.record.topics, str) else config.record.topics


def _planned(
    name: str, plan: RunPlan, states: Mapping[str, RunState], past_folder: Path | None, folder: Path
) -> PlannedRun:
    trials = trial_count(plan)
    runs, seconds = past_trials(states.values(), name)
    topics = _past_topics(past_folder, states, name, plan.data) if past_folder is not None and plan.data else {}
    past = Past(runs, seconds, topics)
    return PlannedRun(name, estimate(plan, trials, past), past, _free_bytes(folder))


# -- the disk


def _folder(config: EtherConfig, environment: Mapping[str, str]) -> Path:
    if config.record is not None and config.record.folder is not None:
        return Path(config.record.folder).absolute()
    return data_folder(environment) if config.session is None else default_folder(config.session, environment)


def _free_bytes(folder: Path) -> float:
    """Of the disk on which the folder is, or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return float(shutil.disk_usage(there).free)


# -- the past


def _states(
    config: EtherConfig, ledger: str | None, environment: Mapping[str, str]
) -> tuple[Mapping[str, RunState], Path | None]:
    """The runs of the past. A session that was never recorded has none; a ledger that was named has to be there."""
    named = ledger is not None
    where = ledger if named else config.session
    folder = _folder(config, environment) if config.record is not None and config.record.folder and not named else None
    if where is None and folder is None:
        return {}, None
    try:
        found = find_ledger(folder if folder is not None else where, environment)
        with LedgerReader.open(found) as reader:
            return runs_in(reader), found
    except (NoLedger, SeveralLedgers, LedgerError) as error:
        if named:
            raise
        logger.debug("no past runs: %s", error)
        return {}, None


def _past_topics(
    folder: Path, states: Mapping[str, RunState], name: str, topics: Iterable[str]
) -> dict[str, PastTopic]:
    """What the last run of that name that has finished trials recorded on each topic, in those trials."""
    run = next((run for run in reversed(list(states.values())) if run.name == name and run.done), None)
    if run is None:
        return {}
    with LedgerReader.open(folder) as reader:
        found = {topic: _past_topic(reader.records(RecordFilter(run=run.id, topic=topic)), run) for topic in topics}
    return {topic: past for topic, past in found.items() if past is not None}


def _past_topic(records: Iterable[StoredRecord], run: RunState) -> PastTopic | None:
    count, size = 0, 0
    for record in records:
        trial = run.trials.get(record.more.get("trial"))  # type: ignore[call-overload]
        if trial is not None and trial.counts == record.more.get("attempt"):
            count, size = count + 1, size + record.size
    seconds = sum(trial.seconds or 0.0 for trial in run.trials.values() if trial.counts is not None)
    return PastTopic(count, size / count, seconds, len(run.done)) if count else None
