"""A retained message on a topic of commands, answers or signs of life reaches no receiver, on whichever thread it
arrives; announcements and users' data do."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from patience import patience

from ether.connection.link import Inbound, Link
from ether.transport.base import Delivery
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics, is_event

TOPICS = SessionTopics("bench")

EVENTS = [
    TOPICS.call("pump", "dose"),
    TOPICS.call("pump", "ether-lease"),
    TOPICS.reply("main-123"),
    TOPICS.control("stop"),
    TOPICS.control("keep"),
    TOPICS.missed("all"),
    f"{TOPICS.missed('0123456789ab')}/{TOPICS.data('a')}",
    TOPICS.log("pump"),
    TOPICS.heartbeat("pump"),
    TOPICS.record("recorder"),
    TOPICS.ack("outbox"),
]
RETAINED = [
    TOPICS.session_info,
    TOPICS.run,
    TOPICS.state("pump"),
    TOPICS.health("pi3"),
    TOPICS.recorder("recorder"),
    TOPICS.data("a"),
    TOPICS.data("call/pump/dose"),
    "plant/control/stop",
]


@pytest.fixture
def broker() -> LoopbackBroker:
    return LoopbackBroker()


@pytest.fixture
def link(broker: LoopbackBroker) -> Iterator[Link]:
    opened = Link(LoopbackTransport(broker, client_id="one"), "one")
    opened.open(patience(1), dispatch=False)
    yield opened
    opened.close()


def handled(link: Link) -> None:
    """Route everything that has arrived."""
    while (item := link.transport.receive(0)) is not None:
        link.step(item)


class Heard:
    """A receiver that notes topics, on the transport's thread, too."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def __call__(self, inbound: Inbound) -> bool:
        self.topics.append(inbound.delivery.topic)
        inbound.done()
        return True


@pytest.mark.parametrize("topic", EVENTS)
def test_an_event_is_never_retained(
    broker: LoopbackBroker, link: Link, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_event(topic)
    broker.route(Delivery(topic, b"{}", 1, True))
    heard = Heard()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # as after each reconnect
            link.listen(topic, heard, now=heard)
            handled(link)
        assert not link._take_now(Delivery(topic, b"{}", 1, True))
    assert heard.topics == []
    assert link.refused == 3
    assert [record.getMessage() for record in caplog.records if topic in record.getMessage()] == [
        warning for warning in caplog.messages if "mosquitto_pub -r -n -t" in warning
    ]
    assert len(caplog.records) == 1, "one warning for each topic"
    broker.route(Delivery(topic, b"{}", 1, False))
    handled(link)
    assert heard.topics == [topic], "what is sent now counts"


@pytest.mark.parametrize("topic", EVENTS)
def test_an_event_that_is_being_published_with_the_retain_flag_is_refused_where_the_broker_says_so(
    broker: LoopbackBroker, link: Link, topic: str
) -> None:
    """MQTT 5 Retain As Published. A bridge passes retained messages on like that each time it connects."""
    heard = Heard()
    link.listen(topic, heard, now=heard)
    broker.route(Delivery(topic, b"{}", 1, True))
    handled(link)
    assert heard.topics == []


@pytest.mark.parametrize("topic", RETAINED)
def test_announcements_and_data_may_be_retained(broker: LoopbackBroker, link: Link, topic: str) -> None:
    assert not is_event(topic)
    broker.route(Delivery(topic, b"{}", 1, True))
    heard = Heard()
    link.listen(topic, heard)
    handled(link)
    broker.route(Delivery(topic, b"{}", 1, True))
    handled(link)
    assert heard.topics == [topic, topic]


def test_filters_with_wildcards_are_of_the_plane_that_they_cover() -> None:
    for topic_filter in (TOPICS.call("pump", "+"), TOPICS.control("+"), TOPICS.log("+"), TOPICS.heartbeat("+")):
        assert is_event(topic_filter)
    for topic_filter in (TOPICS.state("+"), TOPICS.recorder("+"), TOPICS.data("#"), "#", "plant/#"):
        assert not is_event(topic_filter)
