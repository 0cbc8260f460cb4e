"""Ledgers for tests, made by hand: a real ledger, of records that are written down in the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ether.ledger.writer import LedgerWriter
from ether.wire.codec import Body, encode
from ether.wire.entries import Batch, Entry, Kind
from ether.wire.head import MessageIds

BEGAN = 1_700_000_000.0


@dataclass
class Source:
    """A source with an outbox of its own, whose entries are numbered as they are made."""

    name: str
    outbox: str = ""
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = self.outbox or self.name.encode().hex()[:16].rjust(16, "0")
        self._ids = MessageIds(int(self.outbox, 16))
        self._seqs: dict[str, int] = {}

    def add(
        self, topic: str, value: Any = None, time: float = BEGAN, *, kind: Kind = "data", body: Body | None = None,
        parents: tuple[str, ...] = (), more: Mapping[str, object] | None = None,
    ) -> Entry:  # fmt: skip
        """One entry more; `body` in place of a value, as strangers send it."""
        payload, content_type = encode(value) if body is None else body
        self._seqs[topic] = self._seqs.get(topic, 0) + 1
        entry = Entry(
            len(self.entries) + 1, kind, topic, self._ids.next(int(time * 1000)), self._seqs[topic], time, parents, "",
            content_type, payload, more or {},
        )  # fmt: skip
        self.entries.append(entry)
        return entry

    def batch(self) -> Batch:
        """All of them, as they go to a recorder."""
        return Batch(self.outbox, self.name, len(self.entries), tuple(self.entries))


def make_ledger(folder: Path, sources: Iterable[Source], session: str = "bench", received: float = BEGAN) -> Path:
    """A ledger of these sources, closed by its writer; more can be added to it later."""
    writer = LedgerWriter.open(folder, session)
    try:
        writer.append([source.batch() for source in sources], received)
    finally:
        writer.close()
    return folder
