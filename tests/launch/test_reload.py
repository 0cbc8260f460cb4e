"""New code for instances that run: the successor is ready before the one of before lets go (`ether run --watch`)."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from engine_params import EMBEDDED, On
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.cli.lab.watch import Watch, in_order
from ether.config import load_config
from ether.connection.deadline import Deadline
from ether.errors import NotReloaded
from ether.launch.reload.code_change import CodeChange
from ether.launch.reload.source_files import SourceFiles
from ether.launch.reload.succession import GIVE_UP, HOLD, LET_GO, RESTORE, write_state
from ether.launch.supervisor import ChildRecord, Supervisor
from ether.protocol.presence import Announcement, State
from ether.session.session import Session

LONG = os.environ.get("ETHER_LONG") == "1"

CAMERA = """
from ether import ether_get, ether_init, ether_pub, ether_sub
{imports}

class Cam:
    def __init__(self):
        self.shots, self.inits = 0, 0
        {constructor}

    @ether_init
    def begin(self):
        self.inits += 1
        {init}

    @ether_get
    def version(self):
        return {version}

    @ether_get
    def shoot(self):
        self.shots += 1
        return self.shots, self.inits

    @ether_sub(topic="number")
    @ether_pub(topic="counted")
    def count(self, n: int) -> int:
        return n

    def ether_state(self):
        {state}
        return {{"shots": self.shots, "raw": b"bytes, too"}}

    def ether_restore(self, state):
        {restore}
        assert state["raw"] == b"bytes, too"
        self.shots = state["shots"]
"""
PLACES = ("constructor", "init", "state", "restore")


def camera(version: object, imports: str = "", **code: str) -> str:
    return CAMERA.format(version=version, imports=imports, **{place: code.get(place, "pass") for place in PLACES})


# -- which files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "lab/__init__.py": "",
        "lab/cam.py": "import numpy\nfrom . import parts\nfrom .deep.down import x\nclass Cam: pass\n",
        "lab/parts.py": "def late():\n    import alone\n    import lab.cam\n",
        "lab/deep/__init__.py": "",
        "lab/deep/down.py": "x = 1\n",
        "alone.py": "import os, missing\n",
        "other.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def names(folder: Path, sources: SourceFiles, class_path: str = "lab.cam.Cam") -> list[str]:
    found = sources.of_class(class_path)
    return sorted(path.relative_to(folder.resolve()).as_posix() for path in found)


def test_the_files_of_a_class_are_those_that_it_imports_late_and_relatively_too(folder: Path) -> None:
    sources = SourceFiles([str(folder), *sys.path])
    expected = ["alone.py", "lab/__init__.py", "lab/cam.py", "lab/deep/__init__.py", "lab/deep/down.py", "lab/parts.py"]
    assert names(folder, sources) == expected
    assert names(folder, sources, "ether.testing.Lab") == []
    assert names(folder, sources, "numpy.ndarray") == []


def test_a_file_that_does_not_compile_keeps_the_imports_of_before(folder: Path) -> None:
    sources = SourceFiles([str(folder)])
    before = names(folder, sources)
    (folder / "lab/cam.py").write_text("import other\nclass Cam(\n")
    assert names(folder, sources) == before
    (folder / "lab/cam.py").write_text("import other\nclass Cam: pass\n")
    assert names(folder, sources) == ["lab/__init__.py", "lab/cam.py", "other.py"]


# -- who gets new code


def watch(folder: Path, said: list[tuple[str, str, str]], fail: str = "") -> Watch:
    described: dict[str, Any] = {
        "a": {"class_path": "lab.cam.Cam", "after": "b"},
        "b": {"class_path": "alone.Alone"},
        "c": {"class_path": "other.Other"},
    }

    def reload(name: str) -> None:
        if name == fail:
            raise NotReloaded(name, 'Traceback:\n  File "/x/cam.py", line 7, in f\nValueError: no')

    instances = load_config({"instances": described}).named_instances()
    return Watch(
        instances, SourceFiles([str(folder)]), reload, lambda name, files, why, _: said.append((name, files, why))
    )


def test_who_imports_a_saved_file_gets_new_code_in_order_and_nobody_else(folder: Path) -> None:
    said: list[tuple[str, str, str]] = []
    watched = watch(folder, said)
    watched.look()
    assert said == []
    (folder / "alone.py").write_text("y = 11111\n")
    watched.look()
    assert said == [("b", "alone.py", ""), ("a", "alone.py", "")]
    watched.look()
    assert len(said) == 2


def test_what_does_not_compile_or_cannot_be_built_is_one_sentence(folder: Path) -> None:
    said: list[tuple[str, str, str]] = []
    watched = watch(folder, said, fail="c")
    (folder / "alone.py").write_text("def y(:\n")
    (folder / "other.py").write_text("z = 1\n")
    watched.look()
    wrong = "goes on with its code of before: SyntaxError: invalid syntax (alone.py:1)"
    assert said == [
        ("b", "alone.py", f"b {wrong}"),
        ("a", "alone.py", f"a {wrong}"),
        ("c", "other.py", "c goes on with its code of before: ValueError: no (cam.py:7)"),
    ]


class Going(threading.Event):
    """A moment in which a file goes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def wait(self, timeout: float | None = None) -> bool:
        self._path.unlink(missing_ok=True)
        return False


