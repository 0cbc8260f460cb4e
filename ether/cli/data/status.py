"""`ether status`: the proof that a ledger is complete, or what it lacks.

For each outbox: how many of the numbers that it gave out are on disk, which are missing, and which wait at their source
and why. What was given out the sources say themselves, as far as they are on this machine; the ledger knows of the
others what has arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ether.cli.data.data import show_topics
from ether.cli.data.recorded import Ledger, ledger_folder
from ether.cli.data.waiting import waiting_lines
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.errors import NoLedger
from ether.ledger.durable import free_bytes
from ether.ledger.reader import LedgerReader
from ether.reading.notes import clock_lines, missed_in
from ether.reading.run_facts import runs_in, status_now
from ether.recording.completeness_rules import Proof, SourceFacts, prove
from ether.recording.forecast_rules import forecast_text, left_text, seconds_left, size_text
from ether.recording.recorder_page import RecorderFacts, recorders_here, writing_to
from ether.recording.sources import Source, facts_for, sources_of, waiting_sessions

_SPAN_S = 60.0
"""Of shorter recordings no rate is given."""


def status(ledger: Ledger = None, json: Json = False) -> int:
    """Show what is on the disk of what was to be saved, what waits and why, and what is missing. Code 1 where something
    is missing, or waits and is not on its way."""
    waiting, recorders = waiting_sessions(), recorders_here()
    try:
        folder = ledger_folder(ledger)
    except NoLedger as error:
        wanted = waiting if error.wanted is None else {n: found for n, found in waiting.items() if n == error.wanted}
        if not wanted:
            raise
        return _show_only_waiting(wanted, as_json=json)
    recorder = writing_to(folder, recorders)
    with LedgerReader.open(folder) as reader:
        session = reader.session
        proof, others = proof_of(reader, recorder)
        waiting[session] = [source for source in others if source.count]
        topics = [asdict(summary) for summary in reader.topics()]
        runs = [summary.run for summary in reader.runs()]
        missed, clocks = missed_in(reader), clock_lines(reader)
        named = {state.id: status_now(state) for state in runs_in(reader).values()}
    problem = recorder.problem if recorder else ""
    if json:
        facts = {"session": session, "ledger": str(folder), **proof_to_json(proof), "topics": topics, "runs": runs}
        noted = {"missed": [asdict(note) for note in missed], "clocks": clocks}
        elsewhere = {name: _as_json(found) for name, found in waiting.items() if found}
        disk = _disk_of(folder, topics, recorder).to_json()
        print_json({**facts, "named_runs": named, **noted, "problem": problem, "disk": disk, "elsewhere": elsewhere})
    else:
        print_line(f"session {session}, {folder}")
        print_line(str(proof))
        if problem:
            print_line(f"  {problem}")
        for line in (*missed, *clocks):
            print_line(f"  {line}")
        for line in _disk_of(folder, topics, recorder).lines(is_written=recorder is not None):
            print_line(line)
        show_topics(topics, as_json=False)
        for run, run_status in named.items():
            if run_status in ("running", "aborted"):
                print_line(f"run {run}: {run_status}; ether runs says more")
        _show_waiting_elsewhere(waiting)
    return Exit.OK if proof.in_order and not problem else Exit.FAILED


def proof_of(reader: LedgerReader, recorder: RecorderFacts | None) -> tuple[Proof, list[Source]]:
    """The proof of this ledger, by what the sources on this machine say, and what its recorder has heard of others; and
    the sources of the session that have nothing to do with this ledger."""
    sources = sources_of(reader.session)  # first: what they have given out by now is then found in the ledger
    outboxes = reader.outboxes()
    trouble = recorder.problem if recorder else ""
    asked = facts_for(sources, reader.folder, [facts.outbox for facts in outboxes], trouble)
    local = {said.outbox for said in asked}
    heard = [said for said in (recorder.behind if recorder else ()) if said.outbox not in local]
    said = [*map(_with_advice, asked), *heard]
    proof = prove(outboxes, reader.duplicates(), said, reader.conflicts(), reader.signed())
    return proof, [source for source in sources if source.outbox not in local]


def _with_advice(said: SourceFacts) -> SourceFacts:
    """What one can do about what waits."""
    return said if said.alive else said._replace(why=f"{said.why}; ether rescue brings it home")


@dataclass(frozen=True)
class _Disk:
    """What a ledger has taken, and how long its disk lasts."""

    bytes: int
    span_s: float
    """From its first to its last value."""
    free_bytes: int | None
    bytes_per_s: float | None
    """At present; None where nobody writes, or it is not known yet."""

    def to_json(self) -> dict[str, Any]:
        left = None if self.free_bytes is None else seconds_left(self.free_bytes, self.bytes_per_s)
        return {**asdict(self), "full_in_s": left}

    def lines(self, *, is_written: bool) -> Iterator[str]:
        rate = f", {size_text(self.bytes / self.span_s * 3600)} an hour" if self.span_s >= _SPAN_S else ""
        span = f" in {left_text(self.span_s)}" if self.span_s else ""
        yield f"size: {size_text(self.bytes)}{span}{rate}"
        if is_written and self.free_bytes is not None:
            yield f"now: {forecast_text(self.free_bytes, self.bytes_per_s)}"


def _disk_of(folder: Path, topics: Sequence[Mapping[str, Any]], recorder: RecorderFacts | None) -> _Disk:
    span = max((row["last"] for row in topics), default=0.0) - min((row["first"] for row in topics), default=0.0)
    size = sum(_size(path) for path in folder.rglob("*"))
    return _Disk(size, max(0.0, span), _free(folder), recorder.bytes_per_s if recorder else None)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except OSError:  # it is gone meanwhile
        return 0


def _free(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except OSError:
        return None


def _show_only_waiting(waiting: Mapping[str, Sequence[Source]], *, as_json: bool) -> int:
    """Nothing is recorded yet, and something waits to be."""
    if as_json:
        print_json({"elsewhere": {name: _as_json(found) for name, found in waiting.items()}, "complete": False})
    else:
        print_line("nothing is recorded of it yet")
        _show_waiting_elsewhere(waiting)
    return Exit.FAILED


def _show_waiting_elsewhere(waiting: Mapping[str, Sequence[Source]]) -> None:
    """Lines for each session of this machine of which something waits to be recorded."""
    for name, sources in waiting.items():
        for line in waiting_lines(name, sources):
            print_line(line)


def _as_json(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [asdict(source) for source in sources]


def proof_to_json(proof: Proof) -> dict[str, Any]:
    """A proof as JSON data."""
    return {**asdict(proof), "complete": proof.complete}
