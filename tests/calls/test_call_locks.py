"""Calls beside a full outgoing queue, with requests that are delivered twice, and messages that nobody can read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from engine_params import EVERY, On
from lateness import Lateness
from patience import patience

from ether import Ether
from ether.calls.lease_server import LeaseServer
from ether.calls.server import CANCEL, CallJob, CallServer
from ether.connection.inbound import Inbound
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.errors import PublishTimeout
from ether.spec.methods import describe
from ether.transport.base import Delivery
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.transport.send_queue import MAX_COUNT
from ether.wire.envelope import EnvelopeV5
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("calls")
NODE = "0123456789ab"
STALL_S = 2.0
"""What a fault here takes is 10 s. A busy machine's share is measured in this process, not in the instance's."""


class Store:
    """An object without methods."""


class Host:
    """An instance that runs each call at once, as far as a call server needs it."""

    name, logger, record_writer = "store", logging.getLogger("test"), None
    spec = describe(Store)

    def __init__(self, link: Link) -> None:
        self.worker = Worker()
        self.lease_server = LeaseServer(self, link)
        self.ran = 0

    def cannot_call(self, method: str) -> str | None:
        return None

    def takes_turn(self, method: str) -> bool:
        return True

    def before(self, method: str, job: CallJob, node: str) -> int | None:
        return None

    def messages_of(self, node: str) -> int:
        return 0

    def serves(self, trace: str | None) -> bool:
        return False

    def submit_call(self, method: str, job: CallJob, trace: str | None, node: str) -> None:
        self.worker.perform(job)

    def call(self, *_: object) -> Any:
        self.ran += 1
        return self.ran

    def status(self) -> dict[str, object]:
        return {}

    def report(self, *_: object, **__: object) -> None: ...
    def wait_alone(self, timeout_s: float) -> bool:
        return True

    def announce_changed(self) -> None: ...
    def count_expired(self) -> None: ...


class Bench:
    """A call server over a broker in memory."""

    def __init__(self) -> None:
        self.broker = LoopbackBroker()
        self.link = Link(LoopbackTransport(self.broker, "store"), "store")
        self.link.open(patience(1))
        self.host = Host(self.link)
        self.server = CallServer(self.host, self.link)
        self.consumed = 0

    def inbound(self, correlation: bytes, method: str = "quick", value: object = None) -> Inbound:
        reply = TOPICS.reply("one")
        head = Headers(f"00000000-0000-7000-8000-{NODE}", "one", 1, time.time(), (), None, None, reply, correlation)
        packed = EnvelopeV5().pack(value, head)
        delivery = Delivery(TOPICS.call("store", method), packed.payload, 1, False, packed.properties)
        return Inbound(delivery, 1, threading.Lock(), self._done)

    def _done(self, _: Delivery) -> None:
        self.consumed += 1

    def fill(self) -> None:
        """Answers have room of their own, which is what has to be full."""
        self.broker.stop()
        for _ in range(MAX_COUNT):
            self.link.publish(TOPICS.reply("a"), 1, timeout_s=0)
        with pytest.raises(PublishTimeout):
            self.link.publish(TOPICS.reply("a"), 1, timeout_s=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.link.close(0.0)


@pytest.mark.slow("waits for room that does not come")
def test_the_transports_thread_takes_requests_while_an_answer_waits_for_room(bench: Bench) -> None:
    """The second delivery of a request gets the first answer, on the dispatch thread; with a full queue that waits.
    Only the transport's thread can make room, so it must not meet that wait."""
    assert bench.server.take(bench.inbound(b"first"))
    bench.fill()
    asked = threading.Event()

    def dispatch() -> None:
        again = bench.inbound(b"first")
        asked.set()
        bench.server.receive(again)

    dispatching = threading.Thread(target=dispatch)
    dispatching.start()
    assert asked.wait(patience(5))
    slowest = 0.0
    while dispatching.is_alive():
        began = time.monotonic()
        assert not bench.server.take(bench.inbound(b"first"))
        slowest = max(slowest, time.monotonic() - began)
        dispatching.join(0.01)
    assert slowest < STALL_S
    assert bench.host.ran == 1


