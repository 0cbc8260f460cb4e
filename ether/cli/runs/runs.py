"""`ether runs`: the named runs of a ledger: the status of each, how many of its trials are done, how long it took."""

from __future__ import annotations

from typing import Any

from ether.cli.data.find import metadata_columns, metadata_shown
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
    if any(row["without_trial"] for row in rows):
        columns["without_trial"] = "WITHOUT TRIAL"
    columns |= metadata_columns(row["metadata"] for row in rows)
    print_table([_shown(row) for row in rows], columns, nothing="no named runs; ether.run(…) begins one")


def run_rows(ledger: str | None) -> list[dict[str, Any]]:
    """A row for each named run. Raises `NoLedger`, `SeveralLedgers`, `LedgerError`."""
    with LedgerReader.open(ledger_folder(ledger)) as reader:
        without = reader.without_their_trial()
        return [_row(state, without.get(state.id, 0), wall_time()) for state in runs_in(reader).values()]


def _row(state: RunState, without_trial: int, now: float) -> dict[str, Any]:
    status = status_now(state)
    # A run that was killed took as long as it recorded something, whenever somebody looks at it.
    end = state.ended if state.ended is not None else now if status == "running" else state.last
    nested = state.nested
    return {
        "run": state.id, "status": status, "simulated": is_simulated_run(str(state.owner.get("session_run", ""))),
        "error": state.error, "trials": state.planned,
        "trials_done": len(state.done), "nested": len(nested), "nested_done": sum(n in nested for n in state.done),
        "complete": state.complete, "repeated": state.repeated, "resumed": state.resumed, "begun": state.begun,
        "ended": state.ended, "duration_s": None if end is None or end < state.begun else end - state.begun,
        "without_trial": without_trial, "metadata": dict(state.metadata), "owner": dict(state.owner),
    }  # fmt: skip


def _shown(row: dict[str, Any]) -> dict[str, object]:
    took, inside = row["duration_s"], row["nested"]
    done = f"{row['trials_done'] - row['nested_done']} of {row['trials'] - inside}"
    done += "" if row["complete"] else " so far"  # more conditions may be drawn
    done += f", inside {row['nested_done']} of {inside}" if inside else ""
    return {
        **row, "status": f"{row['status']} (simulated)" if row["simulated"] else row["status"],
        "done": done, "repeated": ", ".join(map(str, row["repeated"])),
        "begun": shown_time(row["begun"])[:19], "took": "" if took is None else duration_text(took),
        **metadata_shown(row["metadata"]),
    }  # fmt: skip
