"""What is on disk of saves: the caller's outbox, the callee's journal."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience

from ether.calls.durable_outbox import CallOutbox, files_in
from ether.calls.durable_records import Age, JournaledResult, JournalEntry, SavedCall, new_call_id
from ether.calls.durable_server_journal import CallJournal
from ether.errors import StoreFailed
from ether.wire.codec import Body, decode, encode

DAY_S = 86_400.0
NOW = 1.8e9
_TRACED = "trace=fsync,fdatasync,stat,newfstatat"


def call(number: int, made: float = NOW) -> SavedCall:
    return SavedCall(f"{number:032x}", "doser", "dose", "doser", "j", made, "main")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[CallOutbox]:
    own = CallOutbox(tmp_path, "main")
    yield own
    own.close()


DYING = """
import os, sys
from pathlib import Path
from ether.calls.durable_outbox import CallOutbox
from ether.calls.durable_records import SavedCall
from ether.wire.codec import encode
outbox = CallOutbox(Path(sys.argv[1]), sys.argv[2])
for number in map(int, sys.argv[4:]):
    outbox.add(SavedCall(f"{number:032x}", "doser", "dose", "", "", 1.8e9 + number, sys.argv[2]), encode({"n": number}))
print("kept", flush=True)
if sys.argv[3] == "die":
    os.kill(os.getpid(), 9)
sys.stdin.read()
outbox.close()
"""


def process(folder: Path, owner: str, then: str, *numbers: int) -> subprocess.Popen[str]:
    """Another process with calls in its outbox; it has written them when this returns."""
    command = [sys.executable, "-c", DYING, str(folder), owner, then, *map(str, numbers)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "kept\n"
    return started


def end(started: subprocess.Popen[str]) -> None:
    assert started.stdin is not None
    assert started.stdout is not None
    started.stdin.close()
    started.wait(patience(10))
    started.stdout.close()


# -- the outbox


def test_a_call_is_there_until_it_is_answered(outbox: CallOutbox, tmp_path: Path) -> None:
    body = encode({"n": 1, "raw": b"\0\1"})
    outbox.add(call(1), body)
    outbox.sync()
    assert outbox.body(call(1).call_id) == body
    assert len(outbox) == 1
    outbox.remove(call(1).call_id)
    outbox.remove(call(1).call_id)
    assert (outbox.body(call(1).call_id), len(outbox)) == (None, 0)
    outbox.close()
    outbox.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_the_calls_of_the_dead_are_taken_over_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead = process(tmp_path, "main", "die", 1, 2, 3)
    dead.wait(patience(10))
    living = process(tmp_path, "main", "live", 4)
    outbox = CallOutbox(tmp_path, "main")
    taken, problems = outbox.take_over()
    assert problems == []
    assert [each.call_id for each in taken] == [call(number).call_id for number in (1, 2, 3)]
    assert taken[0] == SavedCall(call(1).call_id, "doser", "dose", "", "", 1.8e9 + 1, "main")
    body = outbox.body(call(2).call_id)
    assert body is not None
    assert decode(*body) == {"n": 2}
    assert outbox.take_over() == ([], [])
    assert len(files_in(tmp_path)) == 2
    outbox.close()
    end(dead)
    end(living)
    heir = CallOutbox(tmp_path, "main")
    assert len(heir.take_over()[0]) == 4
    for number in range(5):
        heir.remove(call(number).call_id)
    heir.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_an_instance_takes_over_its_own_earlier_lives_only(tmp_path: Path) -> None:
    for owner, number in (("camera", 1), ("camera.left", 2)):
        dead = process(tmp_path, owner, "die", number)
        dead.wait(patience(10))
        end(dead)
    outbox = CallOutbox(tmp_path, "camera")
    assert [each.caller for each in outbox.take_over("camera")[0]] == ["camera"]
    assert [each.caller for each in outbox.take_over()[0]] == ["camera.left"]
    outbox.close()


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_several_heirs_at_once_lose_nothing(tmp_path: Path) -> None:
    for number in range(6):
        dead = process(tmp_path, f"p{number}", "die", 2 * number, 2 * number + 1)
        dead.wait(patience(10))
        end(dead)
    heirs = [CallOutbox(tmp_path, f"heir{number}") for number in range(3)]
    taken: list[SavedCall] = []
    failed: list[BaseException] = []

    def take(heir: CallOutbox) -> None:
        try:
            taken.extend(heir.take_over()[0])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=take, args=(heir,)) for heir in heirs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(30))
    assert failed == []
    assert {each.call_id for each in taken} == {call(number).call_id for number in range(12)}
    assert sum(map(len, heirs)) == len(taken)
    assert len(files_in(tmp_path)) == 3
    for heir in heirs:
        heir.close()


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_file_that_is_no_outbox_is_named_and_stays_and_the_others_are_taken(
    outbox: CallOutbox, tmp_path: Path
) -> None:
    strange = tmp_path / "ahead.1-00.calls"
    strange.write_bytes(b"this is no database, and longer than its head" * 100)
    dead = process(tmp_path, "main", "die", 1)
    dead.wait(patience(10))
    end(dead)
    taken, problems = outbox.take_over()
    assert [each.call_id for each in taken] == [call(1).call_id]
    assert [str(strange) in str(problem) for problem in problems] == [True]
    assert strange.exists()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="cannot make"):
        CallOutbox(tmp_path / "file" / "calls", "main")


def test_an_old_call_is_given_up() -> None:
    age = Age(1000.0, 10 * DAY_S)
    assert not age.is_too_old(1000.0 + 19 * DAY_S)
    assert age.is_too_old(1000.0 + 21 * DAY_S)
    assert [age.is_to_be_noted(1000.0 + hours * 3600) for hours in (0.5, 1.0, 1.5, 2.5)] == [False, True, False, True]


def test_the_age_of_a_call_outlives_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same boot with the time in between, in another boot without it; by no clock that can be set."""
    now, boot = [1000.0], ["a"]
    monkeypatch.setattr("ether.calls.durable_outbox.uptime", lambda: now[0])
    monkeypatch.setattr("ether.calls.durable_outbox.boot_id", lambda: boot[0])

    def next_life() -> float:
        nonlocal outbox
        outbox.close()
        outbox = CallOutbox(tmp_path, "main")
        assert [each.call_id for each in outbox.take_over()[0]] == [call(1).call_id]
        return outbox.age_s(call(1).call_id)

    outbox = CallOutbox(tmp_path, "main")
    outbox.add(call(1), encode(1))
    assert next_life() == 0.0  # of a call that has just been made nothing is noted
    outbox.note_age(call(1).call_id, 20.0)
    now[0] += 5.0
    assert next_life() == 25.0
    boot[0], now[0] = "b", 3.0
    assert next_life() == 25.0
    now[0] += 4.0
    assert next_life() == 29.0
    outbox.remove(call(1).call_id)
    assert outbox._database.execute("SELECT count(*) FROM ages").fetchone() == (0,)
    outbox.close()


