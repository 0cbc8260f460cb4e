"""What was saved is on disk when its program has ended, or is found and brought home: V4 of the users' faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience
from programs import Finished, run, running, write

from ether.errors import NoLedger
from ether.ledger.places import find_ledger
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.recording.sources import sessions_with_orphans
from ether.system.folders import outbox_folder, remove_old, session_folder

PROBE = """
    import json, os, sys, time
    from ether import ether, ether_get, ether_pub, ether_save_all

    class Probe:
        @ether_pub(topic="temp", save=True)
        def measure(self, v: float):
            return {"v": v}

        @ether_get
        def series(self, n: int):
            for i in range(n):
                self.measure(float(i))

    class Late:
        @ether_save_all
        def last_words(self):
            for i in range(4):
                ether.pub({"v": float(i)}, topic="temp", save=True)

    if __name__ == "__main__":
        how, pause_s, options = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
        ether.tap({"instances": {"probe": {"class_path": Late if how == "late" else Probe}}, **options})
        print(ether.session_info()["session"], flush=True)
        if how == "instance":
            ether.get("probe", "series", {"n": 4})
        elif how != "late":
            for i in range(4):
                ether.record({"v": float(i)}, "temp")
        time.sleep(pause_s)
        if how == "wait":
            print("left", ether.flush(0.5), flush=True)
            sys.stdin.read()
            while True:
                time.sleep(1)
        ether.shutdown()
"""


@pytest.fixture
def no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file where the folder of all ledgers should be: no recorder can begin until it is removed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data").write_text("in the way")
    return tmp_path / "data"


def program(folder: Path, how: str, pause_s: float, **options: object) -> Finished:
    return run(folder, write(folder, "v4.py", PROBE), how, str(pause_s), json.dumps(options))


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ether.cli.main", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=patience(60),
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def values(session: str | Path) -> list[float]:
    with LedgerReader.open(find_ledger(session, os.environ)) as reader:
        records = reader.records(RecordFilter(topic="temp"))
        return [record.value["v"] for record in records]  # type: ignore[index]


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("pause_s", [0.0, 0.3])
@pytest.mark.parametrize("engine", EMBEDDED)
def test_v4_what_was_saved_is_on_disk_after_an_orderly_end(tmp_path: Path, engine: str, pause_s: float) -> None:
    done = program(tmp_path, "instance", pause_s, broker={"engine": engine})
    assert done.code == 0, done.err
    assert values(done.out.split()[0]) == [0.0, 1.0, 2.0, 3.0]
    assert sessions_with_orphans() == {}


@pytest.mark.parametrize("how", ["program", "late"])
def test_values_of_the_program_and_of_the_very_end_are_on_disk_too(tmp_path: Path, how: str) -> None:
    done = program(tmp_path, how, 0.0)
    assert done.code == 0, done.err
    assert values(done.out.split()[0]) == [0.0, 1.0, 2.0, 3.0]


def test_an_end_that_cannot_save_says_what_is_left_and_rescue_brings_it_home(tmp_path: Path, no_room: Path) -> None:
    ended = program(tmp_path, "program", 0.0, session="no-room")
    assert ended.code != 0, ended.err
    assert "LifecycleFailed" in ended.err, ended.err
    assert "'ether rescue no-room' brings them into a ledger" in ended.err
    assert str(outbox_folder("no-room")) in ended.err
    code, said = command(tmp_path, "status", "no-room")
    assert code == 1, said
    assert "ether rescue no-room" in said
    code, said = command(tmp_path, "rescue")
    assert code == 1, said
    assert "are left" in said
    no_room.unlink()
    code, said = command(tmp_path, "rescue")
    assert code == 0, said
    assert values("no-room") == [0.0, 1.0, 2.0, 3.0]


def test_what_killed_programs_leave_is_rescued_once(tmp_path: Path, no_room: Path) -> None:
    """A rescue is killed in the middle, and the next one finishes. Before, it leaves the living alone."""
    script = write(tmp_path, "v4.py", PROBE)
    with running(tmp_path, script, "wait", "0", json.dumps({"session": "killed"})) as killed:
        killed.wait_for("left")
        assert json.loads(command(tmp_path, "rescue", "killed", "--list", "--json")[1]) == {}
        killed.kill()
        killed.finish()
        killed.assert_nothing_left()
    listed = json.loads(command(tmp_path, "rescue", "--list", "--json")[1])
    assert [outbox["source"] for outbox in listed["killed"]] == ["main"]
    assert listed["killed"][0]["count"] >= 4
    no_room.unlink()
    with running(tmp_path, "-m", "ether.cli.main", "rescue") as half:
        half.wait_for("recorder records to")
        half.kill()
        half.finish()
        half.assert_nothing_left()
    assert command(tmp_path, "rescue", "killed")[0] == 0
    assert values("killed") == [0.0, 1.0, 2.0, 3.0]
    code, said = command(tmp_path, "rescue", "killed")
    assert (code, said.strip()) == (0, "nothing waits on this machine: all that was saved is in its ledger")
    assert values("killed") == [0.0, 1.0, 2.0, 3.0]


def test_what_nobody_has_recorded_is_never_too_old_to_keep(tmp_path: Path) -> None:
    folder = outbox_folder("old")
    folder.mkdir(parents=True)
    (folder / "cam~1.outbox").write_bytes(b"something")
    for path in (session_folder("old"), folder, *folder.iterdir()):
        os.utime(path, (1.0, 1.0))
    for now in (1e9, 2e9, 3e9):
        remove_old(now)
    assert (folder / "cam~1.outbox").exists()
    (folder / "cam~1.outbox").unlink()


def test_a_ledger_that_was_never_made_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(NoLedger):
        values("nobody")
    code, said = command(tmp_path, "status", "nobody")
    assert code == 4
    assert "nothing is recorded of 'nobody'" in said
