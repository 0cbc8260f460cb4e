"""What a program's configuration names counts: a value is acknowledged when it is in the ledger of that folder,
whatever other recorders of the session have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loopback_rig import TOPICS, Rig
from patience import patience
from running_brokers import soon

from ether.cli.data.rescue import rescue
from ether.connection.deadline import Deadline
from ether.errors import NotSaved
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.recording.options import SavingOptions
from ether.recording.outbox_file import OutboxFile
from ether.recording.receipt_rules import ReceiptTable, RecorderAbout
from ether.recording.sources import orphaned_outboxes
from ether.system.folders import outbox_folder
from ether.system.processes import this_place
from ether.wire.entries import Entry, pack_entries
from ether.wire.topics import matches


def value(writer: Any, topic: str, n: int) -> Any:
    return writer.publish(topic, TOPICS.data(topic), n, 1, (), {})


def test_acknowledged_means_in_the_folder_that_the_configuration_names(rig: Rig) -> None:
    rig.recorder("other")
    named = str(rig.folder / "named")
    guest = rig.record_writer("guest", topics=("temp",), ledger=(this_place().host, named))
    leader = rig.record_writer("leader")
    first, beside, theirs = value(guest, "temp", 1), value(guest, "else", 2), value(leader, "temp", 3)
    theirs.wait(patience(5))
    beside.wait(patience(5))
    with pytest.raises(NotSaved, match=r"nobody records to .*named"):
        first.wait(0.2)
    assert not first.done
    assert guest.flush(Deadline(0.1)) > 0
    recorder = rig.recorder("named", ["temp"])
    first.wait(patience(5))
    assert guest.flush(Deadline(patience(5))) == 0
    assert [record.value for record in rig.records("named")] == [1]
    recorder.detach()
    second = value(guest, "temp", 4)
    assert soon(lambda: 4 in [record.value for record in rig.records("other")], 5)
    assert not second.done
    assert first.done, "what was acknowledged stays so"


def test_the_rules() -> None:
    ledger = ("here", "/x")
    table = ReceiptTable(matches, ledger, ("temp",))
    other, own = RecorderAbout("a", "1", None, "here", "/y"), RecorderAbout("b", "1", ("temp",), "here", "/x")
    assert table.saved({None: 9})
    assert not table.is_saved(5, "temp")
    assert table.is_saved(5, "else")
    assert table.settled_to([other]) == 0
    assert table.saved({None: 9, ("temp",): 7}, 7)
    assert table.is_saved(7, "temp")
    assert not table.is_saved(8, "temp")
    assert not table.is_saved(8, None), "what was asked for by name belongs there, too"
    assert table.settled_to([other, own]) == 7
    assert not table.saved({None: 9, ("temp",): 7}, 3), "never lowered"
    assert table.troubled({"b": "the disk is full"})
    assert table.problem("temp", [other, own]) == "the disk is full"
    assert table.problem("else", [other, own]) == ""


def test_the_options_travel_to_an_instance() -> None:
    from pathlib import Path

    options = SavingOptions(Path("/o"), ledger=("here", "/x"))
    assert SavingOptions.from_value(options.to_value()) == options
    assert SavingOptions.from_value(SavingOptions(Path("/o")).to_value()).ledger is None


# -- what a killed program has left


def _left_by_a_dead(rig: Rig, ledger: Path, count: int) -> None:
    """An outbox of a program whose configuration named that folder."""
    file = OutboxFile.create(rig.folder / "outbox", "dead", str(ledger))
    for n in range(1, count + 1):
        entry = Entry(n, "record", "temp", f"id{n}", n, 1.0, (), "", "application/json", b"%d" % n)
        file.append([(n, pack_entries([entry]))])
    file._database.close()


def test_what_a_killed_program_has_left_goes_to_the_ledger_that_it_named(rig: Rig) -> None:
    """Not to that of the program which takes it over; and that one's end is not held up by it."""
    _left_by_a_dead(rig, rig.folder / "named", 20)
    rig.recorder("other")
    writer = rig.record_writer("second")
    writer.adopt()
    assert soon(lambda: len(rig.records("other")) == 20, 10), "whoever records gets it, too"
    assert writer.bring_home(patience(5)) == []
    writer.close(patience(5))
    assert len(rig.waiting()) == 1, "it is not let go of"
    third = rig.record_writer("third")
    rig.recorder("named")
    third.adopt()
    assert soon(lambda: len(rig.records("named")) == 20, 10)
    assert third.bring_home(patience(5)) == []
    third.close(patience(5))
    assert rig.waiting() == []
    assert len(rig.records("other")) == 20, "once"


def test_rescue_brings_each_into_its_ledger_or_all_into_one(tmp_path: Path) -> None:
    for session, into in (("apart", None), ("together", tmp_path / "one")):
        for name in ("a", "b"):
            file = OutboxFile.create(outbox_folder(session), name, str(tmp_path / session / name))
            entry = Entry(1, "record", "temp", f"id-{session}-{name}", 1, 1.0, (), "", "application/json", b"1")
            file.append([(1, pack_entries([entry]))])
            file._database.close()
        assert rescue([session], into=into) == 0
        assert orphaned_outboxes(session) == []
        for name in ("a", "b"):
            with LedgerReader.open(into or tmp_path / session / name) as reader:
                assert name in [record.source for record in reader.records(RecordFilter(topic="temp"))]
