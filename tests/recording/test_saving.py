"""Saving with real processes: recorders that come on demand, die, hang, leave and find their disk full."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_params import EVERY, On
from patience import patience
from programs import running, write
from ready_pids import pid_of
from running_brokers import RunningBroker, running_broker, soon

from ether import Ether
from ether.errors import LifecycleFailed, NotAllowedHere, NotSaved, StartFailed
from ether.ledger.places import default_folder
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.ledger.verify import verify
from ether.system.folders import outbox_folder

SAVING = {"class_path": "saving_parts.Saving"}
RECORDER = "ether.recorder.Recorder"


@pytest.fixture(params=EVERY)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def records_of(folder: Path, *kinds: str) -> list[StoredRecord]:
    with LedgerReader.open(folder) as reader:
        return list(reader.records(RecordFilter(kinds=kinds or ("data", "record"))))


def session_name(request: pytest.FixtureRequest) -> str:
    return "".join(char for char in request.node.name if char.isalnum())[-40:]


# -- who records


@pytest.mark.in_turn("engine")
def test_a_session_that_saves_nothing_has_no_recorder_and_one_that_does_gets_it(
    ether: Ether, engine: str, request: pytest.FixtureRequest, on: On
) -> None:
    """A forked instance has SQLite's module from the template process, at no cost: 0.2 MB that all share."""
    session = session_name(request)
    ether.tap({"session": session, "instances": {"s": SAVING}}, broker=on(engine))
    burden = ether.get("s", "burden")
    assert (burden["threads"], burden["files"]) == ([], [])
    assert list(outbox_folder(session).glob("*")) == []
    assert [it["name"] for it in ether.instances()] == ["s"]
    assert not default_folder(session, os.environ).exists()
    saved = ether.get("s", "save", {"value": 7}, timeout_s=patience(30))
    assert [it["name"] for it in ether.instances()] == ["recorder", "s"]
    mine = ether.record(8, "dose")
    mine.wait()
    assert {(it.id, it.value, it.source) for it in records_of(default_folder(session, os.environ))} == {
        (saved, 7, "s"), (mine.id, 8, "main")
    }  # fmt: skip
    ether.pub(1, topic="unrecorded")
    assert ether.flush() == 0
    assert len(records_of(default_folder(session, os.environ))) == 2, "what nobody asked for is not recorded"


