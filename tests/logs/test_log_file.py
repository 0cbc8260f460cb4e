"""One file for the whole session: complete, bounded, readable, and still written after a full disk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from log_rig import ENGINES, TOPICS, alone, levels, links
from patience import patience
from running_brokers import RunningBroker, running_broker, soon

from ether.connection.link import Link
from ether.errors import ConfigError
from ether.logs.lines import LogLine
from ether.logs.session_file import FILES, KEPT_SESSIONS, SessionLog, log_folder, log_path, read_back
from ether.logs.shipping import LogShipper
from ether.transport.loopback import LoopbackBroker, LoopbackTransport

NEEDS_DEV_FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
log = logging.getLogger("user.code")
pytestmark = pytest.mark.in_turn("broker")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


@pytest.fixture
def open_link(broker: RunningBroker) -> Iterator[Callable[[str], Link]]:
    with links(broker) as open_one:
        yield open_one


@pytest.fixture
def link() -> Iterator[Link]:
    """Over a broker in memory."""
    opened = Link(LoopbackTransport(LoopbackBroker(), client_id="main"), "main")
    opened.open(patience(10))
    yield opened
    opened.close()


def publish(link: Link, message: str, *, instance: str = "cam", level: str = "INFO", at: float | None = None) -> None:
    value = {"time": time.time() if at is None else at, "level": level, "logger": "", "pid": 7, "message": message}
    link.publish(TOPICS.log(instance), value, qos=0)


def written(folder: Path) -> list[LogLine]:
    return list(read_back("test", folder=folder))


def test_the_records_of_every_instance_are_in_one_file(tmp_path: Path, open_link: Callable[[str], Link]) -> None:
    session_log = SessionLog(open_link("main"), TOPICS, tmp_path)
    began = time.time()
    with levels(logging.DEBUG), alone():
        shippers = [LogShipper(open_link(name), TOPICS, name) for name in ("cam", "pump")]
        log.info("of both")
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            log.exception("failed")
        for shipper in shippers:
            shipper.close()
    assert soon(lambda: len(written(tmp_path)) == 4, 10)
    session_log.close()
    assert sorted((line.instance, line.level) for line in written(tmp_path)) == [
        ("cam", "ERROR"), ("cam", "INFO"), ("pump", "ERROR"), ("pump", "INFO"),
    ]  # fmt: skip
    (error,) = read_back("test", began - 1, "pump", "error", folder=tmp_path)
    assert error.message.startswith("failed\nTraceback (most recent call last):")
    assert error.message.endswith("RuntimeError: broken")
    assert error.pid == os.getpid()
    assert list(read_back("test", time.time() + 60, folder=tmp_path)) == []


def test_a_flood_from_four_arrives_complete_or_counted(tmp_path: Path, open_link: Callable[[str], Link]) -> None:
    session_log = SessionLog(open_link("main"), TOPICS, tmp_path)
    count = 5_000

    def flood(name: str) -> None:
        link = open_link(name)
        for number in range(count):
            publish(link, f"{number}", instance=name, level="ERROR" if number % 100 == 0 else "DEBUG")

    threads = [threading.Thread(target=flood, args=(f"cam{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def arrived() -> int:
        return session_log.lost + sum(line.instance != "Ether" for line in written(tmp_path))

    assert soon(lambda: arrived() == 4 * count, 30), arrived()
    session_log.close()
    assert sum(line.level == "ERROR" for line in written(tmp_path)) == 4 * count // 100


def test_the_file_rotates_and_is_read_back_in_order(tmp_path: Path, link: Link) -> None:
    session_log = SessionLog(link, TOPICS, tmp_path, max_bytes=10_000)
    for number in range(3000):
        publish(link, f"record {number}")
    assert soon(lambda: any(line.message == "record 2999" for line in written(tmp_path)), 10)
    session_log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["test.log", *(f"test.log.{number}" for number in range(1, FILES))]
    assert all(file.stat().st_size <= 10_000 for file in files)
    numbers = [int(line.message.split()[1]) for line in written(tmp_path)]
    assert numbers == list(range(numbers[0], 3000))
    assert len(numbers) > 500
    if os.name == "posix":
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


@NEEDS_DEV_FULL
def test_a_full_disk_is_said_once_and_counted_and_then_it_goes_on(
    tmp_path: Path, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    path = log_path("test", tmp_path)
    path.symlink_to("/dev/full")
    session_log = SessionLog(link, TOPICS, tmp_path)
    publish(link, "the first")
    assert soon(lambda: session_log.lost == 1, 5)
    for number in range(99):
        publish(link, f"lost {number}")
    assert soon(lambda: session_log.lost == 100, 5)
    path.unlink()
    assert soon(lambda: publish(link, "there is room again") or bool(written(tmp_path)), 5)
    session_log.close()
    errors = [record.getMessage() for record in caplog.records if record.name == "Ether.logs"]
    assert errors[0] == "the log file of session test cannot be written: [Errno 28] No space left on device"
    lost = session_log.lost
    assert errors[1:] == [f"the log file is written again; {lost} records are missing in it"]
    first = written(tmp_path)[0]
    assert first.message == f"{lost:,} records are missing here: the file could not be written"
    assert {line.message for line in written(tmp_path)[1:]} == {"there is room again"}


def test_a_folder_that_cannot_be_made_harms_nobody(
    tmp_path: Path, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    session_log = SessionLog(link, TOPICS, tmp_path / "file" / "logs")
    publish(link, "lost")
    assert soon(lambda: session_log.lost == 1, 5)
    session_log.close()
    assert sum("cannot be written" in record.getMessage() for record in caplog.records) == 1


def test_a_file_that_is_removed_is_made_again(tmp_path: Path, link: Link) -> None:
    session_log = SessionLog(link, TOPICS, tmp_path)
    publish(link, "one")
    assert soon(lambda: len(written(tmp_path)) == 1, 5)
    log_path("test", tmp_path).unlink()
    publish(link, "two")
    assert soon(lambda: len(written(tmp_path)) == 1, 5)
    session_log.close()
    assert [line.message for line in written(tmp_path)] == ["two"]


def test_strangers_bytes_are_counted_and_said_once(
    tmp_path: Path, link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    session_log = SessionLog(link, TOPICS, tmp_path)
    for payload in (b"", b"\xff\xfe", b"[1", b'{"level": "INFO"}', b"{" * 5000):
        link.transport.publish(TOPICS.log("cam"), payload, qos=0)
    link.transport.publish(TOPICS.log("no\u00a0name "), b"{}", qos=0)
    publish(link, "surrogate \udc80 and bell \x07")
    assert soon(lambda: len(written(tmp_path)) == 1, 5)
    session_log.close()
    assert session_log.lost == 6
    assert sum("is no log record" in record.getMessage() for record in caplog.records) == 1
    assert [line.message for line in written(tmp_path)] == ["surrogate \\udc80 and bell \\x07"]


def test_old_sessions_make_room(tmp_path: Path, link: Link) -> None:
    def age(name: str, days: float) -> None:
        file = tmp_path / name
        file.write_text("x")
        os.utime(file, (time.time() - days * 86_400,) * 2)

    for number in range(KEPT_SESSIONS + 10):
        age(f"s{number:03d}.log", number / 100)
    age("old.log", 31)
    age("old.log.1", 33)
    age("long.log", 0.001)
    age("long.log.4", 90)
    age("test.log", 400)
    age("notes.txt", 400)
    age("x.log.bak", 400)
    SessionLog(link, TOPICS, tmp_path).close()
    left = {file.name for file in tmp_path.iterdir()}
    assert {"test.log", "notes.txt", "x.log.bak", "long.log", "long.log.4"} < left
    assert not {"old.log", "old.log.1"} & left
    sessions = {name for name in left if name.startswith("s")}
    assert sessions == {f"s{number:03d}.log" for number in range(KEPT_SESSIONS - 2)}


def test_where_the_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert log_path("bench") == tmp_path / "ether" / "logs" / "bench.log"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if os.name == "posix":
        assert log_folder() == tmp_path / "home" / ".local" / "state" / "ether" / "logs"


@pytest.mark.parametrize("session", ["..", "a\\b", "a:b", "con*", "\U0001f600" * 64, "ü" * 64, "." * 64])
def test_every_session_name_is_a_file_name(session: str, tmp_path: Path) -> None:
    path = log_path(session, tmp_path)
    assert path.parent == tmp_path
    path.write_text("")
    assert not set(path.name) & set('\\/:*?"<>|')


def test_no_file_is_no_record_and_an_unknown_level_is_an_error(tmp_path: Path) -> None:
    assert list(read_back("never", folder=tmp_path)) == []
    with pytest.raises(ConfigError):
        list(read_back("never", level="loud", folder=tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files that is told as an error")
def test_half_a_line_is_ended_and_only_whole_lines_count(tmp_path: Path) -> None:
    program = f"""
        import resource
        from pathlib import Path
        from ether.logs.rotating_file import RotatingFile, Unwritten
        file = RotatingFile(Path({str(tmp_path / "x.log")!r}), 1_000_000, 2)
        lines = [bytes([65 + number]) * 299 + b"\\n" for number in range(5)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        for expected in (2, 5):
            try:
                file.write(lines)
            except Unwritten as error:
                assert error.lines == expected, error.lines
            else:
                raise SystemExit("it was written")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        file.write(lines[-1:])
        file.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=Path(__file__).parents[2])
    assert [(line[:1], len(line)) for line in (tmp_path / "x.log").read_bytes().splitlines()] == [
        (b"A", 299), (b"B", 299), (b"C", 299), (b"D", 100), (b"E", 299),
    ]  # fmt: skip
