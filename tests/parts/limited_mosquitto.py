"""A stock Mosquitto with a few lines of configuration: limits, rights, what it does not offer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patience import patience
from running_brokers import READY_S, soon


@dataclass(frozen=True)
class LimitedMosquitto:
    """Where it listens, and its process."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


@contextmanager
def limited_mosquitto(*lines: str, acl: str | None = None, port: int = 0) -> Iterator[LimitedMosquitto]:
    """A Mosquitto that lets everybody in, with these lines in its configuration, and the rights of `acl`."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="ether-test-"))
    try:
        port = port or _free_port()
        written = [f"listener {port} 127.0.0.1", "allow_anonymous true", *lines]
        if acl is not None:
            path = folder / "acl"
            path.write_text(acl)
            path.chmod(0o600)
            written.append(f"acl_file {path}")
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            written.append("user root")  # it would become a user who cannot read the folder
        (folder / "mosquitto.conf").write_text("\n".join(written) + "\n")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
        try:
            assert soon(lambda: process.poll() is not None or _accepts(port), READY_S)
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            yield LimitedMosquitto(port, process, folder)
        finally:
            process.kill()
            process.wait(patience(5))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