@pytest.mark.in_turn("engine")
def test_an_instance_with_a_python_of_its_own_imports_no_sqlite_to_save_nothing(
    ether: Ether, engine: str, request: pytest.FixtureRequest, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETHER_TEMPLATE", "0")
    ether.tap({"session": session_name(request), "instances": {"s": SAVING}}, broker=on(engine))
    assert ether.get("s", "burden") == {"sqlite": False, "threads": [], "files": []}
    assert ether.get("s", "save", {"value": 7}, timeout_s=patience(30))
    after = ether.get("s", "burden")
    assert after["sqlite"]
    assert after["threads"]
    if Path("/proc/self/fd").exists():
        assert after["files"], "the look at files finds an outbox"


PROGRAM = """
    import sys
    from ether import Ether

    ether = Ether()
    with ether.tap(session=sys.argv[1], broker=sys.argv[2]):
        saved = ether.record({"from": "a program"}, "program")
        saved.wait(30)
        print("saved", saved.id, flush=True)
"""


@pytest.mark.in_turn("engine")
def test_a_program_that_joins_saves(ether: Ether, engine: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", PROGRAM)
    with running_broker(engine) as broker:
        ether.tap(session=f"joined-{engine}", broker=broker.url_tcp)
        with running(tmp_path, "program.py", f"joined-{engine}", broker.url_tcp) as program:
            finished = program.finish(60)
        assert finished.code == 0, finished.err
        ether.shutdown()
    [record] = records_of(default_folder(f"joined-{engine}", os.environ))
    assert f"saved {record.id}" in finished.out
    assert verify(default_folder(f"joined-{engine}", os.environ)).findings == ()


# -- a recorder that dies, hangs or leaves


def test_a_recorder_that_was_killed_goes_on(ether: Ether, engine: str, tmp_path: Path, on: On) -> None:
    ether.tap({"record": {"folder": str(tmp_path / "ledger")}, "instances": {"s": SAVING}}, broker=on(engine))
    ids = []
    for n in range(3):
        ids.append(ether.get("s", "save", {"value": n}, timeout_s=patience(30)))
        victim = pid_of(ether, "recorder")
        os.kill(victim, signal.SIGKILL)
        kept = [ether.record(n, "while it is away") for _ in range(10)]
        for saved in kept:
            saved.wait(patience(30))
        ids += [saved.id for saved in kept]
        assert soon(lambda gone=victim: ready_pid(ether) not in (0, gone), 20)
    assert "0 gaps, 0 duplicates" in ether.get("recorder", "proof")["summary"]
    ether.shutdown()
    there = [it.id for it in records_of(tmp_path / "ledger", "record")]
    assert sorted(there) == sorted(ids)
    assert verify(tmp_path / "ledger").findings == ()


def ready_pid(ether: Ether) -> int:
    return next((it["pid"] for it in ether.instances() if (it["name"], it["state"]) == ("recorder", "ready")), 0)


def stands_still(pid: int) -> bool:
    """Whether each of its threads has been stopped: one that is in the middle of a write finishes that first."""
    try:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
        return False
    return set(states) == {"T"}


@pytest.mark.in_turn("engine")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells whether a process has stopped")
def test_two_recorders_each_with_its_own_and_one_that_hangs_or_leaves(
    ether: Ether, engine: str, tmp_path: Path, request: pytest.FixtureRequest, on: On
) -> None:
    second = {"class_path": RECORDER, "kwargs": {"folder": str(tmp_path / "second"), "topics": ["a/#"], "logs": False},
              "hang": {"silent_s": 60.0}}  # fmt: skip
    session = session_name(request)
    ether.tap(
        {"session": session, "record": {"folder": str(tmp_path / "first")}, "instances": {"second": second}},
        broker=on(engine),
    )
    for n in range(50):
        ether.pub(n, topic="a/x" if n % 2 else "b")
    assert ether.flush() == 0
    assert soon(lambda: len(records_of(tmp_path / "second")) == 25, 15), "what one has counts; the other has it soon"
    hanging = pid_of(ether, "second")
    os.kill(hanging, signal.SIGSTOP)
    assert soon(lambda: stands_still(hanging), 10)
    try:
        saved = [ether.pub(n, topic="a/x", save=True) for n in range(50, 60)]
        for each in saved:
            assert each is not None
            each.wait(patience(20))
        assert (len(records_of(tmp_path / "first")), len(records_of(tmp_path / "second"))) == (60, 25)
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert soon(lambda: len(records_of(tmp_path / "second")) == 35, 15), "nothing was forgotten before it had it"
    assert [it.value for it in records_of(tmp_path / "second")] == [*range(1, 50, 2), *range(50, 60)]
    ether.remove("second")
    ether.pub(60, topic="a/x", save=True).wait()  # type: ignore[union-attr]
    assert ether.flush() == 0
    assert "0 gaps, 0 duplicates" in ether.get("recorder", "proof")["summary"]
    ether.shutdown()
    assert list(outbox_folder(session).iterdir()) == [], "who left holds nobody up"
    assert [it.value for it in records_of(tmp_path / "first")] == list(range(61))
    for name in ("first", "second"):
        assert verify(tmp_path / name).findings == ()


def test_a_recorder_that_cannot_start_says_why(ether: Ether, tmp_path: Path, on: On) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="file"):
        ether.tap({"record": {"folder": str(tmp_path / "file")}}, broker=on("amqtt"))


# -- a full disk


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk (tmpfs) needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_at_once_and_saving_goes_on_when_there_is_room(
    ether: Ether, engine: str, tmp_path: Path, on: On
) -> None:
    with small_disk(tmp_path / "small") as disk:
        ether.tap({"record": {"folder": str(disk / "ledger"), "logs": False}}, broker=on(engine))
        for n in range(5):
            ether.record(n, "before").wait()
        ballast = disk / "ballast"
        fill(ballast)
        full, told_s = until_refused(ether)
        assert "recorder cannot record: the disk of the ledger" in str(full)
        assert "is full" in str(full)
        assert told_s < patience(4.0), "at once, not after the ten seconds of a wait"
        assert not full.lost
        assert [it.value for it in records_of(disk / "ledger")][:5] == list(range(5)), "what was there is there"
        assert "cannot record" in ether.get("recorder", "proof")["problem"]
        ballast.unlink()
        began = time.monotonic()
        assert ether.flush(patience(10)) == 0
        assert time.monotonic() - began < patience(5.0), "what waits is sent again after two seconds"
        ether.record("after", "after").wait()
        proof = ether.get("recorder", "proof")
        assert (list(proof["gaps"]), proof["problem"]) == ([], "")
        assert proof["durable"] == proof["total"]
        ether.shutdown()
        assert [it.value for it in records_of(disk / "ledger")][-1] == "after"


def fill(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"\0" * 4096)
    except OSError:
        os.close(descriptor)


def until_refused(ether: Ether) -> tuple[NotSaved, float]:
    """Save until what SQLite had in reserve is used up, too; the error, and after how many seconds it came."""
    for _ in range(100):
        began = time.monotonic()
        try:
            ether.record("x" * 50_000, "during").wait()
        except NotSaved as error:
            return error, time.monotonic() - began
    raise AssertionError("the disk was never full")


# -- what is overheard


def stranger(broker: RunningBroker, topic: str, text: str) -> None:
    version = "5" if "5" in broker.protocols else "311"
    subprocess.run(
        ["mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-u", broker.username, "-P", broker.password,
         "-V", version, "-q", "1", "-t", f"ether/1/strange/data/{topic}", "-m", text],
        check=True, timeout=patience(20),
    )  # fmt: skip


@pytest.mark.in_turn("engine")
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="apt install mosquitto-clients")
@pytest.mark.parametrize("topics", ["all", ["a/+", "+/b", "a/#"]])
def test_a_strangers_messages_are_recorded_once(ether: Ether, engine: str, tmp_path: Path, topics: Any) -> None:
    with running_broker(engine) as broker:
        record = {"topics": topics, "folder": str(tmp_path / "ledger")}
        ether.tap({"session": "strange", "record": record}, broker=broker.url_tcp)
        for n in range(5):
            stranger(broker, "a/b", json.dumps({"n": n}))
        ether.pub({"n": "ours"}, topic="a/b", save=True)
        stranger(broker, "a/b", "not even JSON")
        assert soon(lambda: len(records_of(tmp_path / "ledger", "data")) >= 7, 10)
        ether.shutdown()
    records = records_of(tmp_path / "ledger", "data")
    assert sorted(it.payload for it in records if it.source == "mqtt") == [
        b"not even JSON", *(b'{"n": %d}' % n for n in range(5))
    ]  # fmt: skip
    assert [it.value for it in records if it.source == "main"] == [{"n": "ours"}]
    assert verify(tmp_path / "ledger").ok


