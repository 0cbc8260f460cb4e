"""Who missed messages gets them from their source. Real brokers, behind a network that loses what it acknowledges."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from lossy_proxy import CALM, Direction, Fate, LossyProxy, Policy
from patience import patience
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

from ether.connection.assembly import make_link
from ether.connection.link import Link
from ether.connection.retransmit import Retransmitter
from ether.protocol.retransmit_buffer import BACKLOG_MEMORY_BYTES, KEEP_BYTES, RetransmitBuffer
from ether.protocol.sent_log import SentMessage
from ether.session.client import Client, Subscription
from ether.transport.endpoint import Endpoint
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("test")
LIVE = r"^ether/1/test/data/"
"""The topics of messages that come for the first time."""

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
LOSSES = Policy(acknowledge_and_drop=0.3, double=0.05, topics=LIVE)
NOTHING_LIVE = Policy(acknowledge_and_drop=1.0, topics=LIVE)
NO_QUESTIONS = Policy(acknowledge_and_drop=1.0, topics=r"/control/missed/")
"""Neither questions nor answers, nor what the receiver says to itself."""


class Bench:
    """A sender at the broker, and a receiver behind a proxy."""

    def __init__(self, broker: RunningBroker, stack: ExitStack) -> None:
        self.broker = broker
        self.proxy = stack.enter_context(LossyProxy(broker.host, broker.port, seed=1))
        self._stack = stack
        self.sender = self.link("sender", broker.url_tcp)
        self.receiver = self.link("receiver", self.proxy.url(broker.username, broker.password))

    def link(self, name: str, url: str) -> Link:
        link = make_link(Endpoint.from_url(url), name, will=None, max_packet_bytes=None, topics=TOPICS)
        link.open(patience(10))
        self._stack.callback(link.close)
        return link

    def subscribe(self, topic: str, qos: int = 1) -> Subscription:
        return self._stack.enter_context(Client(self.receiver, TOPICS).subscribe(topic, qos))

    def publish(self, first: int, last: int, topic: str = "a", qos: int = 1) -> None:
        client = Client(self.sender, TOPICS)
        for number in range(first, last + 1):
            client.publish(number, topic, qos)
        self.sender.flush(patience(10))

    def lose(self, first: int, last: int, topic: str = "a", qos: int = 1) -> None:
        """Publish, and nothing arrives; from now on nothing else does either. The broker's word for what was published
        before says nothing of its way through the proxy: what is not to be lost has to be read first."""
        lost = self.proxy.count(Fate.ACKNOWLEDGE_AND_DROP) + last - first + 1
        self.proxy.apply(NOTHING_LIVE, Direction.TO_CLIENT)
        self.publish(first, last, topic, qos)
        assert self.proxy.wait_for(lambda: self.proxy.count(Fate.ACKNOWLEDGE_AND_DROP) >= lost, 10)

    def reconnect(self) -> None:
        """The receiver's connection breaks, and comes back over a network that loses nothing."""
        came_back = connected_again(self.receiver)
        self.proxy.cut("receiver")
        self.proxy.apply(CALM)
        assert came_back.wait(patience(10))


def connected_again(link: Link) -> threading.Event:
    """Set when the link has come up again; the next time, not now."""
    again, came_up = threading.Event(), link.retransmitter.came_up  # type: ignore[union-attr]

    def noticed() -> None:
        came_up()
        again.set()

    link.retransmitter.came_up = noticed  # type: ignore[union-attr, method-assign]
    return again