def test_a_file_that_goes_while_it_is_looked_at_holds_up_no_other(folder: Path) -> None:
    said: list[tuple[str, str, str]] = []
    watched = watch(folder, said)
    (folder / "alone.py").write_text("y = 11111\n")
    (folder / "other.py").write_text("z = 11111\n")
    watched._stop = Going(folder / "alone.py")
    watched.look()
    assert said == [("c", "other.py", "")]


def test_a_new_import_is_followed_from_then_on(folder: Path) -> None:
    said: list[tuple[str, str, str]] = []
    watched = watch(folder, said)
    (folder / "alone.py").write_text("import fresh\n")
    (folder / "fresh.py").write_text("1\n")
    watched.look()
    (folder / "fresh.py").write_text("1 + 1\n")
    watched.look()
    assert [(name, files) for name, files, _ in said[2:]] == [("b", "fresh.py"), ("a", "fresh.py")]


def test_the_order_of_new_code_is_that_of_after() -> None:
    described = {
        "a": {"class_path": "x.A", "after": ["c", "b"]},
        "b": {"class_path": "x.B", "after": "c"},
        "c": {"class_path": "x.C"},
    }
    assert in_order(load_config({"instances": described}).named_instances()) == ["c", "b", "a"]


# -- the change itself


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


class Bench:
    """A camera whose file is edited, and numbers that come all the time."""

    def __init__(self, ether: Ether, folder: Path) -> None:
        self.ether, self.file = ether, folder / "edited_camera.py"
        self.said: list[tuple[str, float]] = []
        self.shots = 0
        self.version: Any = 0
        self._numbers = ether.subscribe("counted")
        self._stop = threading.Event()
        self._sent = 0
        self._seen: list[Any] = []
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._thread.start()
        instances = load_config({"instances": {"cam": {"class_path": "edited_camera.Cam"}}}).named_instances()
        self._watch = Watch(instances, SourceFiles([str(folder)]), ether.reload, self._say)

    def _say(self, name: str, files: str, why: str, after_s: float) -> None:
        self.said.append((why, after_s))

    def _publish(self) -> None:
        while not self._stop.wait(0.01):
            self._sent += 1
            self.ether.pub({"n": self._sent}, topic="number")

    def edit(self, text: str, version: Any = None, why: str = "") -> None:
        """Save the file; the version that answers from then on is this one, or the one of before and a sentence."""
        self.file.write_text(text)
        self._watch.look()
        assert self.said[-1][0] == (f"cam goes on with its code of before: {why}" if why else ""), self.said[-1]
        self.version = self.version if why else version
        assert self.ether.get("cam", "version") == self.version
        self.shots += 1
        assert self.ether.get("cam", "shoot") == [self.shots, 1], "its state was lost, or it was initialised twice"
        self._hear()

    def _hear(self) -> None:
        sent = self._sent
        while not self._seen or self._seen[-1] < sent:
            self._seen.append(self._numbers.get(patience(10)).value)

    def close(self) -> None:
        """Every number has been handled once, in order."""
        self._stop.set()
        self._thread.join()
        self._hear()
        assert self._seen == list(range(1, self._sent + 1))


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "edited_camera.py").write_text(camera(0))
    return tmp_path


