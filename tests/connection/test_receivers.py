"""Receivers that refuse a message, and receivers that raise: the others get it, once, and it counts as read once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from patience import patience

from ether.connection.link import Inbound, Link
from ether.transport.base import Delivery
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.envelope import EnvelopeV5
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("receivers")


class Receiver:
    """Notes what it takes; `now` on the transport's thread, the call itself on the dispatch thread."""

    def __init__(self, heard: list[str], name: str, *, refuses: bool = False, raises: bool = False) -> None:
        self.heard, self.name = heard, name
        self.refuses, self.raises = refuses, raises

    def now(self, inbound: Inbound) -> bool:
        if self.refuses:
            return False
        self(inbound)
        return True

    def __call__(self, inbound: Inbound) -> None:
        if self.raises:
            raise ValueError("a defect of this receiver")
        self.heard.append(self.name)
        inbound.done()


class Engine(LoopbackTransport):
    """Counts what was consumed."""

    read = 0

    def consumed(self, delivery: Delivery) -> None:
        self.read += 1
        super().consumed(delivery)


@pytest.fixture
def link() -> Iterator[Link]:
    opened = Link(Engine(LoopbackBroker(), "one"), "one", TOPICS)
    opened.open(patience(1), dispatch=False)
    yield opened
    opened.close()


def delivery(topic: str, number: int = 1) -> Delivery:
    head = Headers("00000000-0000-7000-8000-0123456789ab", "other", number, 0.0, ())
    packed = EnvelopeV5().pack(1, head)
    return Delivery(topic, packed.payload, 1, False, packed.properties)


def arrive(link: Link, message: Delivery) -> int:
    """What a network thread does with a message; returns how often it was consumed."""
    transport = link.transport
    assert isinstance(transport, Engine)
    before = transport.read
    if not link._take_now(message):
        link.step(message)
    return transport.read - before


@pytest.mark.parametrize("topic", [TOPICS.data("a"), TOPICS.control("verb")])
@pytest.mark.parametrize("refusing", [[0], [1], [0, 1, 2]])
def test_a_message_that_some_refuse_reaches_everybody_once(link: Link, topic: str, refusing: list[int]) -> None:
    heard: list[str] = []
    for number in range(3):
        receiver = Receiver(heard, str(number), refuses=number in refusing)
        link.listen(topic, receiver, now=receiver.now)
    assert arrive(link, delivery(topic, 1)) == 1
    assert sorted(heard) == ["0", "1", "2"]
    assert arrive(link, delivery(topic, 2)) == 1
    assert len(heard) == 6
    assert not link._not_taken


@pytest.mark.parametrize("now", [True, False], ids=["transport", "dispatch"])
def test_a_receiver_that_raises_keeps_nothing_from_the_others(link: Link, now: bool) -> None:
    heard: list[str] = []
    topic = TOPICS.control("verb")
    for name in ("a", "broken", "b"):
        receiver = Receiver(heard, name, raises=name == "broken")
        link.listen(topic, receiver, now=receiver.now if now else None)
    assert arrive(link, delivery(topic)) == 1
    assert sorted(heard) == ["a", "b"]


def test_a_message_is_read_once_however_often_that_is_said() -> None:
    read: list[Delivery] = []
    inbound = Inbound(delivery(TOPICS.data("a")), 2, threading.Lock(), read.append)
    for _ in range(4):
        inbound.done()
    assert len(read) == 1
