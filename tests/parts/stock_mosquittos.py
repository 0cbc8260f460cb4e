"""Stock Mosquittos for tests: an empty configuration, or the few lines that join two of them by a bridge.

Promise: a broker lets clients in when the block begins, and nothing of it is left behind it. The trap: started as root,
Mosquitto changes to another user, who cannot read a folder of ours.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from patience import patience
from running_brokers import END_S, READY_S, soon

from ether.transport import open_transport
from ether.transport.base import Transport
from ether.transport.endpoint import Endpoint

_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

DEFAULT_BRIDGE = ("topic ether/# both 1",)
"""Mosquitto bridges by MQTT 3.1.1 unless told otherwise, which strips properties."""

V5_BRIDGE = (*DEFAULT_BRIDGE, "bridge_protocol_version mqttv50")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def stock_mosquitto(*lines: str) -> Iterator[int]:
    """A Mosquitto with these lines of configuration; its port."""
    folder = Path(tempfile.mkdtemp(prefix="ether-stock-"))
    process, port = _started(folder, lines)
    try:
        yield port
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, lines: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start one at a free port; at another one where somebody else was faster."""
    as_root = ["user root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    program = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS]))
    assert program is not None
    for _ in range(3):
        port = free_port()
        config = [f"listener {port} 127.0.0.1", "allow_anonymous true", *as_root, *lines]
        (folder / "conf").write_text("".join(f"{line}\n" for line in config))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "-c", str(folder / "conf")], stderr=log)
        if soon(lambda: process.poll() is not None or _listens(port), READY_S) and process.poll() is None:  # noqa: B023
            return process, port
        _end(process)
    said = (folder / "log").read_text()
    shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError(f"a Mosquitto does not listen; it said:\n{said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(patience(END_S))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def bridged_mosquittos(bridge: Sequence[str] = DEFAULT_BRIDGE) -> Iterator[tuple[int, int]]:
    """Two Mosquittos, of which the first one bridges to the second; their ports. The bridge is up: a message of the
    first one arrives at the second."""
    with (
        stock_mosquitto() as far,
        stock_mosquitto("connection x", f"address 127.0.0.1:{far}", "notifications false", *bridge) as near,
    ):
        assert soon(lambda: _crosses(near, far), READY_S), "the bridge does not come up"
        yield near, far


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _crosses(near: int, far: int) -> bool:
    """Publish at one end, and see whether it comes to the other."""
    topic = "ether/is-the-bridge-up"
    with stranger(url_of(far)) as listener:
        listener.subscribe([topic])
        publish(url_of(near), topic, "1")
        return listener.receive(0.2) is not None


def url_of(port: int) -> str:
    """For `broker=`."""
    return f"mqtt://127.0.0.1:{port}"


@contextmanager
def stranger(url: str) -> Iterator[Transport]:
    """The connection of a program that is not Ether's."""
    transport = open_transport(Endpoint.from_url(url), client_id="stranger")
    try:
        transport.connect(patience(5))
        yield transport
    finally:
        transport.close()


def publish(url: str, topic: str, body: str | bytes, *, retain: bool = False, properties: bytes = b"") -> None:
    """Publish as a program that is not Ether's, such as `mosquitto_pub`; returns when the broker has it. An empty body
    clears a retained message."""
    payload = body.encode() if isinstance(body, str) else body
    with stranger(url) as transport:
        transport.publish(topic, payload, retain=retain, properties=properties).wait(patience(5))
