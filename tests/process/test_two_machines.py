"""Discovery between two machines: network namespaces, each with a host name, a home and user folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brokers import mosquitto_missing

pytestmark = [
    pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or ""),
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")),
        reason="network namespaces need Linux, root, ip (iproute2) and unshare (util-linux)",
    ),
]

LEADER = """
import json, os, socket, sys
from ether.config.broker import EmbeddedBroker as Config
from ether.process import mdns
from ether.process.embedded_broker import EmbeddedBroker, private_folder
from ether.process.group import make_group
from ether.transport import open_transport
folder = private_folder()
group = make_group(folder)
broker = EmbeddedBroker(Config(listen="lan"), group, folder)
broker.wait_ready(15)
transport = open_transport(broker.endpoint, client_id="leader")
transport.connect(5)
info = {"session": "bench", "host": socket.gethostname(), "pid": os.getpid(), "since": 1.0, "version": "1"}
transport.publish("ether/1/bench/session", json.dumps(info).encode(), retain=True).wait(5)
said = mdns.announce("bench", broker.lan_port, mdns.own_addresses(), "1", user="ether")
assert said.wait_announced(5)
print(json.dumps({"port": broker.lan_port}), flush=True)
sys.stdin.read()
said.close()
transport.close()
broker.stop(5)
group.close()
"""

SEEKER = """
import json, os, sys
from ether.errors import EtherError
from ether.process.discovery import find
from ether.process.directory import sessions_at
from ether.transport.endpoint import Endpoint
try:
    found = find(broker=sys.argv[1] if sys.argv[1:] else None, environment=os.environ)
except EtherError as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
else:
    said = found and {"name": found.name, "how": found.how, "host": found.host, "address": found.address}
    joined = found and [info.session for info in sessions_at(Endpoint.from_url(found.url), 5)]
    print(json.dumps({"found": said, "joined": joined}))
"""


def sh(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Machine:
    """A network namespace with an address; what runs there has a host name, a home and user folders of its own."""

    name: str
    address: str
    home: Path

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        folders = {name: str(self.home / name) for name in ("config", "state", "runtime")}
        for folder in folders.values():
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ETHER_", "XDG_"))},
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": folders["config"],
            "XDG_STATE_HOME": folders["state"],
            "XDG_RUNTIME_DIR": folders["runtime"],
        }
        inside = f'hostname {self.name} && exec {sys.executable} -c "$0" "$@"'
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", inside, code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def seek(self, *arguments: str) -> dict[str, Any]:
        """What a program here finds."""
        with self.start(SEEKER, *arguments) as seeker:
            out, _ = seeker.communicate(timeout=30)
        found = json.loads(out)
        assert isinstance(found, dict)
        return found

    @property
    def key(self) -> Path:
        return self.home / "config" / "ether" / "key"


Wire = tuple[str, str, str]
"""A cable end: the namespace that it is in, its device, its address."""


@contextmanager
def network(namespaces: list[str], cables: list[tuple[Wire, Wire]]) -> Iterator[None]:
    """Namespaces that are connected by cables."""
    try:
        for name in namespaces:
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        for one, other in cables:
            sh("ip", "link", "add", one[1], "type", "veth", "peer", "name", other[1])
            for name, device, address in (one, other):
                sh("ip", "link", "set", device, "netns", name)
                sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", device)
                sh("ip", "-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two of them, joined by a cable, or, with the parameter "router", by a router, which lets no multicast through."""
    mark = f"{os.getpid() % 100_000}"
    a, b, router = f"etherA{mark}", f"etherB{mark}", f"etherR{mark}"
    if getattr(request, "param", "cable") == "cable":
        wires = [((a, f"ea{mark}", "10.98.76.1"), (b, f"eb{mark}", "10.98.76.2"))]
        with network([a, b], wires):
            yield Machine(a, "10.98.76.1", tmp_path / "a"), Machine(b, "10.98.76.2", tmp_path / "b")
        return
    near = ((a, f"ea{mark}", "10.98.76.1"), (router, f"ra{mark}", "10.98.76.254"))
    far = ((b, f"eb{mark}", "10.98.77.2"), (router, f"rb{mark}", "10.98.77.254"))
    with network([a, b, router], [near, far]):
        sh("ip", "netns", "exec", router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        sh("ip", "-n", a, "route", "add", "default", "via", "10.98.76.254")
        sh("ip", "-n", b, "route", "add", "default", "via", "10.98.77.254")
        yield Machine(a, "10.98.76.1", tmp_path / "a"), Machine(b, "10.98.77.2", tmp_path / "b")


@pytest.fixture
def port(machines: tuple[Machine, Machine]) -> Iterator[int]:
    """The port of a session that the first machine leads."""
    with machines[0].start(LEADER) as leader:
        assert leader.stdin is not None
        assert leader.stdout is not None
        try:
            yield json.loads(leader.stdout.readline())["port"]
        finally:
            leader.stdin.close()
            leader.wait(20)


def share_key(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    second.key.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(first.key, second.key)


def test_a_session_is_found_over_the_network(machines: tuple[Machine, Machine], port: int) -> None:
    first, second = machines
    share_key(machines)
    address = f"mqtt://{first.address}:{port}"
    expected = {"name": "bench", "how": "network", "host": first.name, "address": address}
    assert second.seek() == {"found": expected, "joined": ["bench"]}


@pytest.mark.parametrize("machines", ["router"], indirect=True)
def test_where_multicast_is_dropped_an_address_is_enough(machines: tuple[Machine, Machine], port: int) -> None:
    first, second = machines
    share_key(machines)
    assert second.seek()["found"] is None
    found = second.seek(f"{first.address}:{port}")
    assert (found["found"]["how"], found["joined"]) == ("argument", ["bench"])


def test_a_machine_without_the_key_is_told_which_file_to_copy(machines: tuple[Machine, Machine], port: int) -> None:
    first, second = machines
    said = second.seek(f"{first.address}:{port}")
    assert said["error"] == "WrongLabKey"
    assert str(second.key) in said["says"]
    assert second.seek() == {"found": None, "joined": None}
