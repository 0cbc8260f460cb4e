"""The outbox's file: what a dead process left is there, once, for whoever comes next."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import databases
import pytest

from ether.errors import OutboxFailed
from ether.recording import outbox_file as outbox
from ether.recording.outbox_file import OutboxFile, adopt

ADOPTER = """
import sys
from pathlib import Path
from ether.recording.outbox_file import adopt

print(len(list(adopt(Path(sys.argv[1])))))
"""


def rows(first: int, last: int, size: int = 10) -> list[tuple[int, bytes]]:
    return [(number, bytes([number % 256]) * size) for number in range(first, last + 1)]


def test_entries_come_back_in_order_and_in_portions(tmp_path: Path) -> None:
    file = OutboxFile.create(tmp_path, "camera")
    file.append(rows(1, 50))
    file.append(rows(51, 100))
    assert file.read(1, 100, 1000, 1 << 20) == rows(1, 100)
    assert file.read(98, 100, 2, 1 << 20) == rows(98, 99)
    assert file.read(5, 100, 1000, 25) == rows(5, 6)
    assert file.read(5, 100, 1000, 1) == rows(5, 5), "one at least, however large"
    assert (file.first, file.last, file.count, file.size) == (1, 100, 100, 1000)
    file.close()


def test_what_was_acknowledged_is_forgotten_and_an_empty_file_goes(tmp_path: Path) -> None:
    file = OutboxFile.create(tmp_path, "camera")
    file.append(rows(1, 10))
    file.drop(4)
    assert (file.first, file.count, file.size) == (5, 6, 60)
    file.drop(4)
    file.drop(10)
    assert (file.first, file.last, file.count) == (None, 10, 0)
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_gap_takes_the_place_of_what_was_given_up(tmp_path: Path) -> None:
    file = OutboxFile.create(tmp_path, "camera")
    file.append(rows(1, 10))
    file.replace(4, (4, b"gap"))
    assert file.read(1, 10, 100, 1 << 20) == [(4, b"gap"), *rows(5, 10)]
    assert (file.first, file.count, file.size) == (4, 7, 63)
    file.close()


def test_nobody_takes_over_from_the_living(tmp_path: Path) -> None:
    file = OutboxFile.create(tmp_path, "camera")
    file.append(rows(1, 3))
    assert list(adopt(tmp_path)) == []
    done = subprocess.run([sys.executable, "-c", ADOPTER, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    file.close()
    [found] = adopt(tmp_path)
    assert (found.outbox, found.source, found.read(1, 9, 9, 99)) == (file.outbox, "camera", rows(1, 3))
    assert list(adopt(tmp_path)) == [], "one takes it over"
    found.close()


WRITER = """
import os, signal, sys
from pathlib import Path
from ether.recording.outbox_file import OutboxFile

file = OutboxFile.create(Path(sys.argv[1]), "camera")
for n in range(1, 1000):
    file.append([(n, b"x" * 100)])
    print(n, flush=True)
    if n == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("number", [1, 7, 300])
def test_what_was_appended_survives_a_kill(tmp_path: Path, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), str(number)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[-1] == str(number)
    [found] = adopt(tmp_path)
    assert [n for n, _ in found.read(1, 999, 999, 1 << 20)] == list(range(1, number + 1))
    found.drop(number)
    found.close()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_put_aside_and_named(tmp_path: Path) -> None:
    good = OutboxFile.create(tmp_path, "z")
    good.append(rows(1, 1))
    good.close()
    (tmp_path / "a~0.outbox").write_bytes(b"this is not a database, " * 100)
    adopted = adopt(tmp_path)
    found = next(adopted)
    assert found.source == "z"
    with pytest.raises(OutboxFailed, match=r"a~0\.outbox"):
        next(adopted)
    assert (tmp_path / "a~0.outbox.damaged").exists()
    found.close()


def test_a_file_that_cannot_be_made_leaves_no_connection_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = databases.open_databases()
    monkeypatch.setattr(outbox, "_SCHEMA", ("CREATE TABLE half of one",))
    with pytest.raises(OutboxFailed, match="syntax error"):
        OutboxFile.create(tmp_path, "camera")
    assert databases.open_databases() == before


def test_a_file_that_was_never_begun_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a~0.outbox").write_bytes(b"")
    assert list(adopt(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["while it is opened", "before it is locked"])
def test_who_finds_its_new_file_taken_for_an_orphan_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A maker has a file before it has its lock; whoever looks for orphans in between removes it."""
    opened, taken = outbox._opened, []

    def interrupted(path: Path, *, new: bool) -> sqlite3.Connection | None:
        if not new or taken:
            return opened(path, new=new)
        taken.append(path)
        path.touch()
        if when == "before it is locked":
            assert list(adopt(tmp_path)) == []
            assert not path.exists()
            raise sqlite3.OperationalError("disk I/O error")
        database = opened(path, new=True)
        path.unlink()
        return database

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_opened", interrupted)
        made = OutboxFile.create(tmp_path, "cam")
    assert made.path not in taken
    assert made.path.exists()
    made.append([(1, b"one")])
    assert made.read(1, 1, 10, 100) == [(1, b"one")]
    made.drop(1)
    made.close()


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxFailed, match="file"):
        OutboxFile.create(tmp_path / "file", "camera")


def test_a_gap_may_end_inside_of_a_row(tmp_path: Path) -> None:
    file = OutboxFile.create(tmp_path, "camera")
    file.append([(5, b"one to five"), (7, b"six, seven")])
    file.replace(3, (3, b"gap"))
    file.exchange(5, [(4, b"four"), (5, b"five")])
    file.exchange(6, [(6, b"there is no such row")])
    assert file.read(1, 9, 9, 99) == [(3, b"gap"), (4, b"four"), (5, b"five"), (7, b"six, seven")]
    assert (file.first, file.count, file.size) == (3, 4, 21)
    file.close()
