"""`ether status`: the proof of a ledger: how much of what was given out is on the disk, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ether.cli.data.data import show_topics
from ether.cli.data.recorded import Ledger, ledger_folder
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line

if TYPE_CHECKING:
    from ether.recording.completeness_rules import Proof


def status(ledger: Ledger = None, json: Json = False) -> int:
    """Show what is on the disk of what was to be saved, and what is missing (then with code 1)."""
    from ether.launch.recording_setup import left_behind
    from ether.ledger.reader import LedgerReader
    from ether.reading.run_facts import runs_in, status_now
    from ether.recording.completeness_rules import prove

    folder = ledger_folder(ledger)
    with LedgerReader.open(folder) as reader:
        proof = prove(reader.outboxes(), reader.duplicates())
        topics = [asdict(summary) for summary in reader.topics()]
        runs = [summary.run for summary in reader.runs()]
        session = reader.session
        named = {state.id: status_now(state) for state in runs_in(reader).values()}
    waiting = left_behind(session)
    if json:
        told = {"session": session, "ledger": str(folder), **proof_to_json(proof), "topics": topics, "runs": runs}
        print_json({**told, "named_runs": named, "waiting": [asdict(one) for one in waiting]})
    else:
        print_line(f"session {session}, {folder}")
        print_line(str(proof))
        for one in waiting:
            print_line(f"  waiting {one.count:,} entries of {one.source!r}, whose process has ended, in {one.path}")
        show_topics(topics, as_json=False)
        for run, how in named.items():
            if how in ("running", "aborted"):
                print_line(f"run {run}: {how}; ether runs says more")
    return Exit.OK if proof.complete and not waiting else Exit.FAILED


def proof_to_json(proof: Proof) -> dict[str, Any]:
    """A proof for programs."""
    return {**asdict(proof), "complete": proof.complete}
