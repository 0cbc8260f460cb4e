"""The record of a running session: found while it runs, gone with its program, and never a stranger's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ether.errors import BrokerFailed
from ether.session.discovery.local_sessions import (
    DIGEST_NAME,
    FILE_NAME,
    SessionRecord,
    fate_of,
    read_records,
    write_record,
)
from ether.system.folders import private_folder, runtime_folder
from ether.system.private_files import NotPrivate, read_private, write_private
from ether.system.processes import birth_of, is_running, this_place

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
URL = "mqtt://me:hush@127.0.0.1:1"


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """An environment whose runtime folder is this test's own."""
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def somebody() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def written(tmp_path: Path, record: SessionRecord, name: str = "ether-1") -> Path:
    folder = tmp_path / name
    folder.mkdir(mode=0o700)
    write_record(folder, record)
    return folder


def record_of(pid: int, **changes: Any) -> SessionRecord:
    return replace(SessionRecord.of_this_process("bench", URL, 12.5), pid=pid, pid_started=birth_of(pid), **changes)


def test_a_running_session_is_found(tmp_path: Path, runtime: dict[str, str]) -> None:
    record = SessionRecord.of_this_process("bench", URL)
    folder = written(tmp_path, record)
    assert read_records(runtime) == [record]
    assert (folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder) == [FILE_NAME]


def test_programs_of_before_can_read_a_record(tmp_path: Path, runtime: dict[str, str]) -> None:
    """They refuse a record with a key that they do not know: what was added since stands beside it."""
    record = SessionRecord.of_this_process("bench", URL, configuration="ab" * 32)
    folder = written(tmp_path, record)
    known = {"session", "url", "host", "pid", "since", "version", "pid_started", "boot", "namespace"}
    assert json.loads((folder / FILE_NAME).read_text()).keys() == known
    assert read_records(runtime) == [record]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    (folder / DIGEST_NAME).write_text("[")
    assert read_records(runtime) == [replace(record, configuration="")]


def test_no_repr_shows_the_password() -> None:
    assert "hush" not in repr(SessionRecord.of_this_process("bench", URL))


def test_the_oldest_comes_first(tmp_path: Path, runtime: dict[str, str]) -> None:
    for name, since in (("b", 3.0), ("a", 9.0), ("c", 1.0)):
        written(tmp_path, SessionRecord.of_this_process(name, URL, since), f"ether-{name}")
    assert [record.session for record in read_records(runtime)] == ["c", "b", "a"]


def test_a_dead_ones_folder_is_removed(
    tmp_path: Path, runtime: dict[str, str], somebody: subprocess.Popen[bytes]
) -> None:
    folder = written(tmp_path, record_of(somebody.pid))
    assert [record.pid for record in read_records(runtime)] == [somebody.pid]
    somebody.kill()
    assert somebody.stdin is not None
    os.waitid(os.P_PID, somebody.pid, os.WEXITED | os.WNOWAIT)  # dead, and not waited for: a zombie
    assert read_records(runtime) == []
    assert not folder.exists()


@LINUX
def test_a_pid_that_was_given_out_again_is_another_process(tmp_path: Path, runtime: dict[str, str]) -> None:
    folder = written(tmp_path, replace(SessionRecord.of_this_process("bench", URL), pid_started="1"))
    assert read_records(runtime) == []
    assert not folder.exists()


@LINUX
def test_where_the_pid_means_nothing_it_is_not_judged() -> None:
    here = this_place()
    gone = replace(SessionRecord.of_this_process("bench", URL), pid_started="1")
    assert fate_of(gone, here) == "is over"
    assert fate_of(replace(gone, namespace="pid:[1]"), here) == "is elsewhere"
    assert fate_of(replace(gone, host="other", boot="another"), here) == "is elsewhere"
    assert fate_of(replace(gone, boot="an earlier one"), here) == "is over"
    assert fate_of(replace(SessionRecord.of_this_process("bench", URL), host="renamed"), here) == "runs"


@LINUX
def test_a_session_of_another_container_is_left_alone(tmp_path: Path, runtime: dict[str, str]) -> None:
    folder = written(tmp_path, replace(SessionRecord.of_this_process("bench", URL), pid=999_999, namespace="pid:[1]"))
    assert read_records(runtime) == []
    assert folder.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": 1}', "[" * 10_000, '"x"' * 200_000],
    ids=["empty", "half", "list", "null", "keys", "deep", "long"],
)
def test_a_damaged_record_is_ignored_and_kept(tmp_path: Path, runtime: dict[str, str], text: str) -> None:
    folder = written(tmp_path, SessionRecord.of_this_process("bench", URL))
    (folder / FILE_NAME).write_text(text)
    assert read_records(runtime) == []
    assert folder.exists()


@pytest.mark.parametrize(
    "changes",
    [{"pid": "1"}, {"pid": True}, {"pid": -1}, {"pid": 0}, {"since": "now"}, {"url": None}, {"more": 1}],
    ids=str,
)
def test_a_record_of_other_types_is_ignored(tmp_path: Path, runtime: dict[str, str], changes: dict[str, Any]) -> None:
    record = SessionRecord.of_this_process("bench", URL)
    folder = written(tmp_path, record)
    (folder / FILE_NAME).write_text(json.dumps({**asdict(record), **changes}))
    assert read_records(runtime) == []
    assert folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has owners and mode bits")
def test_what_others_may_have_written_is_not_believed(tmp_path: Path, runtime: dict[str, str]) -> None:
    folder = written(tmp_path, SessionRecord.of_this_process("bench", URL))
    (folder / FILE_NAME).chmod(0o666)
    assert read_records(runtime) == []
    (folder / FILE_NAME).chmod(0o600)
    folder.chmod(0o777)
    assert read_records(runtime) == []
    folder.chmod(0o700)
    (tmp_path / "ether-link").symlink_to(folder)
    assert len(read_records(runtime)) == 1
    if os.geteuid() == 0:
        os.chown(folder / FILE_NAME, 12345, -1)
        assert read_records(runtime) == []
        with pytest.raises(NotPrivate):
            read_private(str(folder / FILE_NAME))


def test_a_session_that_is_starting_has_no_record_and_is_left_alone(tmp_path: Path, runtime: dict[str, str]) -> None:
    (tmp_path / "ether-starting").mkdir(mode=0o700)
    (tmp_path / "other").mkdir()
    assert read_records(runtime) == []
    assert sorted(os.listdir(tmp_path)) == ["ether-starting", "other"]


def test_no_runtime_folder_means_no_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert read_records({"XDG_RUNTIME_DIR": str(tmp_path / "left over from somebody else")}) == []


def test_a_record_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(BrokerFailed, match=r"'bench' cannot be written to .*missing"):
        write_record(tmp_path / "missing", SessionRecord.of_this_process("bench", URL))


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    write_private(path, {"a": 1})
    with pytest.raises(TypeError):
        write_private(path, {"a": object()})
    assert read_private(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["file"]


def test_the_private_folder_lies_where_records_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert os.path.dirname(private_folder()) == runtime_folder() == str(tmp_path)


def test_which_processes_run() -> None:
    assert is_running(os.getpid(), birth_of(os.getpid()))
    assert is_running(os.getpid(), None)
    assert not is_running(2**22 + 1, None)
    assert not is_running(2**70, None)