@pytest.mark.in_turn("engine")
def test_log_records_and_states_are_there_with_their_causes(ether: Ether, engine: str, tmp_path: Path, on: On) -> None:
    instances = {"typed": {"class_path": "lab_parts.Typed"}}
    ether.tap({"record": {"folder": str(tmp_path / "ledger")}, "instances": instances}, broker=on(engine))
    cause = ether.pub({"how": "value"}, topic="fail", save=True)
    assert cause is not None
    cause.wait()
    assert soon(lambda: any(it.source == "typed" and it.parents for it in records_of(tmp_path / "ledger", "log")), 10)
    ether.remove("typed")
    ether.shutdown()
    said = [it.parents for it in records_of(tmp_path / "ledger", "log") if it.source == "typed" and it.parents]
    assert said == [(cause.id,)]
    states = [it.value["state"] for it in records_of(tmp_path / "ledger", "state") if it.source == "typed"]  # type: ignore[index,call-overload]
    assert "ready" in states


# -- what the dead have left

DYING = """
    import os, signal, sys, threading
    from ether import Ether

    ether = Ether()
    ether.tap(session=sys.argv[1], broker=sys.argv[2])
    kept = [ether.record(n, f"of {sys.argv[3]}") for n in range(100)]
    file = kept[0]._fates._sender._own.file
    never = threading.Event()
    while file.last < kept[-1]._number:
        never.wait(0.005)
    print("kept", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_killed_have_left_is_saved_once_by_whoever_comes_next(
    ether: Ether, engine: str, tmp_path: Path
) -> None:
    """Three publishers are killed while nobody can record; four come, and the recorder with them."""
    write(tmp_path, "dying.py", DYING)
    with running_broker(engine) as broker:
        with no_recorder(broker):
            for name in ("one", "two", "three"):
                with running(tmp_path, "dying.py", "heirs", broker.url_tcp, name) as program:
                    program.wait_for("kept", 30)
                    program.finish()
        assert len(list(outbox_folder("heirs").glob("*.outbox"))) == 3
        folder = tmp_path / "ledger"
        instances = {f"s{n}": SAVING for n in range(2)}
        ether.tap(
            {"session": "heirs", "record": {"folder": str(folder)}, "instances": instances}, broker=broker.url_tcp
        )
        asked = [ether.get_later(f"s{n}", "save", {"value": n}) for n in range(2)]
        for call in asked:
            ether.collect(call)
        assert soon(lambda: len(records_of(folder, "record")) == 302, 20), len(records_of(folder, "record"))
        ether.shutdown()
    for name in ("one", "two", "three"):
        assert [it.value for it in records_of(folder, "record") if it.topic == f"of {name}"] == list(range(100))
    assert verify(folder).findings == ()
    assert list(outbox_folder("heirs").iterdir()) == []


@contextmanager
def no_recorder(broker: RunningBroker) -> Iterator[None]:
    """A session `heirs` whose leader starts none."""
    leader = Ether()
    leader.tap(session="heirs", broker=broker.url_tcp)
    assert leader._launch is not None
    leader._launch.record = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        with pytest.raises(LifecycleFailed, match="'ether rescue heirs' brings them into a ledger"):
            leader.shutdown()


# -- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_saves_nothing_and_harms_nothing(ether: Ether, tmp_path: Path, on: On) -> None:
    ether.tap({"record": {"folder": str(tmp_path / "ledger")}}, broker=on("amqtt"))
    ether.record(1, "parent").wait()
    pid = os.fork()
    if pid == 0:
        try:
            ether.record(2, "child")
            os._exit(0)
        except Exception as error:
            os._exit(7 if isinstance(error, NotAllowedHere) else 8)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    ether.record(3, "parent").wait()
    assert [it.value for it in records_of(tmp_path / "ledger", "record")] == [1, 3]


@pytest.mark.in_turn("engine")
def test_many_threads_save(ether: Ether, engine: str, tmp_path: Path, on: On) -> None:
    ether.tap({"record": {"folder": str(tmp_path / "ledger")}}, broker=on(engine))

    def save(name: str) -> None:
        for n in range(200):
            ether.record(n, name)
        ether.record(200, name).wait(patience(30))

    threads = [threading.Thread(target=save, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ether.flush() == 0
    for n in range(8):
        assert [it.value for it in records_of(tmp_path / "ledger", "record") if it.topic == f"t{n}"] == list(range(201))
