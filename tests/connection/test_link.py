"""A link over a broker in memory: headers, sequence numbers, routing, announcements that come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from patience import patience

from ether.connection.link import Inbound, Link
from ether.errors import EncodeError
from ether.session.client import Client
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("test")


@pytest.fixture
def broker() -> LoopbackBroker:
    return LoopbackBroker()


@pytest.fixture
def link(broker: LoopbackBroker) -> Iterator[Link]:
    opened = Link(LoopbackTransport(broker, client_id="one"), "one")
    opened.open(patience(1))
    yield opened
    opened.close()


def test_sequence_numbers_count_each_topic_and_skip_nothing(link: Link) -> None:
    client = Client(link, TOPICS)
    with client.subscribe("#") as everything:
        client.publish(1, "a")
        with pytest.raises(EncodeError):
            client.publish(object(), "a")
        client.publish(2, "a")
        client.publish(3, "b")
        arrived = [everything._arrived.get(timeout=patience(5)) for _ in range(3)]
        heads = [inbound.unpack().headers for inbound in arrived if inbound is not None]
        for inbound in arrived:
            assert inbound is not None
            inbound.done()
    assert [head.seq for head in heads if head] == [1, 2, 1]
    assert [head.source for head in heads if head] == ["one"] * 3
    assert sorted(head.id for head in heads if head) == [head.id for head in heads if head]


def test_sequence_numbers_of_many_threads_arrive_in_order(link: Link) -> None:
    client = Client(link, TOPICS)
    with client.subscribe("a") as a:

        def publish() -> None:
            for number in range(200):
                client.publish(number, "a")

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sequence = []
        for _ in range(1600):
            inbound = a._arrived.get(timeout=patience(5))
            assert inbound is not None
            head = inbound.unpack().headers
            assert head is not None
            sequence.append(head.seq)
            inbound.done()
    assert sequence == list(range(1, 1601))


def test_announcements_come_back_after_an_outage(link: Link, broker: LoopbackBroker) -> None:
    link.announce(TOPICS.state("one"), {"state": "ready"})
    seen: list[object] = []
    heard = threading.Semaphore(0)

    def hear(inbound: Inbound) -> None:
        seen.append(inbound.unpack().value)
        inbound.done()
        heard.release()

    link.listen(TOPICS.state("+"), hear)
    assert heard.acquire(timeout=patience(5))
    broker.stop()
    broker.start()
    assert heard.acquire(timeout=patience(5))
    assert seen[0] == seen[-1] == {"state": "ready"}


def test_a_receiver_that_fails_does_not_deafen_the_others(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    def fail(inbound: Inbound) -> None:
        inbound.done()
        raise RuntimeError("a defect")

    link.listen(TOPICS.data("bad"), fail)
    client = Client(link, TOPICS)
    with client.subscribe("good") as good:
        client.publish(1, "bad")
        client.publish(2, "good")
        assert good.get(timeout_s=patience(5)).value == 2
    assert "a defect" in caplog.text


def test_a_subscription_says_when_nothing_comes_and_when_it_is_closed(link: Link) -> None:
    subscription = Client(link, TOPICS).subscribe("x")
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        subscription.get(timeout_s=0.01)
    subscription.close()
    subscription.close()
    with pytest.raises(EOFError):
        subscription.get()
    assert list(subscription) == []
