"""A pipeline's ledger, written entry by entry: a generator, two processors, a summary over what both have said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from git_bench import Asked

from ether.ledger.writer import LedgerWriter
from ether.provenance.context import canonical
from ether.wire.codec import JSON
from ether.wire.entries import Batch, Entry, Kind
from ether.wire.head import MessageIds

NOW = 1_750_000_000.0


class Writer:
    """Writes entries as the outboxes of several instances would; closes the ledger at the end of the block."""

    def __init__(self, folder: Path, session: str = "bench", seed: int = 7) -> None:
        self.folder = folder
        self._ledger = LedgerWriter.open(folder, session)
        self._ids = MessageIds(seed)
        self._numbers: dict[str, int] = {}
        self._waiting: list[tuple[str, Entry]] = []
        self._known: set[str] = set()
        self.now = NOW
        self.run = ""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._ledger.close()

    def put(
        self, source: str, topic: str, value: object, parents: Sequence[str] = (), *, kind: Kind = "data",
        context: str = "", more: Mapping[str, object] | None = None, entry_id: str | None = None,
    ) -> str:  # fmt: skip
        """One entry; returns its id."""
        self.now += 0.001
        made = self._ids.next(int(self.now * 1000)) if entry_id is None else entry_id
        told = {"run": self.run, **(more or {})} if self.run else dict(more or {})
        body = json.dumps(value).encode()
        self._append(source, Entry(0, kind, topic, made, 0, self.now, tuple(parents), context, JSON, body, told))
        return made

    def log(self, source: str, level: str, message: str, *parents: str) -> None:
        self.put(source, "", {"level": level, "message": message, "exception": ""}, parents, kind="log")

    def begin_run(self, run: str, *, config: str = "", name: str = "") -> None:
        self.run = run
        self.put("main", run, {"event": "begin", "name": name or run, "config": config}, kind="run")

    def end_run(self, status: str = "done") -> None:
        self.put("main", self.run, {"event": "end", "status": status}, kind="run")
        self.run = ""

    def keep(self, source: str, asked: Asked, **changes: Any) -> str:
        """A context that a process made, with what it refers to; `changes` replace what it says."""
        for sha256, (name, content) in asked.artifacts.items():
            self.keep_artifact(source, sha256, name, content)
        return self.keep_context(source, {**asked.told, **changes})

    def keep_artifact(self, source: str, sha256: str, name: str, content: bytes) -> None:
        if sha256 not in self._known:
            self._known.add(sha256)
            entry = Entry(0, "artifact", name, sha256, 0, self.now, (), "", "application/octet-stream", content)
            self._append(source, entry)

    def keep_context(self, source: str, told: Mapping[str, Any]) -> str:
        import hashlib

        content = canonical(told)
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._known:
            self._known.add(sha256)
            self._append(source, Entry(0, "context", "", sha256, 0, self.now, (), "", JSON, content))
        return sha256

    def flush(self) -> None:
        batches: dict[str, list[Entry]] = {}
        for source, entry in self._waiting:
            batches.setdefault(source, []).append(entry)
        self._waiting.clear()
        self._ledger.append(
            [
                Batch(f"{source:0>16}", source, entries[-1].number, tuple(entries))
                for source, entries in batches.items()
            ],
            self.now,
        )

    def _append(self, source: str, entry: Entry) -> None:
        number = self._numbers[source] = self._numbers.get(source, 0) + 1
        self._waiting.append((source, entry._replace(number=number)))


def write_pipeline(writer: Writer, contexts: Mapping[str, str] | None = None, rounds: int = 1) -> dict[str, str]:
    """Rounds of the pipeline; returns the ids of the last one by name. The summary's parent is the second result;
    the first it had heard before."""
    about = dict(contexts or {})
    ids: dict[str, str] = {}

    def put(source: str, topic: str, value: object, *parents: str, heard: Sequence[str] = ()) -> str:
        more = {"heard": list(heard)} if heard else {}
        return writer.put(source, topic, value, parents, context=about.get(source, ""), more=more)

    for number in range(rounds):
        ids["start"] = put("main", "start", None)
        ids["value"] = put("generator", "value", {"x": number}, ids["start"], heard=[ids["start"]])
        ids["double"] = put("doubler", "double", 2 * number, ids["value"], heard=[ids["value"]])
        ids["square"] = put("squarer", "square", number**2, ids["value"], heard=[ids["value"]])
        ids["summary"] = put(
            "summarizer", "summary", [2 * number, number**2], ids["square"], heard=[ids["double"], ids["square"]]
        )
    return ids