def test_calls_of_one_process_stay_in_their_order_although_its_clock_was_set_back(tmp_path: Path) -> None:
    made = {"a": [(1, NOW), (2, NOW - 3600), (3, NOW + 2)], "b": [(4, NOW - 1), (5, NOW + 1)]}
    for owner, calls in made.items():
        theirs = CallOutbox(tmp_path, owner)
        for number, time_ in calls:
            theirs.add(call(number, time_), encode(number))
        theirs.close()
    own = CallOutbox(tmp_path, "main")
    assert [int(each.call_id, 16) for each in own.take_over()[0]] == [4, 1, 2, 5, 3]
    own.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_what_is_promised_is_fsynced_and_what_is_not_costs_nothing(tmp_path: Path) -> None:
    """The log that the calls stand in, and the folder; once, however many ask."""
    code = """
import os, sys
from pathlib import Path
from ether.calls.durable_outbox import CallOutbox
from ether.calls.durable_records import SavedCall
from ether.wire.codec import encode
outbox = CallOutbox(Path(sys.argv[1]), "main")
def add(number):
    outbox.add(SavedCall(f"{number:032x}", "doser", "dose", "", "", 1.8e9, "main"), encode(number))
def note(step):
    os.path.exists(f"/step-{step}")
note("add"); add(1); add(2)
note("sync"); outbox.sync(f"{1:032x}"); outbox.sync(f"{2:032x}"); outbox.sync()
note("more"); add(3); outbox.sync(f"{1:032x}")
note("end")
os._exit(0)
"""
    traced = subprocess.run(
        ["strace", "-f", "-y", "-e", _TRACED, sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptrace" in traced.stderr and "step" not in traced.stderr:
        pytest.skip("this machine does not allow tracing")
    steps: dict[str, list[str]] = {}
    step = ""
    for line in traced.stderr.splitlines():
        if "/step-" in line:
            step = line.split("/step-")[1].split('"')[0]
            steps.setdefault(step, [])
        elif "sync(" in line and step:
            steps[step].append(line.split("<")[1].split(">")[0].rpartition(".")[2])
    assert steps["add"] == []
    assert [kind.startswith("calls-wal") for kind in steps["sync"]] == [True, False], steps
    assert steps["more"] == []


# -- the journal


def test_a_call_is_begun_once_and_keeps_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "doser.db"
    journal = CallJournal(path, now=lambda: NOW)
    call_id = new_call_id(int(NOW * 1000))
    assert journal.begin(call_id) is JournalEntry.NEW
    assert journal.begin(call_id) is JournalEntry.RUNNING
    journal.finish(call_id, encode([1, 2]), None)
    kept = JournaledResult(encode([1, 2]), None, NOW)
    assert journal.begin(call_id) == kept
    identity = journal.id
    journal.close()
    journal.close()
    again = CallJournal(path)
    assert (again.begin(call_id), again.id) == (kept, identity)
    again.close()
    other = CallJournal(tmp_path / "other.db")
    assert other.id != identity
    other.close()


def test_what_was_not_finished_is_interrupted_in_the_next_life(tmp_path: Path) -> None:
    path, call_id = tmp_path / "doser.db", new_call_id(5)
    first = CallJournal(path)
    assert first.begin(call_id) is JournalEntry.NEW
    second = CallJournal(path)  # while the first has not let go: it may be frozen
    assert second.begin(call_id) is JournalEntry.INTERRUPTED
    second.close()
    first.close()


def test_begun_is_on_disk_before_the_method_runs(tmp_path: Path) -> None:
    """As far as another process can see; that it is fsynced is SQLite's promise for these settings."""
    journal = CallJournal(tmp_path / "doser.db")
    call_id = new_call_id(5)
    journal.begin(call_id)
    with sqlite3.connect(tmp_path / "doser.db") as other:
        assert other.execute("SELECT id, finished FROM calls").fetchall() == [(call_id, None)]
    other.close()
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()


@pytest.mark.parametrize("step_s", [8 * DAY_S, -8 * DAY_S, -NOW, 56 * 365 * DAY_S, -3600.0])
def test_no_call_is_forgotten_because_the_clock_was_set(tmp_path: Path, step_s: float) -> None:
    """A machine that booted in 1970 answers a call, then its clock is set right: the call must not run twice."""
    now = [NOW]
    journal = CallJournal(tmp_path / "doser.db", now=lambda: now[0])
    answered, begun = new_call_id(1), new_call_id(2)
    journal.begin(answered)
    journal.finish(answered, encode(1), None)
    journal.begin(begun)
    journal.close()
    now[0] += step_s
    journal = CallJournal(tmp_path / "doser.db", now=lambda: now[0])
    assert journal.begin(answered) == JournaledResult(encode(1), None, NOW)
    assert journal.begin(begun) is JournalEntry.INTERRUPTED
    assert journal.begin(new_call_id(3)) is JournalEntry.NEW
    journal.close()


def test_what_is_forgotten_by_count_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "doser.db"
    journal = CallJournal(path, now=lambda: NOW)
    calls = [new_call_id(1000 + number) for number in range(20)]
    for call_id in calls:
        assert journal.begin(call_id) is JournalEntry.NEW
        journal.finish(call_id, encode(None), None)
    journal.close()
    journal = CallJournal(path, now=lambda: NOW, max_calls=10)
    found = [journal.begin(call_id) for call_id in calls]
    assert found == [JournalEntry.FORGOTTEN] * 11 + [JournaledResult(Body(b"", None), None, NOW)] * 9
    assert journal.begin(new_call_id(999)) is JournalEntry.FORGOTTEN
    assert journal.begin(new_call_id(5000)) is JournalEntry.NEW
    journal.close()


def test_of_large_answers_the_oldest_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "doser.db"
    journal = CallJournal(path, now=lambda: NOW)
    calls = [new_call_id(1000 + number) for number in range(10)]
    for call_id in calls:
        journal.begin(call_id)
        journal.finish(call_id, encode(b"x" * 1000), "ValueError")
    journal.close()
    journal = CallJournal(path, now=lambda: NOW, max_answer_bytes=5000)
    found = [journal.begin(call_id) for call_id in calls]
    assert (
        found
        == [JournaledResult(None, "ValueError", NOW)] * 6
        + [JournaledResult(encode(b"x" * 1000), "ValueError", NOW)] * 4
    )
    journal.close()


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "doser.db"
    path.write_bytes(b"not a database, and longer than the head of one" * 100)
    with pytest.raises(StoreFailed, match=r"doser\.db"):
        CallJournal(path)


def test_a_journal_of_a_later_ether_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "doser.db"
    CallJournal(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=9")
    database.close()
    with pytest.raises(StoreFailed, match="version 9"):
        CallJournal(path)


def test_ids_tell_when_they_were_made() -> None:
    early, late = new_call_id(1_000_000), new_call_id(1_000_001)
    assert early[:6] < late[:6]
    assert len({new_call_id(int(time.time() * 1000)) for _ in range(1000)}) == 1000
    assert len(early) == 16
