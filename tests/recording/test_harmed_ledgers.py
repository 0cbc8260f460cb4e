"""Ledger folders that are moved, replaced, unlinked, emptied, made read-only, filled, or on a clock that steps, under a
running recorder. The driver keeps a list of its own of what was given and acknowledged: nothing is acknowledged that is
not there in the end, and `ether status` names the numbers and the source of what is missing exactly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from loopback_rig import TOPICS, Rig
from patience import patience
from running_brokers import soon

from ether.cli.data.status import status
from ether.connection.deadline import Deadline
from ether.errors import LedgerError, NotSaved
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.writer import LedgerWriter
from ether.recording import recorder as recorder_module
from ether.recording import source_page, sources
from ether.recording.recorder import Recorder
from ether.recording.saved import Saved
from ether.recording.writer import RecordWriter, SavingOptions
from ether.system.clock import wall_time
from ether.system.folders import outbox_folder

EACH = 40


@dataclass
class Bench:
    """A recorder, a source, and what the driver knows."""

    rig: Rig
    home: Path
    every_s: float = 0.0
    """`sync_every_s` of the recorder and of the source."""
    recorder: Recorder = field(init=False)
    writer: RecordWriter = field(init=False)
    given: dict[int, Saved] = field(default_factory=dict)
    """By number in the outbox."""

    def __post_init__(self) -> None:
        self.copy, self.aside = self.rig.folder / "copy", self.rig.folder / "aside"
        self.recorder = self.begin("recorder")
        options = SavingOptions(outbox_folder("bench"))
        options = replace(options, gather_s=self.every_s) if self.every_s else options
        self.writer = RecordWriter(self.rig.link("camera"), TOPICS, options)
        self.writer.open()
        self.rig._stack.callback(self.writer.close, 0.0)

    @property
    def folder(self) -> Path:
        """The ledger."""
        return self.home / "led"

    def begin(self, link: str) -> Recorder:
        """Start the recorder; `link` is a new name each time."""
        recorder = Recorder("all", str(self.folder), logs=False, sync_every_s=self.every_s)
        recorder.attach(self.rig.link(link), TOPICS, "recorder")
        self.rig._stack.callback(recorder.detach)
        return recorder

    def save(self, *, size: int = 10) -> list[int]:
        """Give some values; returns their numbers."""
        numbers = []
        for _ in range(EACH):
            saved = self.writer.record("record", "v", "x" * size, (), {})
            self.given[saved._number] = saved
            numbers.append(saved._number)
        return numbers

    def saved(self, **options: int) -> None:
        """Give some values, and see them acknowledged."""
        self.given[self.save(**options)[-1]].wait(patience(10))
        assert self.writer.flush(Deadline(patience(10))) == 0

    def acknowledged(self) -> set[int]:
        """What is on disk, as the sources are told."""
        return {number for number, saved in self.given.items() if saved.done}

    def kept(self) -> set[int]:
        """What is in the ledger."""
        with LedgerReader.open(self.folder) as reader:
            return {record.number for record in reader.records(RecordFilter(topic="v"))}

    def waits(self) -> int:
        """How many values the source says are waiting."""
        return sum(source.count for source in sources.sources_of("bench"))

    def restart(self) -> None:
        """The recorder's process is another one from now on."""
        with contextlib.suppress(LedgerError):
            self.recorder.detach()
        self.recorder = self.begin("recorder-again")


@pytest.fixture
def every_s() -> float:
    return 0.0


@pytest.fixture
def bench(rig: Rig, tmp_path: Path, every_s: float) -> Bench:
    return Bench(rig, tmp_path, every_s)


def copied(bench: Bench) -> None:
    shutil.copytree(bench.folder, bench.copy, dirs_exist_ok=True)


def put_back(bench: Bench, *names: str) -> None:
    """Files of the older copy replace those of now."""
    for name in names:
        (bench.folder / name).unlink(missing_ok=True)
        if (bench.copy / name).exists():
            shutil.copy(bench.copy / name, bench.folder / name)


def moved(bench: Bench) -> None:
    bench.folder.rename(bench.aside)


def removed(bench: Bench) -> None:
    shutil.rmtree(bench.folder)


def replaced_by_older(bench: Bench) -> None:
    shutil.rmtree(bench.folder)
    shutil.copytree(bench.copy, bench.folder)


def older_and_restarted(bench: Bench) -> None:
    replaced_by_older(bench)
    bench.restart()


