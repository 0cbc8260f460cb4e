"""The report of `ether plan`: faults of instances and runs, how long the runs take, how much data they write.

Promises: nothing is started, opened for writing, or written. Past runs are read from the session's ledger, or from the
ledger that the caller names; without one, durations and sizes are reported as not known. The trap: a ledger copied from
another machine gives that machine's trial durations.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
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

logger = get_ether_logger("Ether")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What is known about one run before it begins. `free_bytes` is the free space of the ledger's disk."""

    name: str
    estimate: Estimate
    past: Past
    free_bytes: float


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """A fault, and the line of the configuration that contains it; None without a file."""

    fault: PlanFault
    line: int | None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The result. `instances` are names; `unseen` are notes on parts that cannot be checked from this machine; `folder`
    is where the ledger is, or will be; `warnings` are what is probably a mistake, and may be none."""

    instances: tuple[str, ...]
    runs: tuple[PlannedRun, ...]
    findings: tuple[PlanFinding, ...]
    unseen: tuple[str, ...]
    folder: str
    warnings: tuple[str, ...] = ()


def plan_report(
    config: EtherConfig,
    only: str | None,
    ledger: str | None,
    environment: Mapping[str, str],
    *,
    simulated: bool = False,
) -> PlanReport:
    """Check every instance and every planned run, or the run `only` alone. `ledger` is a session's name or a ledger's
    folder: its past runs give the durations. With `simulated`, ports of devices need not exist.

    Raises `ConfigError` for an `only` that is not planned; `NoLedger`, `SeveralLedgers`, `LedgerError` for a `ledger`
    that cannot be found or read."""
    plans = _chosen(config, only)
    lab = PlannedLab.of(config, simulated=simulated)
    folder = ledger_folder_of(config, environment)
    faults, runs = list(lab.faults), []
    states, past_folder = _past_runs(config, ledger, environment)
    for name, plan in plans.items():
        place = ("plan", name)
        faults += run_faults(plan, place, lab.instances, recorded_topics(config))
        run = _planned(name, plan, states, past_folder, folder)
        faults += time_faults(plan, place, run.estimate, run.past)
        faults += disk_faults(place, run.estimate, run.free_bytes, str(folder))
        runs.append(run)
    # A class that cannot be imported may publish any topic and mark any sync topic, so `run_faults` reports none
    # missing.
    if plans and (blind := [name for name, planned in lab.instances.items() if planned.spec is None]):
        lab.unseen.append(f"whether topics come, and sync topics are marked: {', '.join(blind)} may do it")
    lines = lines_of(faults, config)
    findings = sorted((PlanFinding(fault, lines[fault]) for fault in faults), key=lambda found: found.line or 0)
    return PlanReport(
        tuple(lab.instances), tuple(runs), tuple(findings), tuple(lab.unseen), str(folder), tuple(lab.warnings)
    )


def _chosen(config: EtherConfig, only: str | None) -> Mapping[str, RunPlan]:
    if only is None:
        return config.plan
    if only not in config.plan:
        planned = ", ".join(config.plan) or "none"
        raise ConfigError(
            f"no run {only!r} is planned; planned are: {planned}.", path="plan", nearest=nearest(only, config.plan)
        )
    return {only: config.plan[only]}


def recorded_topics(config: EtherConfig) -> Iterable[str] | None:
    """The topic filters that the session records; None for `record: all`."""
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
    return PlannedRun(name, estimate(plan, trials, past), past, free_bytes_of(folder))


# -- the disk


def ledger_folder_of(config: EtherConfig, environment: Mapping[str, str]) -> Path:
    """The folder of the session's ledger, whether or not it is there; that of all ledgers for a session without a
    name."""
    if config.record is not None and config.record.folder is not None:
        return Path(config.record.folder).absolute()
    return data_folder(environment) if config.session is None else default_folder(config.session, environment)


def free_bytes_of(folder: Path) -> float:
    """The free space of the disk on which the folder is, or will be made: that of its nearest parent that exists."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return float(shutil.disk_usage(existing).free)


# -- the past


def _past_runs(
    config: EtherConfig, ledger: str | None, environment: Mapping[str, str]
) -> tuple[Mapping[str, RunState], Path | None]:
    """The recorded runs by id, and the ledger's folder. Of a session that was never recorded: none and None. A ledger
    that the user named must exist: its errors are raised."""
    named = ledger is not None
    where = ledger if named else config.session
    folder = (
        ledger_folder_of(config, environment)
        if config.record is not None and config.record.folder and not named
        else None
    )
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
    """The data that finished trials recorded on each topic: trials of the last run of that name that finished any."""
    run = next((run for run in reversed(list(states.values())) if run.name == name and run.done), None)
    if run is None:
        return {}
    with LedgerReader.open(folder) as reader:
        found = {topic: _past_topic(reader.records(RecordFilter(run=run.id, topic=topic)), run) for topic in topics}
    return {topic: past for topic, past in found.items() if past is not None}


def _past_topic(records: Iterable[StoredRecord], run: RunState) -> PastTopic | None:
    count, size = 0, 0
    for record in records:
        # Records of attempts that do not count, and of the time between trials, would spoil the rate per trial.
        trial = run.trials.get(record.more.get("trial"))  # type: ignore[call-overload]
        if trial is not None and trial.counts == record.more.get("attempt"):
            count, size = count + 1, size + record.size
    nested = run.nested
    outer = [number for number in run.done if number not in nested]  # whose time contains that of the others
    seconds = sum(run.trials[number].seconds or 0.0 for number in outer)
    return PastTopic(count, size / count, seconds, len(outer)) if count else None
