"""A ledger that is put back from a copy, unlinked, replaced or removed under its recorder: A2, A3 and B6 of the users'
faults. Nothing is acknowledged into a file that nobody will find, and what was acknowledged and is gone is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.errors import NotSaved
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.recording.completeness_rules import Proof, prove


@pytest.fixture(params=EMBEDDED)
def ether(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ether]:
    own = Ether()
    own.tap({"session": f"moved-{tmp_path.name}", "broker": {"engine": request.param},
             "record": {"folder": str(tmp_path / "led")}})  # fmt: skip
    yield own
    own.shutdown()


def save(ether: Ether, first: int, last: int) -> list[Any]:
    saved = [ether.record({"n": n}, "v") for n in range(first, last + 1)]
    saved[-1].wait(timeout_s=patience(20))
    return saved


def kept(folder: Path) -> list[int]:
    with LedgerReader.open(folder) as reader:
        return sorted(record.value["n"] for record in reader.records(RecordFilter(topic="v")))  # type: ignore[index]


def proof_of(folder: Path) -> Proof:
    with LedgerReader.open(folder) as reader:
        return prove(reader.outboxes(), reader.duplicates())


def restart_recorder(ether: Ether) -> None:
    (pid,) = [member["pid"] for member in ether.instances() if member["name"] == "recorder"]
    os.kill(pid, signal.SIGKILL)
    assert soon(
        lambda: any(m["name"] == "recorder" and m["state"] == "ready" and m["pid"] != pid for m in ether.instances()),
        10,
    )


def test_a2_a_ledger_that_was_put_back_from_a_copy_names_what_it_lost(ether: Ether, tmp_path: Path) -> None:
    folder, copy = tmp_path / "led", tmp_path / "copy"
    save(ether, 0, 99)
    shutil.copytree(folder, copy)
    save(ether, 100, 199)
    assert ether.flush(patience(5)) == 0
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    restart_recorder(ether)
    save(ether, 200, 299)
    there = kept(folder)
    missing = [n for n in range(300) if n not in there]
    proof = proof_of(folder)
    assert set(missing) <= set(range(100, 200))
    assert proof.total - proof.durable == len(missing) == sum(gap.count for gap in proof.gaps)
    assert missing == [] or all("acknowledged before" in gap.why for gap in proof.gaps)


def test_a_folder_that_was_made_anew_names_what_it_lost(ether: Ether, tmp_path: Path) -> None:
    folder = tmp_path / "led"
    save(ether, 0, 99)
    assert ether.flush(patience(5)) == 0
    shutil.rmtree(folder)
    restart_recorder(ether)
    save(ether, 100, 199)
    missing = set(range(200)) - set(kept(folder))
    assert missing <= set(range(100))
    lost = sum(gap.count for gap in proof_of(folder).gaps if gap.source == "main")
    assert len(missing) <= lost <= len(missing) + 10  # the explanations of the program count, too


def unlinked(folder: Path) -> None:
    (folder / "ledger.db").unlink()


def log_unlinked(folder: Path) -> None:
    (folder / "ledger.db-wal").unlink()


def replaced(folder: Path) -> None:
    shutil.copy(folder / "ledger.db", folder / "copy.db")
    (folder / "copy.db").replace(folder / "ledger.db")


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("harm", [unlinked, log_unlinked, replaced, removed, moved])
def test_a3_nothing_is_acknowledged_into_a_file_that_is_gone(
    ether: Ether, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The recorder notices, says so, and begins again at the same place; what waits arrives there."""
    folder = tmp_path / "led"
    ether.record({"n": 0}, "v").wait(timeout_s=patience(20))
    harm(folder)
    saved = [ether.record({"n": n}, "v") for n in range(1, 101)]
    with contextlib.suppress(NotSaved):  # it may have been told of the harm
        saved[-1].wait(timeout_s=patience(20))
    assert soon(lambda: saved[-1].done, 20)
    assert set(range(1, 101)) <= set(kept(folder))


def test_b6_where_the_folder_went_its_savers_are_told_why_and_it_recovers(ether: Ether, tmp_path: Path) -> None:
    folder = tmp_path / "led"
    ether.record({"n": 0}, "v").wait(timeout_s=patience(20))
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("no folder can be made here")
    saved = ether.record({"n": 1}, "v")
    with pytest.raises(NotSaved, match=r"led cannot be used: (Not a directory|File exists)") as told:
        saved.wait(timeout_s=patience(20))
    assert "Traceback" not in str(told.value)
    assert not told.value.lost
    folder.unlink()
    assert soon(lambda: saved.done, 20)
    assert 1 in kept(folder)
