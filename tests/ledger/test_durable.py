"""What is on the disk when a call returns: the order of syncs and names, without a power loss (test_power_loss.py)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ether.ledger import durable
from ether.ledger.objects import Objects

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds out what is synced by Linux's /proc")

_fsync, _replace = os.fsync, os.replace


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was synced, with which content or names, and what was given a name."""
    done: list[tuple[str, str]] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append(("sync folder", path.name) if path.is_dir() else ("sync file", path.read_text()))
        _fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        done.append(("name", Path(target).name))
        _replace(source, target)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(durable.os, "replace", replace)
    return done


@needs_proc
def test_a_whole_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, steps: list[tuple[str, str]]) -> None:
    durable.write_whole(tmp_path / "seal", [b"one ", b"two"])
    assert steps == [("sync file", "one two"), ("name", "seal")]


@needs_proc
def test_a_file_of_another_library_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    (tmp_path / "table.part").write_text("rows")
    durable.replace_file(tmp_path / "table.part", tmp_path / "table")
    assert steps == [("sync file", "rows"), ("name", "table")]


@needs_proc
def test_the_names_of_new_folders_are_on_the_disk(tmp_path: Path, steps: list[tuple[str, str]]) -> None:
    durable.make_folder(tmp_path / "a" / "b")
    assert steps == [("sync folder", tmp_path.name), ("sync folder", "a")]
    durable.make_folder(tmp_path / "a" / "b")
    assert len(steps) == 2, "they were there"


def test_a_file_that_cannot_be_synced_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "seal").write_text("old")
    monkeypatch.setattr(durable.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        durable.write_whole(tmp_path / "seal", [b"new"])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("seal", "old")]


def test_a_ledger_remembers_some_of_the_payloads_that_it_has_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera puts a million in a day; all of their hashes would fill the recorder's memory."""
    monkeypatch.setattr("ether.ledger.objects._REMEMBERED", 3)
    objects = Objects(tmp_path)
    payloads = {hashlib.sha256(b"%d" % n).hexdigest(): b"%d" % n for n in range(10)}
    for _ in range(2):
        for sha256, payload in payloads.items():
            objects.put({sha256: payload})
            assert len(objects._durable) <= 3
    assert {sha256: objects.get(sha256) for sha256 in payloads} == payloads
