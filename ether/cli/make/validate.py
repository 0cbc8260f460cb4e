"""`ether validate`: checks a configuration, and the classes that it names, without building or starting anything."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import Exit
from ether.cli.lab.foreground import make_importable
from ether.cli.options import Json
from ether.cli.output import print_json, print_line, remark
from ether.config import EtherConfig, load_config
from ether.errors import ConfigError
from ether.recording.forecast_rules import forecast_text, seconds_left, size_text
from ether.runs.plan.classes import PlannedLab
from ether.runs.plan.record_rates import RecordRates, record_rates
from ether.runs.plan.source_check import located


def validate(
    file: ConfigFile = None,
    imports: Annotated[
        bool, typer.Option("--import/--no-import", help="Import the classes, and check them, too.")
    ] = True,
    json: Json = False,
) -> int:
    """Check a configuration and its classes, and say everything that is wrong: file, line, what was found, what would
    be valid. Nothing is built or started; with --no-import nothing is imported either."""
    path = chosen_file(file, Path.cwd())
    try:
        config = load_config(path)
    except ConfigError as error:
        if not json:
            raise
        print_json({"file": path, "valid": False, "problems": _problems(error), "warnings": []})
        return Exit.CONFIG
    problems, warnings = _of_classes(config, path) if imports else ([], [])
    rates = record_rates(config, os.environ)
    if json:
        said = [part for problem in problems for part in _problems(problem)]
        facts = {"file": path, "valid": not said, "problems": said, "warnings": warnings}
        print_json({**facts, "instances": list(config.named_instances()), "record": _rates_to_json(rates)})
        return Exit.CONFIG if said else Exit.OK
    for warning in warnings:
        remark(f"warning: {warning}")
    for problem in problems:
        remark(f"ether: {problem}")
    if problems:
        return Exit.CONFIG
    print_line(f"{path}: {_summary(config)}")
    for line in _rate_lines(rates) if config.record is not None or rates.topics else ():
        print_line(line)
    return Exit.OK


def _of_classes(config: EtherConfig, path: str) -> tuple[list[ConfigError], list[str]]:
    """What is wrong with the classes, in the order of the file, and what is probably a mistake. Ports of devices need
    not be there: `ether plan` looks for them."""
    make_importable(path)
    lab = PlannedLab.of(config, simulated=True)
    return sorted((located(fault, config) for fault in lab.faults), key=lambda error: error.line or 0), lab.warnings


def _rates_to_json(rates: RecordRates) -> dict[str, Any]:
    topics = [{**asdict(rate), "bytes_per_hour": rate.bytes_per_hour} for rate in rates.topics]
    return {
        "ledger": rates.folder, "free_bytes": rates.free_bytes, "bytes_per_hour": rates.bytes_per_hour,
        "known": rates.is_known, "full_in_s": seconds_left(int(rates.free_bytes), rates.bytes_per_hour / 3600),
        "topics": topics, "unseen": list(rates.unseen),
    }  # fmt: skip


def _rate_lines(rates: RecordRates) -> Iterator[str]:
    """What will be written an hour, what makes it up, and what is not known."""
    known = [rate for rate in rates.topics if rate.bytes_per_hour is not None]
    if known:
        least = "" if rates.is_known else " at least"
        forecast = forecast_text(int(rates.free_bytes), rates.bytes_per_hour / 3600)
        yield f"record to {rates.folder}{least}: {forecast}"
    else:
        yield f"record to {rates.folder}: how much is not known before it runs"
    for rate in known:
        amount = f"{rate.per_s:.3g} a second × {size_text(rate.bytes or 0.0)}"
        yield f"  {rate.topic} of {rate.instance}: {size_text(rate.bytes_per_hour or 0.0)} an hour ({amount}; " + (
            f"{', '.join(rate.based_on)})"
        )
    for rate in rates.unknown:
        missing = [what for what, found in (("how often", rate.per_s), ("how large", rate.bytes)) if found is None]
        yield f"  {rate.topic} of {rate.instance}: {' and '.join(missing)} is not known"
    for line in rates.unseen:
        yield f"  not seen: {line}"


def _problems(error: ConfigError) -> list[dict[str, Any]]:
    """Each problem as a line of text; the first one with its parts beside it."""
    first, *others = str(error).splitlines()
    described = {"file": error.file, "line": error.line, "path": error.path, "problem": error.problem}
    return [{**described, "nearest": error.nearest, "text": first}, *({"text": line.strip()} for line in others)]


def _summary(config: EtherConfig) -> str:
    instances = config.named_instances()
    counted = Counter(instance.class_path for instance in instances.values())
    listed = ", ".join(f"{count} {path}" if count > 1 else path for path, count in counted.items())
    waiting = sum(not instance.autorun for instance in instances.values())
    said = f"fine: {len(instances)} instance{'s' if len(instances) != 1 else ''}"
    said += f" ({listed})" if listed else ""
    return said + (f", {waiting} of them not started with the session" if waiting else "")
