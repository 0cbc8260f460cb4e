"""Instructions of Python on the hot paths: publish, pass on, receive, call, serve, answer. They do not move with load.

    python benchmarks/hot_paths.py [--against OTHER_CHECKOUT]

A caller, an instance and the embedded broker's core in one process and on one thread; sockets are left out. Everything
else is real: links, transports, reorder buffer, worker, validation. Counted are executed instructions of Python's
machine, and calls of functions written in C, per message. What C does within a call is not seen: `benchmarks/gate.py`
compares processor time. The counts are the same in each run of one Python (`tests/test_hot_paths.py` compares them with
the table in docs/decisions/0087-instruction-counts.md); other versions of Python compile to other instructions.

`--against` prints the counts of another checkout beside those of this one, with their ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, os.environ.get("HOT_PATHS_ROOT", str(ROOT)))

from broker.core.client import ClientProtocol, Terms  # noqa: E402
from broker.core.exchange import Exchange  # noqa: E402
from broker.core.quotas import Quotas  # noqa: E402
from broker.core.rights import Logins  # noqa: E402
from ether import ether_get, ether_sub  # noqa: E402
from ether.connection.assembly import describe_with_registry  # noqa: E402
from ether.connection.deadline import Deadline  # noqa: E402
from ether.connection.link import Link  # noqa: E402
from ether.connection.worker import Worker  # noqa: E402
from ether.instance.hosted import HostedInstance  # noqa: E402
from ether.session.client import Client  # noqa: E402
from ether.spec.marks import MarkKind  # noqa: E402
from ether.transport.base import ProtocolVersion  # noqa: E402
from ether.transport.connection import NetworkTransport  # noqa: E402
from ether.transport.endpoint import Endpoint  # noqa: E402
from ether.transport.mqtt_versions import SIBLINGS  # noqa: E402
from ether.transport.packets import PacketReader, packed_length, pubacks  # noqa: E402
from ether.transport.send_queue import Publication  # noqa: E402
from ether.wire.topics import SessionTopics  # noqa: E402

TOPICS = SessionTopics("bench")
TEXT = "x" * 62
"""64 bytes as JSON."""
WARM_UP, TIMES = 4, 5
"""The first messages of a topic cost more. Of the others, each costs the same; the least of a few is taken."""


class Cost(NamedTuple):
    """What one message costs on one path."""

    instructions: int
    c_calls: int


class Part:
    """The instance."""

    def __init__(self) -> None:
        self.taken = 0

    @ether_sub(topic="data")
    def take(self, text: str) -> None:
        self.taken += 1

    @ether_sub(topic="fast", qos=0)
    def take_fast(self, text: str) -> None:
        self.taken += 1

    @ether_get
    def echo(self, text: str) -> str:
        return text


class Plug:
    """The writing half of a connection, without a socket: it keeps what was written."""

    congested, last_written = False, 0.0

    def __init__(self) -> None:
        self.written = bytearray()

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        self.written += data
        return True

    def fail(self, reason: str) -> None:
        raise AssertionError(reason)

    def wake_locked(self) -> None:
        raise AssertionError("a single message is left to the network thread")


class PluggedTransport(NetworkTransport):
    """A transport whose connection is a client of the broker's core in this process."""

    def __init__(self, exchange: Exchange, name: str) -> None:
        super().__init__(
            Endpoint("tcp", "127.0.0.1", 1883), client_id=name, will=None, protocol=ProtocolVersion.V5, keepalive_s=0,
            max_packet_bytes=None,
        )  # fmt: skip
        self.plug, self.exchange = Plug(), exchange
        self.peer = ClientProtocol(exchange, Terms(1 << 20, (4, 5)), name)
        self.reader = PacketReader(SIBLINGS[ProtocolVersion.V5].split_properties)

    def connect(self, timeout_s: float) -> None:
        self._version, self._up = SIBLINGS[ProtocolVersion.V5], True
        client_id = self.client_id.encode()
        body = b"\x00\x04MQTT\x05\x02\x00\x00\x00" + len(client_id).to_bytes(2, "big") + client_id
        self._say(b"\x10", body)
        self._receive_queue.begin_acks(lambda packet_ids: self.plug.send_locked(pubacks(packet_ids)) and None)
        self._send_queue.attach(self.plug, 100, 1 << 20)

    def subscribe(self, topic_filters: Sequence[str], *, qos: int = 1, **_: Any) -> None:
        for each in topic_filters:
            name = each.encode()
            self._say(b"\x82", b"\x00\x01\x00" + len(name).to_bytes(2, "big") + name + bytes((qos,)))

    def unsubscribe(self, topic_filters: Sequence[str], *, timeout_s: float = 5.0) -> None: ...

    def _say(self, first: bytes, body: bytes) -> None:
        self.peer.receive(first + packed_length(len(body)) + body)
        self.peer.outlet.batch(0.0)  # CONNACK and SUBACK; no message is retained here

    def written(self) -> bytes:
        """What was written since the last time."""
        with self._send_queue.lock:  # the thread that tells of numbers may write at this moment
            data = bytes(self.plug.written)
            self.plug.written.clear()
        return data

    def give(self, data: bytes) -> None:
        """Hand this to the broker."""
        if data:
            self.peer.receive(data)
            self.exchange.unflushed.clear()

    def arrived(self) -> bytes:
        """What the broker writes to this client."""
        return bytes(self.peer.outlet.batch(self.exchange.now))

    def read(self, data: bytes) -> None:
        """Take in what has arrived, as the network thread does."""
        self.on_batch(self.reader.feed(data))

    def close(self, timeout_s: float = 1.0) -> None:
        self._waker.close()
        self._receive_queue.close()