def numbers(subscription: Subscription, count: int) -> list[object]:
    return [subscription.get(timeout_s=patience(20)).value for _ in range(count)]


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with running_broker(request.param) as broker, ExitStack() as stack:
        yield Bench(broker, stack)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer is waited for no longer than 0.3 s."""
    monkeypatch.setattr("ether.protocol.reorder_buffer.PATIENCE_S", 0.3)


def test_holes_in_the_middle_are_filled_in_order(bench: Bench) -> None:
    with closing(bench.subscribe("#")) as everything:
        bench.proxy.apply(LOSSES, Direction.TO_CLIENT)
        bench.publish(1, 300)
        assert bench.proxy.wait_for(
            lambda: sum(bench.proxy.count(fate, Direction.TO_CLIENT) for fate in Fate) >= 300, 10
        )
        bench.proxy.apply(CALM)
        bench.publish(301, 301)
        assert numbers(everything, 301) == list(range(1, 302))
    assert bench.proxy.count(Fate.ACKNOWLEDGE_AND_DROP) > 30
    assert bench.receiver.retransmitter is not None
    assert bench.receiver.retransmitter.missed == 0


def test_headers_are_those_of_the_first_time(bench: Bench) -> None:
    with closing(bench.subscribe("a")) as subscription:
        bench.publish(1, 1)
        first = subscription.get(timeout_s=patience(20))
        bench.proxy.apply(NOTHING_LIVE)
        bench.sender.publish(TOPICS.data("a"), b"\0\1", parents=("cause",))
        assert bench.proxy.wait_for(lambda: bench.proxy.count(Fate.ACKNOWLEDGE_AND_DROP) == 1, 10)
        bench.proxy.apply(CALM)
        bench.publish(3, 3)
        again, third = (subscription.get(timeout_s=patience(20)) for _ in range(2))
    assert again.value == b"\0\1"
    assert (again.source, again.parents) == ("sender", ("cause",))
    assert first.time is not None
    assert again.time is not None
    assert third.time is not None
    assert first.time <= again.time <= third.time
    assert str(first.id) < str(again.id) < str(third.id)


def test_after_an_outage_nothing_is_missing_on_known_and_new_topics(bench: Bench) -> None:
    with closing(bench.subscribe("known")) as known, closing(bench.subscribe("new/+")) as new:
        bench.publish(1, 3, "known")
        assert numbers(known, 3) == [1, 2, 3]
        bench.lose(4, 700, "known")
        bench.lose(1, 20, "new/topic")
        bench.reconnect()
        bench.publish(701, 701, "known")
        bench.publish(21, 21, "new/topic")
        assert numbers(known, 698) == list(range(4, 702))
        assert numbers(new, 21) == list(range(1, 22))


def test_a_broker_that_is_killed_and_started_again_costs_nothing(bench: Bench) -> None:
    client = Client(bench.sender, TOPICS)
    enough = threading.Event()
    sent = 0
    with closing(bench.subscribe("a")) as subscription:

        def publish() -> None:
            nonlocal sent
            while not enough.wait(0.001):
                sent += 1
                client.publish(sent, "a")

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            got = numbers(subscription, 50)
            for _ in range(2):
                again = connected_again(bench.receiver), connected_again(bench.sender)
                bench.broker.kill()
                bench.broker = bench.broker.restart()
                assert all(event.wait(patience(10)) for event in again)
                got += numbers(subscription, 50)
        finally:
            enough.set()
            thread.join()
        got += numbers(subscription, sent - len(got))
    assert got == list(range(1, sent + 1))


def test_losses_at_qos_0_are_not_made_good_and_not_reported(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with closing(bench.subscribe("a")) as subscription:
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 9, qos=0)
        bench.lose(10, 10)
        bench.proxy.apply(CALM)
        bench.publish(11, 11)
        assert numbers(subscription, 2) == [10, 11]
    assert bench.receiver.retransmitter is not None
    assert bench.receiver.retransmitter.missed == 0
    assert "missed" not in caplog.text


def test_what_is_older_than_the_sender_keeps_is_reported_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert bench.sender.retransmitter is not None
    bench.sender.retransmitter._retransmit_buffer = RetransmitBuffer(count=10, backlog_bytes=0)
    bench.sender.retransmitter._notes.clear()
    with closing(bench.subscribe("a")) as subscription, caplog.at_level(logging.WARNING, "Ether"):
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 50)
        bench.reconnect()
        assert numbers(subscription, 10) == list(range(41, 51))
        bench.publish(51, 51)
        assert numbers(subscription, 1) == [51]
    assert gap_reports(bench.receiver, caplog) == [
        "receiver missed messages of sender on 'a', number 2 to 40: its sender keeps no more than its latest messages"
    ]
    assert bench.receiver.retransmitter is not None
    assert bench.receiver.retransmitter.missed == 39


def gap_reports(link: Link, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was reported when the link's own thread has done all its work."""
    done = threading.Event()
    link.retransmitter._do(done.set)  # type: ignore[union-attr]
    assert done.wait(patience(5))
    return [record.getMessage() for record in caplog.records if "missed messages" in record.getMessage()]