def removed_and_restarted(bench: Bench) -> None:
    with contextlib.suppress(LedgerError):
        bench.recorder.detach()
    shutil.rmtree(bench.folder)
    bench.restart()


def unlinked(name: str) -> Callable[[Bench], None]:
    return lambda bench: (bench.folder / name).unlink()


def older_database(bench: Bench) -> None:
    put_back(bench, "ledger.db")


def older_database_and_log(bench: Bench) -> None:
    put_back(bench, "ledger.db", "ledger.db-wal")


def older_everything(bench: Bench) -> None:
    put_back(bench, "ledger.db", "ledger.db-wal", "ledger.db-shm", "head")


def written_over(*names: str) -> Callable[[Bench], None]:
    """As `cp` does it: the files stay, and have the content of the older copy."""

    def harm(bench: Bench) -> None:
        for name in names:
            (bench.folder / name).write_bytes((bench.copy / name).read_bytes())

    return harm


def link_to_another(bench: Bench) -> None:
    """The folder is a link, which leads to another disk from now on."""
    bench.folder.rename(bench.aside)
    (bench.rig.folder / "other").mkdir()
    bench.folder.symlink_to(bench.rig.folder / "other")


def same_bytes(bench: Bench) -> None:
    shutil.copy(bench.folder / "ledger.db", bench.folder / "new")
    (bench.folder / "new").replace(bench.folder / "ledger.db")


def emptied(bench: Bench) -> None:
    for file in bench.folder.iterdir():
        if file.is_file():
            file.unlink()


def symlinked(bench: Bench) -> None:
    """Moved to another place, with a link where it was: it is still the same file."""
    (bench.folder / "ledger.db").rename(bench.rig.folder / "elsewhere.db")
    (bench.folder / "ledger.db").symlink_to(bench.rig.folder / "elsewhere.db")


def other_ledger(bench: Bench) -> None:
    """Of another session: the recorder must not write there."""
    bench.folder.rename(bench.aside)
    LedgerWriter.open(bench.folder, "somebody").close()


def a_file(bench: Bench) -> None:
    bench.folder.rename(bench.aside)
    bench.folder.write_text("in the way")


def brought_back(bench: Bench) -> None:
    """What was moved away, or stands in the way, is put right again."""
    if bench.folder.is_dir():
        shutil.rmtree(bench.folder)
    else:
        bench.folder.unlink()
    bench.aside.rename(bench.folder)


HARMS: dict[str, Callable[[Bench], None]] = {
    "moved": moved,
    "removed": removed,
    "removed and restarted": removed_and_restarted,
    "replaced by an older copy": replaced_by_older,
    "replaced by an older copy and restarted": older_and_restarted,
    "ledger.db unlinked": unlinked("ledger.db"),
    "ledger.db-wal unlinked": unlinked("ledger.db-wal"),
    "ledger.db-shm unlinked": unlinked("ledger.db-shm"),
    "head unlinked": unlinked("head"),
    "lock unlinked": unlinked("lock"),
    "an older ledger.db": older_database,
    "an older ledger.db and log": older_database_and_log,
    "all files older": older_everything,
    "an older copy written over it": written_over("ledger.db", "ledger.db-wal", "head"),
    "an older ledger.db written over it": written_over("ledger.db"),
    "an older log written over it": written_over("ledger.db-wal"),
    "the log cut off": lambda bench: os.truncate(bench.folder / "ledger.db-wal", 0),
    "a link to another folder": link_to_another,
    "replaced by the same bytes": same_bytes,
    "emptied": emptied,
    "a link in its place": symlinked,
    "another session's ledger": other_ledger,
    "a file in its place": a_file,
}
WHOLE_COPIES = ("replaced by an older copy", "replaced by an older copy and restarted", "all files older",
                "an older copy written over it")  # fmt: skip
REPAIRS = {"another session's ledger": brought_back, "a file in its place": brought_back}