@pytest.mark.parametrize("engine", EMBEDDED)
def test_edits_good_and_broken(ether: Ether, engine: str, on: On, edited: Path) -> None:
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}}, broker=on(engine))
    bench = Bench(ether, edited)
    try:
        for turn in range(10 if LONG else 1):
            first, second = 5 * turn + 1, 5 * turn + 2
            bench.edit(camera(first), first)
            bench.edit(camera(first) + "\nclass", why="SyntaxError: invalid syntax (edited_camera.py:38)")
            bench.edit(camera(9, constructor="raise ValueError('no')"), why="ValueError: no (edited_camera.py:8)")
            bench.edit(camera(9, init="{}['k']"), why="KeyError: 'k' (edited_camera.py:13)")
            bench.edit(camera(9, restore="1 / 0"), why="ZeroDivisionError: division by zero (edited_camera.py:34)")
            bench.edit(camera(second), second)
    finally:
        bench.close()
    if LONG:
        took = sorted(after_s for why, after_s in bench.said if not why)
        print(f"{engine}: {len(bench.said)} edits, new code after {statistics.median(took):.2f} s, last {took[-1]:.2f}")
        assert took[int(0.95 * len(took)) - 1] < 1.0  # bare: what is promised of a light class


def test_a_state_that_cannot_be_told_is_said_and_new_code_begins_without(
    ether: Ether, edited: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = edited / "edited_camera.py"
    file.write_text(camera(0, state="raise KeyError('gone')"))
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}})
    assert ether.get("cam", "shoot") == [1, 1]
    file.write_text(camera(11))
    ether.reload("cam")
    assert ether.get("cam", "version") == 11
    assert ether.get("cam", "shoot") == [1, 1]
    assert "begins without the state of before: ether_state raised KeyError" in capfd.readouterr().err


def test_a_state_that_the_disk_does_not_take_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_state(SimpleNamespace(ether_state=lambda: {"shots": 1}), tmp_path / "gone" / "cam.state")
    assert "the new code begins without the state of before, which could not be written" in caplog.text


def test_a_successor_that_crashes_in_its_constructor_or_hangs_harms_nobody(ether: Ether, edited: Path) -> None:
    file = edited / "edited_camera.py"
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}})
    file.write_text(camera(11, imports="import os, time", constructor="os._exit(9)"))
    with pytest.raises(NotReloaded, match="cam goes on with its code of before: its process ended with exit code 9"):
        ether.reload("cam")
    file.write_text(camera(111, imports="import os, time", init="time.sleep(60)"))
    with pytest.raises(NotReloaded, match="is not built within the time"):
        ether.reload("cam", timeout_s=2.5)  # bare: it runs out; until then the process should be where it hangs
    assert ether.get("cam", "version") == 0
    file.write_text(camera(2222))
    ether.reload("cam")
    assert ether.get("cam", "version") == 2222


def test_a_successor_that_crashes_when_it_has_a_connection_is_started_again(ether: Ether, edited: Path) -> None:
    once = edited / "once"
    once.touch()
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}})
    crash = f"os.path.exists({str(once)!r}) and (os.remove({str(once)!r}), os._exit(9))"
    (edited / "edited_camera.py").write_text(camera(11, imports="import os", init=crash))
    ether.reload("cam")
    assert ether.get("cam", "version") == 11


def test_a_death_that_the_broker_tells_of_after_its_first_answer_counts(tmp_path: Path) -> None:
    """A busy broker may find the question and the broken connection at the same moment."""
    asked: list[str] = []
    session = SimpleNamespace(
        catch_up=lambda timeout_s, among: asked.append(among),
        announcement=lambda name: Announcement(name, State.LOST, "2" if len(asked) > 1 else "1"),
    )
    change = CodeChange(
        cast("Session", session), cast("Supervisor", None), "cam", str(tmp_path / "cam"), Deadline(1)
    )  # fmt: skip
    assert change._is_displaced(cast("ChildRecord", SimpleNamespace(incarnation="2")))
    assert asked == ["cam", "cam"]


