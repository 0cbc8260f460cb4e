"""RabbitMQ, NATS and Aedes, as they come: each one a child process with a folder and a port of its own on loopback.

Promise: `running_foreign` gives a broker that takes connections, and leaves no process, folder or port behind, however
its body ends. Ready is what the broker itself says in its output, then a TCP connection to its port. The traps: a
RabbitMQ is several processes with a name server beside them (epmd), therefore each broker has a process group of its
own, which is ended as a whole; and a port that is free now may be taken a moment later, so a start that fails is
repeated with another one.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from patience import patience
from running_brokers import alive, soon

ROOT = Path(__file__).resolve().parents[2]
LONG = os.environ.get("ETHER_LONG") == "1"
NODE_MODULES = ROOT / ".ci" / "node_modules"
"""Where `.ci/tools --long` puts Aedes."""

END_S = 10.0
_ATTEMPTS = 3
_PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/lib/rabbitmq/bin")

AEDES_SCRIPT = """
const aedes = require('aedes')();
const server = require('net').createServer(aedes.handle);
server.listen(Number(process.argv[1]), '127.0.0.1', () => console.log('aedes listens'));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
"""

RABBITMQ_CONFIGURATION = """
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
mqtt.allow_anonymous = true
log.console = true
log.console.level = info
"""

NATS_CONFIGURATION = """
server_name: ether_test
listen: 127.0.0.1:{other_port}
jetstream {{ store_dir: "{folder}" }}
mqtt {{ listen: "127.0.0.1:{port}" }}
"""


@dataclass(frozen=True)
class ForeignKind:
    """One kind of broker: how it is found, started, and known to be ready.

    `prepare` writes what it needs into a folder, and returns the command and the environment beside the usual."""

    name: str
    program: str
    how_to_install: str
    ready_line: str
    prepare: Callable[[Path, int], tuple[list[str], Mapping[str, str]]]
    ready_s: float = 15.0
    extra: Callable[[], bool] = lambda: True
    """Whether what the program needs beside itself is there."""

    def missing(self) -> str | None:
        """Why it cannot be run here, and what installs it; None where it can."""
        if _which(self.program) is None or not self.extra():
            return f"{self.name} is not here: {self.how_to_install}"
        return None

    def skipped(self) -> str | None:
        """Why tests leave it out; None where they do not."""
        if not LONG:
            return f"{self.name} is for .ci/long: ETHER_LONG=1"
        return self.missing()


@dataclass(frozen=True)
class ForeignBroker:
    """One that runs."""

    kind: ForeignKind
    port: int
    folder: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    output: _Output = field(repr=False)
    _beside: tuple[subprocess.Popen[bytes], ...] = field(repr=False, default=())

    @property
    def url(self) -> str:
        """Its address; everybody is let in."""
        return f"mqtt://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL for the whole of it, as by a power cut."""
        _end(self.process, signal.SIGKILL)

    def discard(self) -> None:
        """End it, and everything beside it."""
        _end(self.process, signal.SIGTERM)
        for each in self._beside:
            _end(each, signal.SIGTERM)
        self.output.join()


class _Output:
    """Everything that a broker prints; `line_with` waits for a line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._said: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(process,), name="broker-output", daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)

    def line_with(self, text: str, timeout_s: float) -> bool:
        """Whether a line with this text came in time, and before the end."""
        deadline = time.monotonic() + patience(timeout_s)
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                return False
            if line is None:
                self._lines.put(None)
                return False
            self._said.append(line)
            if text in line:
                return True

    def said(self) -> str:
        """What it has printed so far, as far as it was waited for."""
        return "".join(self._said[-40:])

    def join(self) -> None:
        self._thread.join(patience(END_S))


def _rabbitmq(folder: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    (folder / "rabbitmq.conf").write_text(RABBITMQ_CONFIGURATION.format(port=port))
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    environment = {
        "HOME": str(folder),  # the cookie of Erlang
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"ether{port}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
    }
    # Debian's /usr/sbin/rabbitmq-server changes to another user; this is what it calls.
    return ["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment


def _nats(folder: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    text = NATS_CONFIGURATION.format(port=port, other_port=free_port(), folder=folder / "data")
    (folder / "nats.conf").write_text(text)
    return [_program("nats-server"), "-c", str(folder / "nats.conf")], {}


def _aedes(folder: Path, port: int) -> tuple[list[str], Mapping[str, str]]:
    return [_program("node"), "-e", AEDES_SCRIPT, str(port)], {"NODE_PATH": str(NODE_MODULES)}


RABBITMQ = ForeignKind(
    "rabbitmq", "rabbitmq-server", "apt install rabbitmq-server", "completed with", _rabbitmq, ready_s=60.0
)
NATS = ForeignKind("nats", "nats-server", "apt install nats-server", "Server is ready", _nats)
AEDES = ForeignKind(
    "aedes", "node", ".ci/tools --long", "aedes listens", _aedes,
    extra=lambda: (NODE_MODULES / "aedes").is_dir(),
)  # fmt: skip
FOREIGN = {kind.name: kind for kind in (RABBITMQ, NATS, AEDES)}


@contextmanager
def running_foreign(kind: ForeignKind | str) -> Iterator[ForeignBroker]:
    """A broker of that kind, or of the kind of that name, with a configuration of its own."""
    kind = FOREIGN[kind] if isinstance(kind, str) else kind
    with tempfile.TemporaryDirectory(prefix="ether-foreign-", ignore_cleanup_errors=True) as folder:
        broker = start_foreign(kind, Path(folder))
        try:
            yield broker
        finally:
            broker.discard()


def start_foreign(kind: ForeignKind, folder: Path) -> ForeignBroker:
    """Start one, and wait until it takes connections. Whoever calls this discards it."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _start(kind, folder, free_port())
        except AssertionError:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("not reached")


def _start(kind: ForeignKind, folder: Path, port: int) -> ForeignBroker:
    command, environment = kind.prepare(folder, port)
    beside = (_name_server(environment),) if "ERL_EPMD_PORT" in environment else ()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )
    broker = ForeignBroker(kind, port, folder, process, _Output(process), beside)
    try:
        ready = broker.output.line_with(kind.ready_line, kind.ready_s)
        assert ready, f"{kind.name} was not ready within {kind.ready_s:g} s:\n{broker.output.said()}"
        assert soon(lambda: _listens(port), 5.0), f"{kind.name} does not listen at port {port}"
    except BaseException:
        broker.discard()
        raise
    return broker


def _name_server(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Erlang's name server, as a child: else the first node starts one that outlives it."""
    process = subprocess.Popen(
        [_program("epmd"), "-port", environment["ERL_EPMD_PORT"]],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    if not soon(lambda: _listens(int(environment["ERL_EPMD_PORT"])), 5.0):
        _end(process, signal.SIGKILL)
        raise AssertionError("epmd does not listen")
    return process


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End a process and its group; by force where it takes too long."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    for attempt in (how, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, attempt)
        try:
            process.wait(patience(END_S))
            break
        except subprocess.TimeoutExpired:
            continue
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # of a group, some may outlive their leader
    assert soon(lambda: not _group_lives(process.pid), END_S)


def _group_lives(group: int) -> bool:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            state, _, its_group = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            if int(its_group) == group and state != "Z":
                return alive(int(entry.name))
    return False


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_PROGRAM_FOLDERS]))


def _program(name: str) -> str:
    found = _which(name)
    assert found is not None, f"{name} is not installed"
    return found