@pytest.mark.slow("waits for room that does not come")
def test_an_answer_that_cannot_be_sent_again_leaves_no_message_unread(bench: Bench) -> None:
    bench.server.take(bench.inbound(b"first"))
    bench.fill()
    before = bench.consumed
    bench.server.receive(bench.inbound(b"first"))
    assert bench.consumed == before + 1


def test_a_cancellation_of_no_call_is_said_and_forgotten(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("not hexadecimal", "é", ""):
        bench.server.receive(bench.inbound(b"c", CANCEL, text))
    assert bench.consumed == 3
    assert "no call's id" in caplog.text
    assert not any(record.exc_info for record in caplog.records)


def test_an_answer_that_finds_no_room_ends_no_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of a call, and then the report that there was none, may both find the queue full."""

    def full(*_: object, **__: object) -> None:
        raise PublishTimeout("reply", 10.0, "10,000 messages wait for the broker")

    with monkeypatch.context() as patch:
        patch.setattr(bench.link, "publish", full)
        bench.server.take(bench.inbound(b"first"))
    bench.server.take(bench.inbound(b"second"))
    assert bench.host.ran == 2
    assert bench.consumed == 2


class Flood:
    """An instance whose outgoing queue is full, and calls to it: the slowest publish and the slowest call in seconds,
    without the machine's share."""

    def __init__(self, ether: Ether, first: int) -> None:
        slowest_publish: list[tuple[float, float]] = []
        flood = threading.Thread(
            target=lambda: slowest_publish.append(ether.get("f", "flood", {"count": 30_000}, timeout_s=patience(90)))
        )
        calls: list[tuple[float, float]] = []
        with Lateness() as lateness:
            flood.start()
            while flood.is_alive():
                began, number = time.monotonic(), first + len(calls)
                assert ether.get("f", "quick", {"number": number}, timeout_s=patience(60)) == number
                calls.append((began, time.monotonic()))
            self.calls = len(calls)
            self.publish_s, self.call_s = (
                max(ended - began - lateness.between(began, ended) for began, ended in took)
                for took in (slowest_publish, calls)
            )

    def __str__(self) -> str:
        return f"slowest publish {self.publish_s:.3f} s, slowest of {self.calls} calls {self.call_s:.3f} s"


@pytest.mark.parametrize("engine", EVERY)
def test_requests_that_come_twice_beside_a_flood_stop_nobody(
    engine: str, monkeypatch: pytest.MonkeyPatch, on: On
) -> None:
    """The instance's own queue is full nearly all the time, and each answer is asked for twice. With an answer that
    waits under a lock of the transport's thread, a publish and a call take 10 s here. An answer waits behind what is in
    the queue, with and without that; so the two are compared."""
    with Ether() as ether:
        ether.tap({"instances": {"f": {"class_path": "lock_parts.Flooding"}}}, broker=on(engine))
        assert ether.get("f", "quick", {"number": 0}) == 0
        once = Flood(ether, 1)
        assert ether._client is not None
        transport = ether._client.link.transport
        publish = transport.publish

        def twice(topic: str, *args: Any, **kwargs: Any) -> Any:
            if topic.endswith("/f/quick"):
                publish(topic, *args, **kwargs)
            return publish(topic, *args, **kwargs)

        monkeypatch.setattr(transport, "publish", twice)
        doubled = Flood(ether, 1 + once.calls)
        assert ether.get("f", "ran") == 1 + once.calls + doubled.calls, "a request was run twice"
        print(f"{engine}, once: {once}; doubled: {doubled}")
        assert doubled.publish_s < STALL_S
        assert doubled.call_s < once.call_s + STALL_S