class ToldChild:
    """A process that says everything at once, and keeps what it is told."""

    exit_code = None

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def send(self, word: bytes) -> bool:
        self.heard.append(word)
        return True

    def forget_note(self, note: str) -> None:
        pass

    def await_note(self, note: str, timeout_s: float) -> bool:
        return True

    def end(self, timeout_s: float) -> bool:
        self.heard.append(b"")
        return True


def test_a_successor_ends_where_the_end_of_the_one_before_is_interrupted(tmp_path: Path) -> None:
    present, successor = ToldChild(), ToldChild()
    supervisor = SimpleNamespace(
        child=lambda name: present, start_successor=lambda name, left_s: SimpleNamespace(child=successor),
        expect_end=lambda name: None,
    )  # fmt: skip
    known = Announcement("cam", State.READY, "1")
    session = SimpleNamespace(announcement=lambda name: known, say=lambda said: None)
    change = CodeChange(
        cast("Session", session), cast("Supervisor", supervisor), "cam", str(tmp_path / "cam"), Deadline(1)
    )

    def end() -> dict[str, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change.make(end)
    assert present.heard == [HOLD, LET_GO]
    assert successor.heard == [RESTORE, GIVE_UP, b""]


def test_an_instance_that_is_busy_finishes_what_it_does(ether: Ether, edited: Path) -> None:
    file = edited / "edited_camera.py"
    slow = camera(0, imports="import time").replace("self.shots += 1", "time.sleep(0.5); self.shots += 1")
    file.write_text(slow)
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}})
    later = [ether.get_later("cam", "shoot") for _ in range(3)]
    file.write_text(camera(2))
    ether.reload("cam")
    assert sorted(ether.collect(each) for each in later) == [[1, 1], [2, 1], [3, 1]]
    assert ether.get("cam", "shoot") == [4, 1]


def test_an_instance_that_has_ended_is_started(ether: Ether, edited: Path) -> None:
    file = edited / "edited_camera.py"
    file.write_text(camera(0).replace("return 0", "raise SystemExit"))
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}})
    os.kill(ether.instances()[0]["pid"], signal.SIGTERM)
    assert soon(lambda: not any(each["state"] == "ready" for each in ether.instances()), 10)
    file.write_text(camera(2))
    ether.reload("cam")
    assert ether.get("cam", "version") == 2
    with pytest.raises(KeyError, match="Did you mean 'cam'"):
        ether.reload("cum")


def save(file: Path, text: str) -> None:
    """In one step, as most editors do: who watches never sees half of it, however busy the machine is."""
    written = file.with_suffix(".new")
    written.write_text(text)
    written.replace(file)


def test_run_watch_says_what_it_does(edited: Path) -> None:
    (edited / "lab.yaml").write_text("instances: {cam: {class_path: edited_camera.Cam}}")
    command = [sys.executable, "-m", "ether", "run", "lab.yaml", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=edited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:  # fmt: skip
        assert running.stdout is not None
        try:
            assert json.loads(running.stdout.readline())["event"] == "ready"
            save(edited / "edited_camera.py", camera(1, constructor="raise OSError('port busy')"))
            event = json.loads(running.stdout.readline())
            assert event["error"] == "cam goes on with its code of before: OSError: port busy (edited_camera.py:8)"
            save(edited / "edited_camera.py", camera(2))
            event = json.loads(running.stdout.readline())
            assert (event["event"], event["instance"], event["error"]) == ("reload", "cam", "")
            (edited / "lab.yaml").write_text("instances: {cam: {class_path: edited_camera.Cam, concurrency: 1}}")
        finally:
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=patience(20))
    assert running.returncode == 0, said
    assert "edited_camera.py: cam has its new code, after " in said


@pytest.mark.skipif(not LONG, reason="ETHER_LONG=1 runs it")
@pytest.mark.parametrize("engine", EMBEDDED)
def test_calls_that_come_all_the_time_are_counted_once_each(ether: Ether, engine: str, on: On, edited: Path) -> None:
    ether.tap({"instances": {"cam": {"class_path": "edited_camera.Cam"}}}, broker=on(engine))
    stop, shots = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            shots.append(ether.get("cam", "shoot")[0])

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    for version in range(1, 21):
        (edited / "edited_camera.py").write_text(camera("1" * version))
        ether.reload("cam")
    stop.set()
    caller.join()
    assert shots == list(range(1, len(shots) + 1))
