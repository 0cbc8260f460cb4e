"""`ether plan`: checks an experiment before anything moves: its faults, its duration, and the bytes that it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import Exit
from ether.cli.lab.foreground import make_importable
from ether.cli.options import Json
from ether.cli.output import print_json, print_line, print_table, remark
from ether.config import load_config
from ether.errors import ConfigError
from ether.recording.forecast_rules import size_text
from ether.runs.plan.report import PlanFinding, PlannedRun, PlanReport, plan_report
from ether.runs.trial_rules import duration_text

RunName = Annotated[str | None, typer.Option("--run", metavar="NAME", help="Of this run alone.")]
PastLedger = Annotated[
    str | None,
    typer.Option("--ledger", metavar="LEDGER", help="The session or folder whose past runs tell how long it takes."),
]


def plan(
    file: ConfigFile = None,
    run: RunName = None,
    ledger: PastLedger = None,
    sim: Annotated[bool, typer.Option("--sim", help="As it will run with --sim: no ports are needed.")] = False,
    json: Json = False,
) -> int:
    """Check instances and planned runs against the classes, the clock and the disk. Classes are imported;
    nothing is built, started or moved. Ends with 1 where something is wrong."""
    path = chosen_file(file, Path.cwd())
    config = load_config(path)
    make_importable(path)
    report = plan_report(config, run, ledger, os.environ, simulated=sim)
    if json:
        print_json(_to_json(path, report))
    else:
        _show(path, report)
    return Exit.FAILED if report.findings else Exit.OK


def _show(path: str, report: PlanReport) -> None:
    columns = {"run": "RUN", "trials": "TRIALS", "time": "TIME", "from": "FROM", "data": "DATA", "free": "FREE"}
    print_table([_row(run) for run in report.runs], columns, nothing="no runs are planned; plan: describes them")
    for note in report.unseen:
        remark(f"not looked at: {note}")
    for warning in report.warnings:
        print_line(f"warning: {warning}")
    for finding in report.findings:
        print_line(_sentence(path, finding))
    count, of = len(report.findings), len(report.instances)
    instances = f"{of} instance{'s' if of != 1 else ''}"
    if count:
        print_line(f"{path}: {count} thing{'s' if count != 1 else ''} to mend; nothing was started")
    else:
        print_line(f"{path}: fine: {len(report.runs)} run{'s' if len(report.runs) != 1 else ''} of {instances}")


def _sentence(path: str, finding: PlanFinding) -> str:
    fault = finding.fault
    text = fault.text.replace("\n", " ")
    return str(ConfigError(text, file=path, line=finding.line, path=fault.path))


def _row(run: PlannedRun) -> dict[str, object]:
    found = run.estimate
    size = "not known" if found.bytes is None else f"{size_text(found.bytes)}"
    if found.unknown and found.bytes is not None:
        size += f" without {', '.join(found.unknown)}"
    time = "not known" if found.seconds is None else duration_text(found.seconds)
    return {
        "run": run.name, "trials": found.trials, "time": time,
        "from": found.based_on, "data": size, "free": size_text(run.free_bytes),
    }  # fmt: skip


def _to_json(path: str, report: PlanReport) -> dict[str, Any]:
    faults = [
        {
            "file": path, "line": finding.line, "path": finding.fault.path,
            "found": finding.fault.found, "valid": finding.fault.valid, "nearest": finding.fault.nearest,
            "text": _sentence(path, finding),
        }
        for finding in report.findings
    ]  # fmt: skip
    runs = [
        {
            "run": run.name, "trials": run.estimate.trials, "seconds": run.estimate.seconds,
            "based_on": run.estimate.based_on, "past_runs": run.past.runs, "past_trials": len(run.past.trial_s),
            "bytes": run.estimate.bytes, "unknown_topics": list(run.estimate.unknown), "free_bytes": run.free_bytes,
        }
        for run in report.runs
    ]  # fmt: skip
    return {
        "file": path, "fine": not faults, "faults": faults, "runs": runs, "instances": list(report.instances),
        "warnings": list(report.warnings), "not_looked_at": list(report.unseen), "ledger": report.folder,
    }  # fmt: skip
