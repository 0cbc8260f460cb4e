"""What a service tells systemd, heard at a real notification socket; and the watchdog of a worker that hangs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether.errors import NotAuthorized
from ether.security.lab_key import LabKey
from ether.system import systemd as sd_notify
from ether.system.systemd import Notifier, Watchdog
from ether.transport import open_transport
from ether.transport.endpoint import Endpoint

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets here")

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
PERIOD_S = 0.3

SERVICE = """
import os, queue, re, subprocess, sys, threading
from ether.system.systemd import Notifier, Watchdog
from ether.security.lab_key import LabKey
from ether.transport import open_transport
from ether.transport.endpoint import Endpoint

notifier = Notifier.from_environment(os.environ)
jobs, idle, go_on = queue.SimpleQueue(), threading.Event(), threading.Event()
idle.set()

def work():
    while True:
        job = jobs.get()
        idle.clear()
        job()
        idle.set()

threading.Thread(target=work, daemon=True).start()
inherited = "import os; print('left:', [name for name in os.environ if name.startswith(('NOTIFY', 'WATCHDOG'))])"
notifier.ready(subprocess.run([sys.executable, "-c", inherited], capture_output=True, text=True).stdout)
with Watchdog(notifier, idle.is_set):
    for line in sys.stdin:
        if line == "hang\\n":
            go_on.clear()
            jobs.put(go_on.wait)
        elif line == "go on\\n":
            go_on.set()
        elif line == "spin in C\\n":
            re.match(r"(a+)+$", "a" * 60 + "b")  # for ages, and without giving the interpreter's lock back
notifier.stopping()
"""


class Systemd:
    """The receiving end: one message after another."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, timeout_s: float = 10.0) -> str | None:
        """The next message, None where there is none for so long."""
        return self._heard_within(patience(timeout_s))

    def _heard_within(self, seconds: float) -> str | None:
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65536).decode()
        except TimeoutError:
            return None

    def wait_for(self, text: str, timeout_s: float = 20.0) -> str:
        """The next message with this text in it."""
        deadline, heard = time.monotonic() + patience(timeout_s), []
        while time.monotonic() < deadline:
            message = self._heard_within(deadline - time.monotonic())
            if message is not None and text in message:
                return message
            heard.append(message)
        raise AssertionError(f"{text!r} was not said; heard: {heard}")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    receiver = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@ether-test-{uuid.uuid4().hex}")
    yield receiver
    receiver.close()


