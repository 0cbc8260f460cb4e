"""Sources and recorders of one session in this process, over a broker in memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from patience import patience

from ether.connection.link import Link
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.recording.recorder import Recorder
from ether.recording.writer import RecordWriter, SavingOptions
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("bench")


class Rig:
    """Members of one session in this process, over a broker in memory."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.broker = LoopbackBroker(max_packet_bytes=4 << 20)
        self.links: dict[str, Link] = {}

    def link(self, name: str) -> Link:
        link = self.links[name] = Link(LoopbackTransport(self.broker, name), name)
        link.open(patience(5))
        self._stack.callback(link.close)
        return link

    def record_writer(self, name: str = "camera", **options: Any) -> RecordWriter:
        record_writer = RecordWriter(self.link(name), TOPICS, SavingOptions(self.folder / "outbox", **options))
        record_writer.open()
        self._stack.callback(record_writer.close, 0.0)
        return record_writer

    def recorder(self, name: str = "recorder", topics: Any = "all", **options: Any) -> Recorder:
        recorder = Recorder(topics, str(self.folder / name), **options)
        recorder.attach(self.link(name), TOPICS, name)
        self._stack.callback(recorder.detach)
        return recorder

    def records(self, name: str = "recorder", *kinds: str) -> list[StoredRecord]:
        with LedgerReader.open(self.folder / name) as reader:
            return list(reader.records(RecordFilter(kinds=kinds or ("data", "record"))))

    def waiting(self) -> list[Path]:
        return list((self.folder / "outbox").glob("*.outbox"))
