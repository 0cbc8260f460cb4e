"""A process's identity: the text that names its start, and whether it still runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ether.system.processes import birth_of, is_running, rss_mb

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to compare")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@LINUX
def test_a_birth_is_the_number_of_clock_ticks_that_the_kernel_writes(other: subprocess.Popen[bytes]) -> None:
    # files of running sessions hold this form; an Ether of another version compares it
    for pid in (1, os.getpid(), os.getppid(), other.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        assert birth_of(pid) == fields[19]


@LINUX
def test_a_birth_does_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    birth = birth_of(os.getpid())
    read = psutil._psplatform.boot_time
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: read() + 3600.0)
    assert birth_of(os.getpid()) == birth


@LINUX
def test_a_clock_that_is_set_during_the_look_does_not_change_a_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    birth = birth_of(os.getpid())
    read, looks = psutil._psplatform.boot_time, []

    def stepping() -> float:
        looks.append(1)
        return read() + (0.0 if len(looks) < 2 else 7.0)

    monkeypatch.setattr(psutil._psplatform, "boot_time", stepping)
    assert birth_of(os.getpid()) == birth


def test_a_process_runs_under_its_own_birth_only(other: subprocess.Popen[bytes]) -> None:
    assert is_running(other.pid, None)
    assert is_running(other.pid, birth_of(other.pid))
    if birth_of(other.pid) is not None:
        assert not is_running(other.pid, "1")


def test_a_process_that_has_ended_does_not_run(other: subprocess.Popen[bytes]) -> None:
    birth = birth_of(other.pid)
    other.kill()
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(other.pid, birth)  # a zombie
    other.wait()
    assert not is_running(other.pid, birth)
    assert birth_of(other.pid) is None


def test_an_id_that_cannot_be_is_no_process() -> None:
    assert not is_running(1 << 80, None)
    assert birth_of(1 << 80) is None
    assert birth_of(-1) is None


def test_a_process_that_is_hidden_but_may_be_signalled_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr(psutil, "Process", hidden)
    assert is_running(os.getpid(), "1") == (sys.platform != "win32")


def test_the_memory_of_this_process() -> None:
    memory = rss_mb()
    assert memory is not None
    assert 5 < memory < 5000


def test_psutil_is_loaded_by_the_first_question() -> None:
    code = "import sys, ether.launch.child_main, ether.launch.launcher; print('psutil' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