@contextmanager
def service(systemd: Systemd, command: list[str], period_s: float, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process as systemd starts it, but for the pid, which only a parent between fork and exec knows."""
    environ = {**os.environ, "NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": str(int(period_s * 1e6)), **more}
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stdin=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def test_a_worker_that_hangs_is_no_longer_vouched_for(systemd: Systemd) -> None:
    with service(systemd, [sys.executable, "-c", SERVICE], PERIOD_S) as process:
        assert systemd.wait_for("READY=1") == "READY=1\nSTATUS=left: []"
        for _ in range(4):
            assert systemd.hear() == "WATCHDOG=1"
        say(process, "hang")
        systemd.wait_for("STATUS=hangs")
        assert systemd.hear(5 * PERIOD_S) is None
        say(process, "go on")
        systemd.wait_for("WATCHDOG=1")
        say(process, "spin in C")
        deadline = time.monotonic() + patience(20)
        while systemd.hear(4 * PERIOD_S) is not None:
            assert time.monotonic() < deadline, "pings went on while the interpreter was stuck"
        assert systemd.hear(4 * PERIOD_S) is None, "they paused, and went on"


def test_an_ordinary_end(systemd: Systemd) -> None:
    with service(systemd, [sys.executable, "-c", SERVICE], PERIOD_S) as process:
        systemd.wait_for("READY=1")
        assert process.stdin is not None
        process.stdin.close()
        systemd.wait_for("STOPPING=1")
        assert process.wait(patience(10)) == 0
        assert systemd.hear(2 * PERIOD_S) is None


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    notifier = Notifier.from_environment(environ)
    assert notifier is not None
    assert notifier.watchdog_s == 30.0
    assert environ == {"A": "b"}


@pytest.mark.parametrize(
    ("said", "expected"), [("", None), ("0", None), ("soon", None), ("-5", None), ("²", None), ("1500000", 1.5)]
)
def test_the_watchdogs_period(said: str, expected: float | None) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": said})
    assert notifier is not None
    assert notifier.watchdog_s == expected


def test_a_watchdog_that_is_somebody_elses() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)}
    notifier = Notifier.from_environment(environ)
    assert notifier is not None
    assert notifier.watchdog_s is None
    assert not any(name in environ for name in VARIABLES)


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "notify"])
def test_no_systemd_of_ours(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}
    assert Notifier.from_environment(environ) is None
    assert environ == {}
    with Watchdog(None, lambda: True):
        pass


def test_a_status_is_one_line(systemd: Systemd) -> None:
    notifier = Notifier(systemd.address)
    assert notifier.status("warm\nREADY=1\r\nMAINPID=1 \udc80" + "x" * 9000)
    heard = systemd.hear()
    assert heard is not None
    assert heard.startswith("STATUS=warm READY=1 MAINPID=1 ?xxx")
    assert "\n" not in heard
    assert len(heard) < 600
    assert notifier.status("")
    assert notifier.more_time(2.5)
    assert systemd.hear() == "EXTEND_TIMEOUT_USEC=2500000"


def test_systemd_is_gone(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "nobody"))
    assert not notifier.ready()
    assert not notifier.watchdog()
    assert not Notifier("/" + "x" * 200).ready()


def test_systemd_does_not_read(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd_notify, "SEND_S", 0.05)
    notifier = Notifier(systemd.address)
    began = time.monotonic()
    assert not all(notifier.watchdog() for _ in range(3000))
    assert time.monotonic() - began < 160
    systemd.wait_for("WATCHDOG=1")
    assert notifier.ready()


def test_a_question_that_fails_is_no_sign_of_life(systemd: Systemd) -> None:
    def alive() -> bool:
        raise RuntimeError("who knows")

    with Watchdog(Notifier(systemd.address, watchdog_s=0.05), alive):
        assert systemd.hear() == "STATUS=hangs: the watchdog is no longer fed"
        assert systemd.hear(0.3) is None


def test_no_thread_without_a_period() -> None:
    watchdog = Watchdog(Notifier("/nowhere"), lambda: True).start()
    assert watchdog._thread is None
    watchdog.close()


@pytest.mark.parametrize("engine", engines)
def test_the_broker_as_a_service(engine: str, systemd: Systemd, tmp_path: Path) -> None:
    if engine == "mosquitto" and mosquitto_missing:
        pytest.skip(mosquitto_missing)
    command = [sys.executable, "-P", "-m", "ether.launch.broker_service"]
    command += ["--listen", "loopback", "--port", "0", "--engine", engine]
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with service(systemd, command, 2.0, **environ) as process:
        ready = systemd.wait_for("READY=1")
        assert re.search(rf"STATUS={engine} [\d.]+ at mqtt://127.0.0.1:\d+", ready)
        systemd.wait_for("WATCHDOG=1")
        frozen = _engine_of(process.pid, engine)
        os.kill(frozen, signal.SIGSTOP)
        systemd.wait_for("STATUS=hangs", 20)
        os.kill(frozen, signal.SIGCONT)
        systemd.wait_for("WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        systemd.wait_for("STOPPING=1")
        assert process.wait(patience(20)) == 0
    assert soon(lambda: not [path for path in tmp_path.iterdir() if path.is_dir()], 2.0)


@pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_the_brokers_service_lets_in_who_holds_the_lab_key(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    command = [sys.executable, "-P", "-m", "ether.launch.broker_service", "--listen", "127.0.0.2", "--port", "0"]
    command += ["--security", "off"]
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "ETHER_KEY": "ab" * 16, "PYTHONPATH": str(ROOT)}
    try:
        with service(systemd, command, 30.0, **environ) as process:
            found = re.search(r"mqtt://(127\.0\.0\.2):(\d+)", systemd.wait_for("READY=1"))
            assert found is not None
            for key, fits in (("ab" * 16, True), ("cd" * 16, False)):
                who = LabKey(key, "test").credentials()
                endpoint = Endpoint("tcp", found[1], int(found[2]), username=who.username, password=who.password)
                assert lets_in(endpoint) is fits
            process.send_signal(signal.SIGTERM)
            assert process.wait(patience(20)) == 0
    finally:
        systemd.close()


def lets_in(endpoint: Endpoint) -> bool:
    transport = open_transport(endpoint, client_id="visitor")
    try:
        transport.connect(5.0)
    except NotAuthorized:
        return False
    finally:
        transport.close()
    return True


def _engine_of(pid: int, engine: str) -> int:
    """The process that serves clients: mosquitto itself, or `python -m broker` for amqtt."""
    wanted = b"mosquitto\0" if engine == "mosquitto" else b"\0broker\0"
    for child in _descendants(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes()
        if wanted in words:
            return child
    raise AssertionError(f"no {engine} below {pid}")


def _descendants(pid: int) -> list[int]:
    if not Path(f"/proc/{pid}/task").exists():
        pytest.skip("children cannot be found without /proc")
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [each for child in children for each in (child, *_descendants(child))]


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-P", "-m", "ether.launch.broker_service", "--listen", "loopback"]
        command += ["--engine", "amqtt", "--port", str(taken.getsockname()[1])]
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=patience(60), check=False)
    assert done.returncode == 1
    assert " - ERROR - the embedded broker ended" in done.stderr
    assert "another program" in done.stderr.lower() or "in use" in done.stderr.lower()


@pytest.mark.parametrize(
    "words", [["--listen", "everywhere"], ["--listen", "lan", "--engine", "hivemq"], ["--port", "x"]]
)
def test_a_broker_that_was_told_nonsense_says_so(words: list[str]) -> None:
    command = [sys.executable, "-m", "ether.launch.broker_service", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(60), check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