def checked(bench: Bench, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """`ether status` against the driver's list."""
    kept, acknowledged = bench.kept(), bench.acknowledged()
    missing = bench.given.keys() - kept
    capsys.readouterr()
    code = status(str(bench.folder), json=True)
    said = json.loads(capsys.readouterr().out)
    gaps = [gap for gap in said["gaps"] if gap["source"] == "camera"]
    waiting = [span for span in said["waiting"] if span["source"] == "camera"]
    named = {number for gap in gaps for number in range(gap["first"], gap["last"] + 1)}
    late = {number for span in waiting for number in range(span["first"], span["last"] + 1)}
    assert missing == (named | late) & bench.given.keys(), "exactly what is missing is named"
    assert not named & late
    assert not late & acknowledged, "what was acknowledged does not wait"
    # Rows that were cut off are named as such, too: the ledger knows how many there were, whosever they are.
    lost = sum(gap["count"] for gap in said["gaps"]) + sum(span["count"] for span in waiting)
    assert said["total"] - said["durable"] == lost
    # What waits and is on its way is in order. What the recorder has said of its trouble stands for a moment after the
    # trouble is over.
    stuck = [span for span in said["waiting"] if span["why"]]
    assert (code == 0) == (not said["gaps"] and not stuck and not said["problem"]), said
    return {"missing": missing, **said}


SHORT = ("moved", "replaced by an older copy and restarted", "ledger.db unlinked", "an older ledger.db and log",
         "an older copy written over it", "a link in its place", "another session's ledger")  # fmt: skip
"""Each takes some seconds: what was not acknowledged is sent again after two."""


LONG = bool(os.environ.get("ETHER_LONG"))
MODES = [pytest.param(0.0, id="as it comes"), pytest.param(0.2, id="for cards")]


@pytest.mark.parametrize("every_s", MODES if LONG else MODES[:1])
@pytest.mark.parametrize("kind", HARMS if LONG else SHORT)
def test_nothing_is_acknowledged_that_is_not_there_and_what_is_missing_is_named(
    bench: Bench, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.saved()
    first = bench.acknowledged()
    copied(bench)
    bench.saved()
    before = bench.acknowledged()
    HARMS[kind](bench)
    bench.save()
    if kind in REPAIRS:
        with contextlib.suppress(NotSaved):
            bench.given[max(bench.given)].wait(1.0)  # bare: a wait in vain
        assert not bench.acknowledged() - before, "nothing was acknowledged into what is not the ledger"
        REPAIRS[kind](bench)
    assert soon(lambda: bench.writer.flush(Deadline(0.1)) == 0, 20)
    false = bench.acknowledged() - before - bench.kept()
    assert not false, f"{len(false)} false acknowledgements"
    told = checked(bench, capsys)
    assert told["missing"] <= before
    assert kind not in WHOLE_COPIES or not told["missing"] & first, "what the copy has is there"
    bench.recorder.detach()
    checked(bench, capsys)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here (needs root): {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("every_s", MODES)
def test_a_disk_that_is_filled(rig: Rig, tmp_path: Path, every_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk") as disk:
        bench = Bench(rig, disk, every_s)
        bench.saved()
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        bench.save(size=20_000)
        assert soon(lambda: "cannot record" in bench.recorder.proof()["problem"], 10)
        assert soon(lambda: bench.waits() == EACH, 10)
        assert soon(lambda: "cannot record" in checked(bench, capsys)["problem"], 10)
        assert checked(bench, capsys)["waiting"]
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert bench.writer.flush(Deadline(patience(10))) == 0
        assert checked(bench, capsys)["missing"] == set()
        bench.writer.close(patience(5))
        bench.recorder.detach()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """No file can be made in the folder."""
    if os.geteuid():
        folder.chmod(0o500)
    elif subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode:
        pytest.skip("root writes everywhere, and this file system has no immutable folders")
    try:
        yield
    finally:
        folder.chmod(0o700) if os.geteuid() else subprocess.run(["chattr", "-i", folder], check=True)


def test_a_folder_that_is_made_read_only(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Large values need new files there."""
    bench.saved()
    with read_only(bench.folder):
        new = bench.save(size=70_000)
        with pytest.raises(NotSaved, match="cannot record"):
            bench.given[new[-1]].wait(patience(10))
        assert not bench.acknowledged() & set(new)
        with pytest.raises(LedgerError, match="nothing can be written here"):
            status(str(bench.folder))
    assert bench.writer.flush(Deadline(patience(10))) == 0
    assert checked(bench, capsys)["missing"] == set()


@pytest.mark.parametrize("step_s", [-3600.0, 8 * 86_400.0])
def test_a_clock_that_steps(
    bench: Bench, step_s: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.saved()
    for module in (recorder_module, source_page, sources):
        monkeypatch.setattr(module, "wall_time", lambda: wall_time() + step_s)
    bench.saved()
    told = checked(bench, capsys)
    assert (told["missing"], told["gaps"], told["waiting"]) == (set(), [], [])
