"""`ether.lease`: an instance for one program alone, which everybody else is told, until it ends by itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED, EVERY, On
from let_parts import Camera
from patience import patience
from programs import running, write

from ether import Ether
from ether.calls.lease_rules import LEASE_TIMEOUT_S, LeaseHolder, LeaseTable
from ether.errors import (
    EtherError,
    InstanceLeased,
    LeaseEnded,
    NoResponder,
    NotAllowedHere,
    RemoteError,
    RequestTimeout,
    SyncError,
)
from ether.testing import Lab

CAMERA = {"class_path": "let_parts.Camera"}
LAB = {"session": "let", "instances": {"camera": CAMERA, "neighbour": {"class_path": "let_parts.Neighbour"}}}


@pytest.fixture
def ether() -> Iterator[Ether]:
    with Ether() as own:
        yield own


@pytest.fixture
def other() -> Iterator[Ether]:
    with Ether() as own:
        yield own


def row(ether: Ether, name: str) -> dict[str, Any]:
    (found,) = [each for each in ether.instances() if each["name"] == name]
    return found


def eventually(look: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Announcements come a moment later than answers."""
    deadline, pause = time.monotonic() + patience(timeout_s), threading.Event()
    while not look():
        assert time.monotonic() < deadline, "never true"
        pause.wait(0.01)


def snap_when_free(ether: Ether, timeout_s: float) -> float:
    """How long it took until a call was admitted."""
    began = time.monotonic()
    while time.monotonic() < began + timeout_s:
        try:
            ether.get("camera", "snap", {"who": "later"})
        except InstanceLeased:
            continue
        return time.monotonic() - began
    raise AssertionError(f"refused for {timeout_s:g} s")


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("engine", EVERY)
def test_others_are_refused_and_told_by_whom(ether: Ether, other: Ether, engine: str, on: On) -> None:
    ether.tap(LAB, broker=on(engine))
    other.tap({"session": "let"})
    with ether.lease("camera", reason="calibration") as lease:
        assert ether.get("camera", "snap", {"who": "me"}) == "picture for me"
        assert ether.sync("prepare") == {"camera": "prepared"}
        with pytest.raises(InstanceLeased) as refused:
            other.get("camera", "snap", {"who": "other"})
        told = refused.value.holder
        assert (refused.value.instance, told["program"], told["pid"]) == ("camera", "main", os.getpid())
        assert (told["reason"], told["host"]) == ("calibration", row(ether, "camera")["host"])
        assert abs(told["since"] - time.time()) < 60
        assert f"main on {told['host']} (pid {os.getpid()})" in str(refused.value)
        with pytest.raises(RemoteError, match="camera does not take snap"):  # an instance asks for itself
            ether.get("neighbour", "snap")
        with pytest.raises(SyncError, match="calibration"):
            other.sync("prepare")
        assert other.save("camera", "keep", {"what": "x"})["error"].partition(":")[0] == "InstanceLeased"
        with pytest.raises(InstanceLeased), other.lease("camera"):
            pass
        assert lease.held
        eventually(lambda: row(other, "camera").get("lease", {}).get("reason") == "calibration")
    assert other.get("camera", "snap", {"who": "other"}) == "picture for other"
    assert ether.get("camera", "log") == ["me", "other"]
    eventually(lambda: "lease" not in row(ether, "camera"))
    assert ether.get("neighbour", "snap_alone") == "picture for neighbour"


def test_messages_and_the_instances_own_work_go_on(ether: Ether, other: Ether) -> None:
    ether.tap(LAB)
    other.tap({"session": "let"})
    with ether.lease("camera"), other.subscribe("seen") as seen:
        other.pub({"number": 3}, "light")
        assert seen.get(timeout_s=patience(10)).value == 3