class HotPaths:
    """A caller and an instance."""

    def __init__(self) -> None:
        self.exchange = Exchange(print, Logins("", {"": ""}, {}), 1000.0, Quotas())
        self._members = {name: PluggedTransport(self.exchange, name) for name in ("caller", "part")}
        self._caller, self._part = self._members.values()
        links = {name: Link(transport, name, TOPICS) for name, transport in self._members.items()}
        for link in links.values():
            link.open(1.0, dispatch=False)
            link.transport.offer_to(link._take_now)
        self._worker, self.object = Worker(), Part()
        spec = describe_with_registry(Part, "bench.Part", {})
        self._instance = HostedInstance("part", self.object, spec, links["part"], TOPICS, self._worker, "incarnation")
        self._instance.subscribe()
        self._client = Client(links["caller"], TOPICS)
        self._client.session._listen(Deadline(1.0))
        self._client.session._known = [self._instance.announcement()]
        self._links = list(links.values())
        self._settle()

    def close(self) -> None:
        """End what has threads."""
        self._client.session.calls.later.close()
        self._instance.close()
        for link in self._links:
            link.close()

    def _settle(self) -> None:
        """Let everything arrive that is under way."""
        for _ in range(4):
            for transport in self._members.values():
                transport.give(transport.written())
            for transport in self._members.values():
                if data := transport.arrived():
                    transport.read(data)
            self._worker.run_pending()

    def messages(self, qos: int) -> dict[str, Cost]:
        """One message from the caller to the instance."""
        client, caller, part, suffix = self._client, self._caller, self._part, "" if qos else " at QoS 0"
        before, costs = self.object.taken, {}
        topic = "data" if qos else "fast"
        costs["publish" + suffix] = counted(lambda: client.publish({"text": TEXT}, topic, qos))
        written = caller.written()
        costs["pass on" + suffix] = counted(lambda: caller.give(written))
        data = part.arrived()

        def receive() -> None:
            part.read(data)
            self._worker.run_pending()

        costs["receive" + suffix] = counted(receive)
        self._settle()
        assert self.object.taken == before + 1
        return costs

    def call(self) -> dict[str, Cost]:
        """One call of the caller's."""
        calls, caller, part = self._client.session.calls, self._caller, self._part
        begun: list[Any] = []
        costs = {}
        costs["call"] = counted(lambda: begun.append(calls.begin("part", "echo", {"text": TEXT}, 10.0, MarkKind.GET)))
        caller.give(caller.written())
        data = part.arrived()

        def serve() -> None:
            part.read(data)
            self._worker.run_pending()

        costs["serve"] = counted(serve)
        part.give(part.written())
        answer, answers = caller.arrived(), []

        def take() -> None:
            caller.read(answer)
            answers.append(calls.wait(begun[0]))

        costs["answer"] = counted(take)
        assert answers == [TEXT]
        self._settle()
        return costs


def counted(work: Callable[[], object]) -> Cost:
    """What `work` executes on this thread."""
    instructions = c_calls = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal instructions
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            instructions += 1
        return trace

    def profile(_frame: FrameType, event: str, _: Any) -> None:
        nonlocal c_calls
        c_calls += event == "c_call"

    others = sys.gettrace(), sys.getprofile()
    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(others[0])
        sys.setprofile(others[1])
    return Cost(instructions, c_calls)


def measured() -> dict[str, Cost]:
    """The cost of a message on each path."""
    rig, seen = HotPaths(), list[dict[str, Cost]]()
    gc.disable()  # a collection may run a finalizer of somebody's
    try:
        for _ in range(WARM_UP + TIMES):
            seen.append({**rig.messages(1), **rig.messages(0), **rig.call()})
    finally:
        gc.enable()
        rig.close()
    return {path: Cost(*map(min, *(costs[path] for costs in seen[WARM_UP:]))) for path in seen[0]}


def measured_in(root: Path) -> dict[str, Cost]:
    """The same for another checkout, by another process."""
    command = [sys.executable, __file__, "--json"]
    said = subprocess.check_output(command, env={**os.environ, "HOT_PATHS_ROOT": str(root)}, cwd=root, timeout=120)
    return {path: Cost(*cost) for path, cost in json.loads(said).items()}


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--against", type=Path, help="a checkout whose counts are printed beside these")
    options.add_argument("--json", action="store_true", help="print nothing but the counts")
    given = options.parse_args()
    costs = measured()
    if given.json:
        print(json.dumps(costs))
        return
    others = measured_in(given.against.resolve()) if given.against else None
    print("| path | instructions | calls into C |" + (" before | | ratio |" if others else ""))
    print("|---|--:|--:|" + ("--:|--:|--:|" if others else ""))
    for path, cost in costs.items():
        row = f"| {path} | {cost.instructions} | {cost.c_calls} |"
        if others:
            row += f" {others[path].instructions} | {others[path].c_calls} |"
            row += f" {cost.instructions / others[path].instructions:.2f} |"
        print(row)


if __name__ == "__main__":
    main()
