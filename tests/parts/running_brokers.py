"""Real brokers for tests and benchmarks: the child process that the framework itself starts, and a stock Mosquitto.

A stock Mosquitto (`stock`) is what everybody has who installs one: its configuration names a port and lets everybody
in, and everything else is as Mosquitto ships. `stock-persistent` also keeps its state on disk.

Promise: `running_broker` gives a broker that lets clients in, and leaves no process, thread, folder or port behind,
however its body ends. The trap: a broker that was restarted is another object, with the same address and credentials.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patience import patience

READY_S = 15.0
END_S = 5.0

Family = list["RunningBroker"]


def _find_mosquitto() -> str | None:
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"]
    return shutil.which("mosquitto", path=os.pathsep.join(folders))


_MOSQUITTO = _find_mosquitto()
mosquitto_missing: str | None = (
    None if _MOSQUITTO else "mosquitto is not installed: apt install mosquitto, or brew install mosquitto"
)
"""The reason for `pytest.mark.skipif(mosquitto_missing is not None, …)`, or None where mosquitto is installed."""

engines: list[str] = ["amqtt", "mosquitto"]
"""The engines of the embedded broker."""

STOCK, STOCK_PERSISTENT = "stock", "stock-persistent"
ONLY_3_1_1 = "amqtt-3.1.1"
"""The embedded engine amqtt, told to speak MQTT 3.1.1 alone: Ether's headers travel in the bodies then."""
only_engine: str | None = os.environ.get("ETHER_TEST_BROKER")
"""With ETHER_TEST_BROKER the suites run over this broker alone: all of their sessions, not only those that are
parametrized. So runs the long form over a stock Mosquitto."""

_LONG = [ONLY_3_1_1, STOCK_PERSISTENT] if os.environ.get("ETHER_LONG") == "1" else []
every_engine: list[str] = [*engines, STOCK, *_LONG]
"""The embedded ones, and a stock Mosquitto; in the long form one with persistence, and one of MQTT 3.1.1 alone, too."""
if only_engine is not None:
    every_engine = [only_engine]