@pytest.mark.usefixtures("impatient")
def test_a_sender_that_is_gone_leaves_a_report_and_no_wait_without_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(bench.subscribe("a")) as subscription, caplog.at_level(logging.WARNING, "Ether"):
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        assert bench.sender.retransmitter is not None
        bench.sender.retransmitter._answer = lambda ask: None  # type: ignore[method-assign]  # as one that has died
        bench.lose(2, 4)
        bench.proxy.apply(CALM)
        bench.publish(5, 6)
        assert numbers(subscription, 2) == [5, 6]
    assert gap_reports(bench.receiver, caplog) == [
        "receiver missed messages of sender on 'a', number 2 to 4: its sender does not answer"
    ]


def test_what_is_asked_twice_is_not_sent_again_and_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some brokers send a message once for each filter that matches. A question that came twice was answered twice, and
    each answer brought on another question."""
    monkeypatch.setattr("ether.protocol.retransmit_buffer.ANSWER_COUNT", 5)
    retransmitter = bench.sender.retransmitter
    assert retransmitter is not None
    copies: list[int] = []
    send_again = retransmitter._send_again

    def counted(to: str, message: SentMessage) -> None:
        copies.append(message.sequence)
        send_again(to, message)

    monkeypatch.setattr(retransmitter, "_send_again", counted)
    with closing(bench.subscribe("a")) as subscription:
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 200)
        bench.proxy.apply(Policy(double=1.0, topics=r"/control/missed/"))
        bench.publish(201, 201)
        assert numbers(subscription, 200) == list(range(2, 202))
    assert bench.receiver.retransmitter is not None
    assert bench.receiver.retransmitter.missed == 0
    assert len(copies) < 2 * 200


@pytest.mark.parametrize("direction", Direction)
def test_a_question_or_answer_that_gets_lost_is_asked_again(bench: Bench, direction: Direction) -> None:
    with closing(bench.subscribe("a")) as subscription:
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 4)
        lost = bench.proxy.count(Fate.ACKNOWLEDGE_AND_DROP)
        bench.proxy.apply(CALM)
        bench.proxy.apply(NO_QUESTIONS, direction)
        bench.publish(5, 6)
        assert bench.proxy.wait_for(lambda: bench.proxy.count(Fate.ACKNOWLEDGE_AND_DROP) > lost, 10)
        bench.proxy.apply(CALM)
        assert numbers(subscription, 5) == [2, 3, 4, 5, 6]
    assert bench.receiver.retransmitter is not None
    assert bench.receiver.retransmitter.missed == 0


def test_what_a_fenced_sender_sends_again_is_refused(bench: Bench) -> None:
    with closing(bench.subscribe("a")) as subscription:
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 20)
        bench.receiver.fence([bench.sender.node])
        bench.reconnect()
        Client(bench.receiver, TOPICS).publish("own", "a")
        assert numbers(subscription, 1) == ["own"]
        with pytest.raises(TimeoutError):
            subscription.get(timeout_s=0.5)


def test_a_receiver_at_qos_0_is_sent_nothing_again(bench: Bench) -> None:
    with closing(bench.subscribe("a", qos=0)) as subscription:
        bench.publish(1, 1)
        assert numbers(subscription, 1) == [1]
        bench.lose(2, 9)
        bench.reconnect()
        bench.publish(10, 10)
        assert numbers(subscription, 1) == [10]


@pytest.fixture
def loopback() -> Iterator[Callable[[str], Link]]:
    broker = LoopbackBroker()
    with ExitStack() as stack:

        def opened(name: str) -> Link:
            link = Link(LoopbackTransport(broker, client_id=name), name, TOPICS)
            link.open(patience(1))
            stack.callback(link.close)
            return link

        yield opened


def test_a_link_that_missed_nothing_asks_for_nothing(loopback: Callable[[str], Link]) -> None:
    sender, receiver = loopback("sender"), loopback("receiver")
    with Client(receiver, TOPICS).subscribe("#") as everything:
        for number in range(100):
            Client(sender, TOPICS).publish(number, "a")
        assert numbers(everything, 100) == list(range(100))
        assert sender.missing() == receiver.missing() == receiver.outstanding() == {}


def test_a_source_whose_thread_waits_for_the_network_keeps_for_its_reader_and_is_bounded() -> None:
    """120 MB in one go: in memory is what the limits say, and the rest in files; nothing is given up."""
    begun, goes_on = threading.Event(), threading.Event()

    def tell(topic: str, value: object, *, timeout_s: float) -> None:
        begun.set()
        assert goes_on.wait(patience(60))

    topic, frame = TOPICS.data("frame"), b"x" * 300_000
    transport = LoopbackTransport(LoopbackBroker(), client_id="one")
    retransmitter = Retransmitter(
        "one", "0" * 12, TOPICS, transport, tell=tell, hand_over=lambda *_, **__: None, is_fenced=lambda _: False
    )
    retransmitter.open(lambda *_, **__: None)
    with closing(retransmitter):
        retransmitter._understand({"by": "reader", "got": {topic: 0}, "pulls": []})
        retransmitter.came_up()
        assert begun.wait(patience(10))
        log = retransmitter._retransmit_buffer._log
        for number in range(1, 401):
            retransmitter.sent(topic, number, frame, b"")
            assert sum(chunk.size for chunk in log._sealed) < 2 * KEEP_BYTES
        assert log._memory_bytes <= BACKLOG_MEMORY_BYTES
        kept = log.messages({topic: (0, 400)})
        assert [message.sequence for message in kept] == list(range(1, 401))
        assert retransmitter._untold == {}
        goes_on.set()


@pytest.mark.parametrize("fails", ["a question", "a look at the holes", "what is done now and then"])
def test_an_unforeseen_error_does_not_end_the_thread_that_asks(
    fails: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else asks for what was missed, answers, or gives up a hole."""
    told: queue.SimpleQueue[object] = queue.SimpleQueue()
    faults = iter([ValueError("a fault of ours")])

    def fail_once(*_: object) -> bool:
        for fault in faults:
            raise fault
        return False

    def tell(topic: str, value: object, *, timeout_s: float) -> None:
        if fails == "a question":
            fail_once()
        told.put(value)

    transport = LoopbackTransport(LoopbackBroker(), client_id="one")
    retransmitter = Retransmitter(
        "one", "0" * 12, TOPICS, transport, tell=tell, hand_over=lambda *_, **__: None, is_fenced=lambda _: False
    )
    if fails == "a look at the holes":
        monkeypatch.setattr(retransmitter._reorder_buffer, "says", fail_once)
    elif fails == "what is done now and then":
        monkeypatch.setattr(retransmitter, "_tend", fail_once)
    retransmitter.open(lambda *_, **__: None)
    with closing(retransmitter):
        for _ in range(3):
            retransmitter.came_up()
        for _ in range(2 if fails == "a question" else 3):
            assert told.get(timeout=patience(5)) == {"node": "0" * 12}
    assert "a fault of ours" in caplog.text