def test_it_begins_when_what_others_had_begun_is_over_and_what_they_queued_is_refused(
    ether: Ether, other: Ether, tmp_path: Path
) -> None:
    ether.tap(LAB)
    other.tap({"session": "let"})
    running_now = other.get_later("camera", "wait_for_file", {"path": str(tmp_path / "go")}, timeout_s=patience(60))
    queued = other.get_later("camera", "snap", {"who": "queued"}, timeout_s=patience(60))
    eventually((tmp_path / "go.began").exists)
    with pytest.raises(RequestTimeout), ether.lease("camera", timeout_s=0.3):
        pass
    granted, over = threading.Event(), threading.Event()

    def take() -> None:
        with ether.lease("camera", timeout_s=patience(40)):
            granted.set()
            over.wait(patience(40))

    thread = threading.Thread(target=take)
    thread.start()
    eventually(lambda: "lease" in row(ether, "camera"))  # asked for, and announced
    assert not granted.is_set()  # what was begun goes on
    (tmp_path / "go").touch()
    assert granted.wait(patience(30))
    assert other.collect(running_now, timeout_s=patience(30)) == "seen"
    with pytest.raises(InstanceLeased):
        other.collect(queued, timeout_s=30)
    over.set()
    thread.join()


def test_nested_and_on_several_threads_it_is_one_programs(ether: Ether, other: Ether) -> None:
    ether.tap(LAB)
    other.tap({"session": "let"})
    inner_over, may_end = threading.Event(), threading.Event()

    def beside() -> None:
        with ether.lease("camera", reason="beside"):
            inner_over.set()
            assert may_end.wait(patience(20))

    thread = threading.Thread(target=beside)
    with ether.lease("camera"), ether.lease("camera"):
        thread.start()
        assert inner_over.wait(patience(10))
    with pytest.raises(InstanceLeased):
        other.get("camera", "snap")
    may_end.set()
    thread.join()
    assert other.get("camera", "snap", {"who": "other"})


def test_mistakes(ether: Ether) -> None:
    ether.tap(LAB)
    with pytest.raises(NoResponder, match="no instance 'camra'"), ether.lease("camra"):
        pass
    lease = ether.lease("camera")
    with lease, pytest.raises(NotAllowedHere), lease:
        pass


def test_objects_of_this_program_can_be_let_too(ether: Ether, other: Ether) -> None:
    ether.tap({"session": "let"})
    ether.host(Camera(), "camera")
    other.tap({"session": "let"})
    with ether.lease("camera"):
        assert ether.get("camera", "snap", {"who": "me"})
        with pytest.raises(InstanceLeased):
            other.get("camera", "snap")
    with other.lease("camera"):
        with pytest.raises(InstanceLeased):
            ether.get("camera", "snap")
        assert other.get("camera", "snap", {"who": "other"})
    assert ether.get("camera", "snap", {"who": "me"})


def test_a_class_call_goes_to_who_is_free(ether: Ether, other: Ether) -> None:
    ether.tap({"session": "let", "instances": {"camera": CAMERA, "spare": CAMERA}})
    other.tap({"session": "let"})
    with ether.lease("camera"):
        eventually(lambda: "lease" in row(other, "camera"))
        for _ in range(4):
            assert other.get("Camera", "snap", {"who": "any"})
        assert other.get("spare", "log") == ["any"] * 4


HOLDER = """
import threading
from ether import ether
ether.tap({"session": "let"})
with ether.lease("camera", reason="will die") as lease:
    print("it is mine", flush=True)
    pause = threading.Event()
    while lease.held:
        pause.wait(0.1)
"""


@pytest.mark.in_turn("engine")
@pytest.mark.parametrize("engine", EVERY)
def test_it_ends_with_its_holder(
    ether: Ether, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: On
) -> None:
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    broker = on(engine)
    ether.tap(LAB, broker=broker)
    write(tmp_path, "holder.py", HOLDER.replace('"let"}', f'"let", "broker": "{ether.broker_url or broker}"}}'))
    with running(tmp_path, "holder.py") as program:
        program.wait_for("it is mine")
        with pytest.raises(InstanceLeased, match="will die"):
            ether.get("camera", "snap")
        os.kill(program.process.pid, signal.SIGKILL)
        program.process.wait(patience(10))
        assert snap_when_free(ether, 10) < LEASE_TIMEOUT_S  # its process is looked at: nobody waits for its silence


