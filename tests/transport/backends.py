"""The backends that the contract suite runs over, and what its tests share.

A backend is a broker with one way to reach it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from patience import patience
from running_brokers import RunningBroker, mosquitto_missing

from ether.transport import Delivery, Endpoint, ProtocolVersion, Transport, Will, open_transport
from ether.transport.loopback import LoopbackBroker, LoopbackTransport

V5, V311 = ProtocolVersion.V5, ProtocolVersion.V311
NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")
BACKENDS = [
    pytest.param("loopback"),
    pytest.param("amqtt-3.1.1"),
    pytest.param("amqtt-5"),
    pytest.param("amqtt-5-unix"),
    pytest.param("amqtt-5-ws"),
    pytest.param("mosquitto-3.1.1", marks=NEEDS_MOSQUITTO),
    pytest.param("mosquitto-5", marks=NEEDS_MOSQUITTO),
    pytest.param("mosquitto-5-unix", marks=NEEDS_MOSQUITTO),
    pytest.param("mosquitto-5-ws", marks=NEEDS_MOSQUITTO),
    pytest.param("stock-3.1.1", marks=NEEDS_MOSQUITTO),
    pytest.param("stock-5", marks=NEEDS_MOSQUITTO),
    *([pytest.param("stock-persistent-5", marks=NEEDS_MOSQUITTO)] if os.environ.get("ETHER_LONG") == "1" else []),
]
over_guarded = pytest.mark.parametrize(
    "lasting_backend", [each for each in BACKENDS[1:] if "stock" not in str(each.values[0])], indirect=True
)
"""Over networks, and over brokers that want a password."""
over_networks = pytest.mark.parametrize("lasting_backend", BACKENDS[1:], indirect=True)

DYING_CHILD = """
import json, sys
from ether.transport import Endpoint, Will, open_transport
topic, = sys.argv[1:]
transport = open_transport(Endpoint.from_dict(json.loads(sys.stdin.readline())), client_id="doomed",
                           will=Will(topic, b"gone", retain=True))
transport.connect(5)
print("ready", flush=True)
sys.stdin.readline()
"""


@dataclass
class Backend:
    """One broker, one way to it. `version` is what must be agreed on."""

    name: str
    version: ProtocolVersion
    endpoint: Endpoint | None
    broker: LoopbackBroker | RunningBroker
    opened: list[Transport] = field(default_factory=list)

    @property
    def keeps_all(self) -> bool:
        """Whether the broker keeps everything for a reader that is slow, within the limits that Ether gives to its
        own."""
        return not self.name.startswith("stock")

    def transport(self, client_id: str = "test", *, will: Will | None = None, **options: Any) -> Transport:
        """An unconnected transport, closed when the test ends."""
        if isinstance(self.broker, LoopbackBroker):
            made: Transport = LoopbackTransport(self.broker, client_id, will)
        else:
            assert self.endpoint is not None
            protocol = V311 if self.name in ("amqtt-3.1.1", "mosquitto-3.1.1", "stock-3.1.1") else None
            made = open_transport(self.endpoint, client_id=client_id, will=will, protocol=protocol, **options)
        self.opened.append(made)
        return made

    def connected(self, *filters: str, qos: int = 1, **options: Any) -> Transport:
        """A connected transport with these subscriptions."""
        made = self.transport(**options)
        made.connect(5)
        if filters:
            made.subscribe(filters, qos=qos)
        return made

    def stop(self) -> None:
        """Make the broker vanish as by kill -9."""
        if isinstance(self.broker, LoopbackBroker):
            self.broker.stop()
        else:
            self.broker.kill()

    def start(self) -> None:
        """Start it again at the same address."""
        if isinstance(self.broker, LoopbackBroker):
            self.broker.start()
        else:
            self.broker = self.broker.restart()

    def die_with_will(self, topic: str) -> None:
        """Connect a client whose will goes to `topic`, and kill it."""
        if isinstance(self.broker, LoopbackBroker):
            doomed = self.transport(will=Will(topic, b"gone", retain=True))
            assert isinstance(doomed, LoopbackTransport)
            doomed.connect(1)
            doomed.abandon()
        else:
            assert self.endpoint is not None
            kill_a_client(self.endpoint, topic)

    def close(self) -> None:
        for made in self.opened:
            made.close()
        self.opened.clear()


def kill_a_client(endpoint: Endpoint, topic: str) -> None:
    """A process of its own connects, says that it is ready, and gets SIGKILL."""
    command = [sys.executable, "-c", DYING_CHILD, topic]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(endpoint.to_dict()) + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        child.kill()


def settings_of(name: str) -> dict[str, object]:
    """What the broker of that backend is told beside the usual."""
    everywhere = name.startswith("mosquitto")  # where it opens WebSockets, whatever it is told
    return {"lan_host": "0.0.0.0" if everywhere else "127.0.0.1", "websocket_port": 0} if name.endswith("ws") else {}


def make_backend(name: str, start: Callable[[str], RunningBroker]) -> Backend:
    """The backend of that name; `start(engine)` gives the broker that it needs."""
    if name == "loopback":
        return Backend(name, V5, None, LoopbackBroker())
    broker = start(re.split(r"-(?=\d)", name)[0])
    url = {"unix": broker.url_unix, "ws": broker.url_ws}.get(name.rpartition("-")[2], broker.url_tcp)
    assert url is not None
    version = V311 if name.endswith("3.1.1") else V5
    return Backend(name, version, Endpoint.from_url(url), broker)


def take(transport: Transport, timeout_s: float | None = 10.0) -> Any:
    """The next thing that arrives, consumed."""
    item = transport.receive(None if timeout_s is None else patience(timeout_s))
    if isinstance(item, Delivery):
        transport.consumed(item)
    return item


def messages(transport: Transport, count: int, timeout_s: float = 30.0) -> list[Delivery]:
    """The next `count` messages; anything else that arrives meanwhile is skipped."""
    got: list[Delivery] = []
    while len(got) < count:
        item = take(transport, timeout_s)
        assert item is not None, f"{len(got)} of {count} messages arrived"
        if isinstance(item, Delivery):
            got.append(item)
    return got


def nothing_more(transport: Transport, topic: str) -> None:
    """Assert that nothing is under way: the next message is one that is sent now."""
    transport.publish(topic, b"the end").wait(patience(10))
    assert messages(transport, 1)[0].payload == b"the end"
