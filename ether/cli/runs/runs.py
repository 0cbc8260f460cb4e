"""`ether runs`: the named runs of a ledger: the status of each, how many of its trials are done, how long it took."""

from __future__ import annotations

from typing import Any

from ether.cli.data.recorded import Ledger, ledger_folder, shown_time
from ether.cli.options import Json
from ether.cli.output import print_json, print_table
from ether.ledger.reader import LedgerReader
from ether.protocol.run_record import RunState
from ether.reading.run_facts import runs_in, status_now
from ether.runs.trial_rules import duration_text
from ether.system.clock import wall_time
from ether.wire.run_ids import is_simulated_run


def runs(ledger: Ledger = None, json: Json = False) -> None:
    """Show the named runs that were recorded, in the order in which they began."""
    rows = run_rows(ledger)
    if json:
        print_json(rows)
        return
    columns = {
        "run": "RUN", "status": "STATUS", "done": "TRIALS", "repeated": "REPEATED", "begun": "BEGUN", "took": "TOOK",
        "error": "ERROR",
    }  # fmt: skip
    print_table([_shown(row) for row in rows], columns, nothing="no named runs; ether.run(…) begins one")


def run_rows(ledger: str | None) -> list[dict[str, Any]]:
    """A row for each named run. Raises `NoLedger`, `SeveralLedgers`, `LedgerError`."""
    with LedgerReader.open(ledger_folder(ledger)) as reader:
        return [_row(state, wall_time()) for state in runs_in(reader).values()]


def _row(state: RunState, now: float) -> dict[str, Any]:
    status = status_now(state)
    end = state.ended if state.ended is not None else now if status == "running" else None
    return {
        "run": state.id, "status": status, "simulated": is_simulated_run(str(state.owner.get("session_run", ""))),
        "error": state.error, "trials": state.planned,
        "trials_done": len(state.done), "repeated": state.repeated, "resumed": state.resumed, "begun": state.begun,
        "ended": state.ended, "duration_s": None if end is None or end < state.begun else end - state.begun,
        "metadata": dict(state.metadata), "owner": dict(state.owner),
    }  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, object]:
    took = row["duration_s"]
    return {
        **row, "status": f"{row['status']} (simulated)" if row["simulated"] else row["status"],
        "done": f"{row['trials_done']} of {row['trials']}", "repeated": ", ".join(map(str, row["repeated"])),
        "begun": shown_time(row["begun"])[:19], "took": "" if took is None else duration_text(took),
    }  # fmt: skip
