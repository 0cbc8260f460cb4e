"""`ether status`: the proof that a ledger is complete, or what it lacks.

For each outbox: how many of the numbers that it gave out are on disk, which are missing, and what waits in its file.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ether.cli.data.data import show_topics
from ether.cli.data.recorded import Ledger, ledger_folder
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.launch.recording_setup import orphaned_outboxes
from ether.ledger.reader import LedgerReader
from ether.reading.run_facts import runs_in, status_now
from ether.recording.completeness_rules import Proof, prove


def status(ledger: Ledger = None, json: Json = False) -> int:
    """Show what is on the disk of what was to be saved, and what is missing (then with code 1)."""
    folder = ledger_folder(ledger)
    with LedgerReader.open(folder) as reader:
        proof = prove(reader.outboxes(), reader.duplicates())
        topics = [asdict(summary) for summary in reader.topics()]
        runs = [summary.run for summary in reader.runs()]
        session = reader.session
        named = {state.id: status_now(state) for state in runs_in(reader).values()}
    waiting = orphaned_outboxes(session)
    if json:
        facts = {"session": session, "ledger": str(folder), **proof_to_json(proof), "topics": topics, "runs": runs}
        print_json({**facts, "named_runs": named, "waiting": [asdict(outbox) for outbox in waiting]})
    else:
        print_line(f"session {session}, {folder}")
        print_line(str(proof))
        for outbox in waiting:
            whose = f"{outbox.source!r}, whose process has ended"
            print_line(f"  waiting {outbox.count:,} entries of {whose}, in {outbox.path}")
        show_topics(topics, as_json=False)
        for run, run_status in named.items():
            if run_status in ("running", "aborted"):
                print_line(f"run {run}: {run_status}; ether runs says more")
    return Exit.OK if proof.complete and not waiting else Exit.FAILED


def proof_to_json(proof: Proof) -> dict[str, Any]:
    """A proof as JSON data."""
    return {**asdict(proof), "complete": proof.complete}
