"""Outbox files that are removed, moved or copied while their process lives: nothing that waits is lost by a later kill,
and the totals still have it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback_rig import Rig
from patience import patience
from running_brokers import soon

from ether.connection.deadline import Deadline
from ether.recording import sources
from ether.recording.outbox_file import adopt
from ether.recording.writer import RecordWriter
from ether.wire.entries import unpack_entries


def _given(writer: RecordWriter, first: int, last: int) -> None:
    for n in range(first, last + 1):
        writer.record("record", "v", n, (), {})


def _unlinked(folder: Path) -> None:
    for path in folder.glob("*.outbox"):
        path.unlink()


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def _replaced(folder: Path) -> None:
    """By an older copy, as a sync tool does it."""
    for path in folder.glob("*.outbox"):
        copy = path.with_name("copy")
        shutil.copy(path, copy)
        copy.replace(path)


@pytest.mark.parametrize("harm", [_unlinked, _moved, shutil.rmtree, _replaced])
def test_what_waits_is_found_after_a_kill(rig: Rig, harm: Callable[[Path], None]) -> None:
    writer = rig.record_writer()
    _given(writer, 1, 20)
    folder = rig.folder / "outbox"
    assert soon(lambda: writer._sender is not None and writer._sender._own.file.last == writer._queue.head, 10)
    before = writer._sender.path
    harm(folder)
    _given(writer, 21, 30)
    assert soon(lambda: writer._sender is not None and writer._sender.path != before, 10)
    head = writer._queue.head
    assert soon(lambda: [it.count for it in sources._sources_in(folder) if it.alive] == [head], 10), (
        "the totals have it"
    )
    assert soon(lambda: writer._sender is not None and writer._sender._own.file.last == head, 10), "and so has the file"
    content = shutil.copytree(folder, rig.folder / "killed")  # as a kill would leave it
    (content / writer._sender.path.name).rename(content / "only.outbox")
    (content / f"{writer._sender.path.name}-wal").rename(content / "only.outbox-wal")
    numbers = []
    for orphan in adopt(content):
        if orphan.path.name == "only.outbox":
            rows = orphan.read(1, head, 1000, 1 << 20)
            numbers = [entry.number for _, packed in rows for entry in unpack_entries(packed)]
        orphan.close()
    assert numbers == list(range(1, head + 1))
    rig.recorder()
    assert writer.flush(Deadline(patience(10))) == 0
    assert [record.value for record in rig.records()] == list(range(1, 31))


def test_a_copy_of_an_outbox_is_sent_after_it_and_recorded_once(rig: Rig) -> None:
    first = rig.record_writer("first")
    _given(first, 1, 10)
    assert soon(lambda: first._sender is not None and first._sender._own.file.last == first._queue.head, 10)
    outbox = first._sender.path
    second = rig.record_writer("second")
    for at in range(2):
        for ending in ("", "-wal"):
            shutil.copy(f"{outbox}{ending}", f"{outbox.with_suffix('')} (copy {at}).outbox{ending}")
    second.adopt()
    rig.recorder()
    assert first.flush(Deadline(patience(10))) == 0
    assert second.bring_home(patience(10)) == []
    assert soon(lambda: len(rig.waiting()) <= 2, 15), "the copies are gone"
    assert [record.value for record in rig.records()] == list(range(1, 11))