@dataclass(frozen=True)
class RunningBroker:
    """One broker that lets clients in. Times are seconds."""

    engine: str
    version: str
    host: str
    port: int
    unix_socket: str | None
    username: str
    password: str = field(repr=False)
    max_packet_bytes: int
    protocols: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(repr=False)
    engine_pid: int
    private_dir: Path
    stderr_path: Path = field(repr=False)
    _events: queue.SimpleQueue[dict[str, Any]] = field(repr=False)
    _reader: threading.Thread = field(repr=False)
    _settings: dict[str, Any] = field(repr=False)
    _family: Family = field(repr=False)
    lan_host: str | None = None
    lan_port: int | None = None
    websocket_port: int | None = None

    @property
    def url_tcp(self) -> str:
        """`mqtt://user:password@host:port`; a stock broker wants no user."""
        user = f"{self.username}:{self.password}@" if self.username else ""
        return f"mqtt://{user}{self.host}:{self.port}"

    @property
    def url_unix(self) -> str | None:
        """`unix://user:password@/path`, or None where the engine has no such socket."""
        if self.unix_socket is None:
            return None
        return f"unix://{self.username}:{self.password}@{self.unix_socket}"

    @property
    def url_ws(self) -> str | None:
        """`ws://user:password@host:port`, or None where there is no such listener."""
        if self.websocket_port is None:
            return None
        return f"ws://{self.username}:{self.password}@{self.lan_host}:{self.websocket_port}"

    def event(self, kind: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """The next event of that kind from the broker's stdout; `AssertionError` when the time is over."""
        return _next_event(self._events, kind, timeout_s, self.process)

    def stderr(self) -> str:
        """What the broker has written to stderr so far."""
        return self.stderr_path.read_text(errors="replace")

    def stop(self) -> int:
        """Ask it to stop, wait until it has, and give back its exit code."""
        if self.process.stdin is None:
            self.process.terminate()
        _close_stdin(self.process, b"stop\n")
        return self._reap()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the block it does nothing, as on a machine whose disk or virtual machine stands still."""
        os.kill(self.engine_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.engine_pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL for the whole of it, engine included, as by a power cut."""
        _kill_pid(self.process.pid)
        if self.engine_pid != self.process.pid:
            _kill_pid(self.engine_pid)
        _close_stdin(self.process)
        self._reap()
        assert soon(lambda: not alive(self.engine_pid), END_S)

    def restart(self) -> RunningBroker:
        """Another broker at the same address, with the same credentials; this one is stopped if it still runs."""
        if self.process.poll() is None:
            self.stop()
        return start_broker(self._family, **{**self._settings, **self._ports()})

    def _ports(self) -> dict[str, int]:
        return {"port": self.port} | ({} if self.websocket_port is None else {"websocket_port": self.websocket_port})

    def _reap(self) -> int:
        try:
            code = self.process.wait(patience(END_S))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(patience(END_S))
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def discard(self) -> None:
        """Make sure that nothing of it is left."""
        if self.process.stdin is None:
            self.process.terminate()
        _close_stdin(self.process)
        self._reap()
        if alive(self.engine_pid) and self.engine_pid != self.process.pid:
            _kill_pid(self.engine_pid)
        shutil.rmtree(self.private_dir, ignore_errors=True)
        self.stderr_path.unlink(missing_ok=True)


@contextmanager
def running_broker(engine: str, **settings: Any) -> Iterator[RunningBroker]:
    """A broker of that engine; `settings` are keys of its settings file (port, max_packet_bytes, …). For a stock one
    they are lines of its configuration."""
    family: Family = []
    try:
        yield start_broker(family, engine=engine, **settings)
    finally:
        for broker in family:
            broker.discard()


@contextmanager
def session_broker(engine: str) -> Iterator[Any]:
    """What `ether.tap(broker=…)` takes for a session on that engine: the embedded broker, or the URL of a stock one."""
    engine = only_engine or engine
    if engine in engines:
        yield {"engine": engine}
    else:
        with running_broker(engine) as broker:
            yield broker.url_tcp


def write_settings(folder: Path, **settings: Any) -> Path:
    """A settings file of mode 0600 in the folder, as the framework writes it."""
    path = folder / "settings.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(settings, file)
    return path


def start_broker(family: Family, **settings: Any) -> RunningBroker:
    """Start one, wait for its ready line, and enter it into the family, which its creator discards."""
    if settings.get("engine") in (STOCK, STOCK_PERSISTENT):
        return _start_stock(family, **settings)
    if settings.get("engine") == ONLY_3_1_1:
        settings |= {"engine": "amqtt", "protocols": ["3.1.1"]}
    folder = Path(tempfile.mkdtemp(prefix="ether-test-"))
    settings = {
        "username": "ether",
        "password": secrets.token_urlsafe(16),
        **settings,
    }
    path = write_settings(
        folder, **{"unix_socket": str(folder / "broker.sock"), "private_dir": str(folder), **settings}
    )
    stderr_path = Path(f"{folder}.stderr")
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "broker", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_events, args=(process, events), name="broker-events", daemon=True)
    reader.start()
    try:
        ready = _next_event(events, "ready", READY_S, process)
    except BaseException:
        _abandon(process, reader, folder, stderr_path)
        raise
    broker = RunningBroker(
        engine=ready["engine"],
        version=ready["version"],
        host=ready["host"],
        port=ready["port"],
        unix_socket=ready["unix_socket"],
        username=settings["username"],
        password=settings["password"],
        max_packet_bytes=ready["max_packet_bytes"],
        protocols=tuple(ready["protocols"]),
        process=process,
        engine_pid=ready["pid"],
        private_dir=folder,
        stderr_path=stderr_path,
        _events=events,
        _reader=reader,
        _settings=settings,
        _family=family,
        lan_host=ready["lan_host"],
        lan_port=ready["lan_port"],
        websocket_port=ready["websocket_port"],
    )
    family.append(broker)
    return broker


def _start_stock(family: Family, engine: str, port: int = 0, **settings: Any) -> RunningBroker:
    """Start a stock Mosquitto at that port, or at a free one; again at another one where somebody else was faster."""
    for _ in range(1 if port else 3):
        try:
            return _try_stock(family, engine, port or _free_port(), settings)
        except AssertionError as failed:
            failure = failed
    raise failure


