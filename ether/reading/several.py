"""Records of several ledgers, or of several runs of one, as one: an iterable and tables, as of a single ledger.

Each record says its session (`Record.session`), which is a column of the tables. Everything else is as in
`ether.reading.data`. The trap: a row number and an id mean something only within their ledger.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from ether.errors import QueryMistake
from ether.ledger.places import data_folder
from ether.reading.data import Data, Query, Record
from ether.reading.filter_rules import Where
from ether.reading.find_runs import FoundRun, Sessions, find_runs, is_pattern, ledgers_of
from ether.reading.query import DataRequest, ask
from ether.reading.run_facts import WhichTrials, of_run
from ether.version import VERSION


class SeveralData(Data):
    """The records of several `Data`, in the order of their times."""

    def __init__(self, parts: Sequence[Data], home: Path, said: Mapping[str, str]) -> None:
        """`home` stands for the ledgers' folders where one is named, and `said` for the user's words."""
        self.parts = tuple(parts)
        super().__init__(home, Query(said=said))
        self._sessions = [part.session for part in self.parts]

    def __iter__(self) -> Iterator[Record]:
        streams = map(self._stream, self.parts, self._sessions)
        return heapq.merge(*streams, key=lambda record: record.corrected_time)

    def _stream(self, part: Data, session: str) -> Iterator[Record]:
        part.on_read = self.on_read
        return (replace(record, session=session) for record in part)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __bool__(self) -> bool:
        return any(self.parts)

    @property
    def last(self) -> Record | None:
        """The latest record, None where there is none."""
        found = [
            replace(last, session=session)
            for part, session in zip(self.parts, self._sessions, strict=True)
            if (last := part.last) is not None
        ]
        return max(found, key=lambda record: record.corrected_time, default=None)

    def topics(self) -> list[str]:
        """The topics of these records."""
        return sorted({topic for part in self.parts for topic in part.topics()})

    @property
    def session(self) -> str:
        """The sessions that were recorded, joined by commas."""
        return ", ".join(dict.fromkeys(self._sessions))

    def held(self) -> SeveralData:
        """The same records, without those that come to the ledgers later."""
        held = SeveralData([part.held() for part in self.parts], self.folder, self.query.said)
        held.on_read = self.on_read
        return held

    def metadata(self) -> dict[str, Any]:
        """The origin of a table: sessions, ledgers, topics, query, runs with their metadata, version of Ether. Runs
        have their session in front: `session: run`."""
        told = [part.metadata() for part in self.parts]
        runs = {f"{one['session']}: {run}": metadata for one in told for run, metadata in one.get("runs", {}).items()}
        return {
            "sessions": sorted(set(self._sessions)), "ledgers": sorted({str(part.folder) for part in self.parts}),
            "topic": self.topics(), "query": dict(self.query.said), **({"runs": runs} if runs else {}),
            "ether": VERSION,
        }  # fmt: skip


def ask_any(
    request: DataRequest, wanted: Sessions | None, runs: Iterable[FoundRun] | Where | None,
    trial: WhichTrials | None, own: str | None, *, now: float, environment: Mapping[str, str],
) -> Data:  # fmt: skip
    """The records that a user asks for: of one ledger, of several (`wanted`), or of `runs`, which may lie in several.
    `own` is the session that is read where none is named. Raises as `ask`."""
    if runs is not None:
        found = find_runs(wanted, runs, None, None, now=now, environment=environment) if _is_condition(runs) else runs
        return _of_runs(request, found, trial, now, environment)
    if wanted is not None and (is_pattern(wanted) or not isinstance(wanted, (str, os.PathLike))):
        folders = ledgers_of(wanted, environment)
        parts = [of_run(ask(request, folder, now=now, environment=environment), trial) for folder in folders]
        return SeveralData(parts, data_folder(environment), parts[0].query.said if parts else {})
    ledger = own if wanted is None else wanted
    assert ledger is None or isinstance(ledger, (str, os.PathLike))
    return of_run(ask(request, ledger, now=now, environment=environment), trial)


def _is_condition(runs: object) -> TypeGuard[Where]:
    """Whether runs are given by a condition, and not one by one."""
    if callable(runs) or isinstance(runs, (str, Mapping)):
        return True
    return isinstance(runs, (list, tuple)) and bool(runs) and not any(isinstance(run, FoundRun) for run in runs)


def _of_runs(
    request: DataRequest, runs: Any, trial: WhichTrials | None, now: float, environment: Mapping[str, str]
) -> Data:
    if request.run is not None:
        raise QueryMistake("both run= and runs= are given; runs= alone says which runs are meant")
    parts: list[Data] = []
    words: dict[str, str] = {}
    for run in runs:
        if not isinstance(run, FoundRun):
            raise QueryMistake(f"runs= takes what ether.runs() returns, or a condition; found {run!r:.80}")
        asked = ask(replace(request, run=run.run), run.folder, now=now, environment=environment)
        parts.append(of_run(asked, trial))
        words = {**parts[-1].query.said, "run": ", ".join(filter(None, (words.get("run"), run.run)))}
    return SeveralData(parts, data_folder(environment), words)