def test_who_is_stopped_for_too_long_is_told(ether: Ether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    ether.tap(LAB)
    write(tmp_path, "holder.py", HOLDER.replace('"let"}', f'"let", "broker": "{ether.broker_url}"}}'))
    with running(tmp_path, "holder.py") as program:
        program.wait_for("it is mine")
        os.kill(program.process.pid, signal.SIGSTOP)
        assert snap_when_free(ether, 3 * LEASE_TIMEOUT_S) > LEASE_TIMEOUT_S / 2
        os.kill(program.process.pid, signal.SIGCONT)
        assert "LeaseEnded" in program.finish().err


@pytest.mark.parametrize("engine", EMBEDDED)
def test_it_outlives_the_broker(ether: Ether, other: Ether, engine: str) -> None:
    ether.tap({"session": "let", "instances": {"camera": CAMERA}}, broker={"engine": engine})
    other.tap({"session": "let"})
    with ether.lease("camera", reason="goes on") as lease:
        broker = ether._launch._broker  # type: ignore[union-attr]
        assert broker is not None
        killed = broker._child.pid
        os.kill(killed, signal.SIGKILL)

        def is_refused() -> bool:
            try:
                other.get("camera", "snap", {"who": "other"})
            except InstanceLeased:
                return True
            except EtherError:  # while nobody is connected
                return False
            raise AssertionError("another program was let in")

        eventually(lambda: broker._child.pid != killed)
        eventually(is_refused, 40)
        assert ether.get("camera", "snap", {"who": "me"}, timeout_s=patience(30))
        assert lease.held


def test_an_instance_that_was_started_again_is_nobodys(ether: Ether) -> None:
    ether.tap(LAB)
    lease = ether.lease("camera")
    lease.__enter__()
    ether.restart("camera")
    deadline = time.monotonic() + patience(10)
    while lease.held:
        assert time.monotonic() < deadline
        ether.get("camera", "log")
    with pytest.raises(LeaseEnded):
        lease.check()
    with pytest.raises(LeaseEnded, match="started again"):
        lease.__exit__(None, None, None)


def test_in_a_lab() -> None:
    from ether import ether

    with Lab(objects={"camera": Camera()}), ether.lease("camera", reason="a test"):
        assert ether.get("camera", "snap", {"who": "me"}) == "picture for me"


def test_ps_shows_who_has_it(ether: Ether) -> None:
    from ether.cli.lab.ps import member_rows

    ether.tap(LAB)
    with ether.lease("camera", reason="calibration"):
        eventually(lambda: "lease" in row(ether, "camera"))
        rows = {each["name"]: each for each in member_rows(ether._joined("the test"))}
    assert f"(pid {os.getpid()})" in rows["camera"]["lease"]
    assert rows["camera"]["lease"].endswith(": calibration")
    assert rows["neighbour"]["lease"] is None


def test_the_lease_table() -> None:
    def holder(key: str) -> LeaseHolder:
        return LeaseHolder(key, "main", "here", 1, "", 0.0)

    table = LeaseTable()
    assert table.take(holder("a"), "1", 0.0) is None
    assert table.take(holder("a"), "2", 0.0) is None
    assert table.take(holder("b"), "3", 0.0) == holder("a")
    assert not table.renew("b", "3", 1.0)
    assert not table.renew("a", "never taken", 1.0)
    assert table.renew("a", "1", 1.0)
    assert not table.is_late(1.0 + LEASE_TIMEOUT_S)
    assert table.is_late(1.1 + LEASE_TIMEOUT_S)
    table.extend(5.0)
    assert not table.is_late(5.0)
    assert not table.release("b", "1")
    assert not table.release("a", "1")
    assert table.release("a", "2")
    assert table.take(holder("b"), "3", 6.0) is None
    assert table.end() == holder("b")
    assert not table.renew("b", "3", 6.0)
