"""The ids of runs: `name/N` is the Nth run of that name in a ledger. The id of a session's own run begins with `sim-`
where its devices were simulated.

The trap: a name may hold every character that `ether.config.names` allows, digits included, but no slash; therefore the
last slash separates.
"""

from __future__ import annotations

from collections.abc import Iterable

SIMULATED = "sim-"


def is_simulated_run(session_run: str) -> bool:
    """Whether the devices of this run of a session were simulated."""
    return session_run.startswith(SIMULATED)


def is_run_id(text: str) -> bool:
    """Whether this is the id of a named run."""
    name, _, number = text.rpartition("/")
    return bool(name) and number.isascii() and number.isdigit()


def run_number(run: str) -> int:
    """The number of a run among those of its name, from 1."""
    return int(run.rpartition("/")[2])


def latest(name: str, runs: Iterable[str]) -> str | None:
    """The last run of a name; None where there is none."""
    found = [run for run in runs if is_run_id(run) and run.rpartition("/")[0] == name]
    return max(found, key=run_number, default=None)


def next_id(name: str, runs: Iterable[str]) -> str:
    """The id of the next run of a name."""
    last = latest(name, runs)
    return f"{name}/{1 if last is None else run_number(last) + 1}"