def _try_stock(family: Family, engine: str, port: int, settings: dict[str, Any]) -> RunningBroker:
    assert _MOSQUITTO is not None, mosquitto_missing
    folder = Path(tempfile.mkdtemp(prefix="ether-test-"))
    settings = {"allow_anonymous": "true", **settings}
    if engine == STOCK_PERSISTENT:
        # It saves its state at a normal end only, unless told otherwise, and the tests kill.
        settings = {"persistence": "true", "autosave_interval": 1, "persistence_location": f"{folder}/", **settings}
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            settings["user"] = "root"  # it would become a user who cannot write to the folder
    lines = [f"listener {port} 127.0.0.1", *(f"{key} {value}" for key, value in settings.items())]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    stderr_path = Path(f"{folder}.stderr")
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            [_MOSQUITTO, "-c", str(folder / "mosquitto.conf")], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
        )
    events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    reader = threading.Thread(target=process.wait, name="broker-end", daemon=True)
    reader.start()
    listens = soon(lambda: process.poll() is not None or _accepts(port), READY_S) and process.poll() is None
    said = stderr_path.read_text(errors="replace")
    version = re.search(r"mosquitto version ([\d.]+)", said)
    broker = RunningBroker(
        engine=engine,
        version=version[1] if version else "",
        host="127.0.0.1",
        port=port,
        unix_socket=None,
        username="",
        password="",
        max_packet_bytes=268_435_455,
        protocols=("3.1.1", "5"),
        process=process,
        engine_pid=process.pid,
        private_dir=folder,
        stderr_path=stderr_path,
        _events=events,
        _reader=reader,
        _settings={"engine": engine, **settings},
        _family=family,
    )
    if not listens:
        broker.discard()
        raise AssertionError(f"a stock Mosquitto does not listen at port {port}; it said:\n{said}")
    family.append(broker)
    return broker


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    """Whether a process of that number runs; one that has ended but was not waited for does not."""
    try:
        os.kill(pid, 0)
        if not os.path.exists("/proc/self/stat"):  # not Linux
            return True
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _abandon(process: subprocess.Popen[bytes], reader: threading.Thread, folder: Path, stderr_path: Path) -> None:
    _close_stdin(process)
    try:
        process.wait(patience(END_S))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join(patience(END_S))
    if process.stdout is not None:
        process.stdout.close()
    said = stderr_path.read_text(errors="replace")
    shutil.rmtree(folder, ignore_errors=True)
    stderr_path.unlink(missing_ok=True)
    print(f"the broker was not ready; exit code {process.returncode}, stderr:\n{said}", file=sys.stderr)


def _read_events(process: subprocess.Popen[bytes], events: queue.SimpleQueue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        events.put(json.loads(line))
    events.put({"event": "ended"})


def _next_event(
    events: queue.SimpleQueue[dict[str, Any]], kind: str, timeout_s: float, process: subprocess.Popen[bytes]
) -> dict[str, Any]:
    deadline = time.monotonic() + patience(timeout_s)
    while True:
        try:
            event = events.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            raise AssertionError(f"no event {kind!r} from broker {process.pid} within {timeout_s} s") from None
        if event["event"] == kind:
            return event
        if event["event"] == "ended":
            events.put(event)
            raise AssertionError(
                f"broker {process.pid} ended with {process.wait(patience(END_S))} before the event {kind!r}"
            )


def _close_stdin(process: subprocess.Popen[bytes], last_words: bytes = b"") -> None:
    if process.stdin is None or process.stdin.closed:
        return
    try:
        process.stdin.write(last_words)
        process.stdin.close()
    except BrokenPipeError:  # it is gone already
        pass


def _kill_pid(pid: int) -> None:
    try:
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except ProcessLookupError:
        pass


def soon(condition: Callable[[], bool], timeout_s: float = 1.0) -> bool:
    """Whether it becomes so in time. Only for what has no event: a process that is not our child, a folder."""
    deadline, never = time.monotonic() + patience(timeout_s), threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        never.wait(0.002)
    return True
