"""What the tests of shipped logs share: links to a real broker, and somebody who hears every record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from patience import patience
from running_brokers import RunningBroker, mosquitto_missing

from ether.connection.assembly import make_link
from ether.connection.link import Inbound, Link
from ether.log import UnseenHandler
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("test")
_NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param("amqtt"), pytest.param("mosquitto", marks=_NEEDS_MOSQUITTO)]


class Listener:
    """Keeps what arrives on the log topics."""

    def __init__(self, link: Link) -> None:
        self.values: list[tuple[str, Any]] = []
        self._changed = threading.Condition()
        link.listen(TOPICS.log("+"), self._hear, qos=0)

    def _hear(self, inbound: Inbound) -> None:
        value = inbound.unpack().value
        inbound.done()
        with self._changed:
            self.values.append((inbound.delivery.topic.rpartition("/")[2], value))
            self._changed.notify_all()

    def wait_for(self, done: Callable[[list[Any]], bool], timeout_s: float = 15.0) -> list[Any]:
        """All records, as soon as they are as wanted."""
        with self._changed:
            found = self._changed.wait_for(lambda: done(self.records), patience(timeout_s))
            shown = [str(record)[:200] for record in self.records[-5:]]
            assert found, f"{len(self.records)} records arrived, the last ones {shown}"
            return self.records

    @property
    def records(self) -> list[Any]:
        return [value for _, value in self.values if "cut" not in value]

    @property
    def said_cut(self) -> dict[str, int]:
        """What the reports of cut records add up to."""
        total: dict[str, int] = {}
        for _, value in self.values:
            for level, count in value.get("cut", {}).items():
                total[level] = total.get(level, 0) + count
        return total


@contextmanager
def links(broker: RunningBroker) -> Iterator[Callable[[str], Link]]:
    """Opens links, and closes them in the end."""
    with ExitStack() as opened:

        def open_link(name: str) -> Link:
            link = make_link(Endpoint.from_url(broker.url_tcp), name, will=None, max_packet_bytes=None)
            link.open(patience(10))
            opened.callback(link.close)
            return link

        yield open_link


@contextmanager
def levels(root: int) -> Iterator[None]:
    """The root's level for a while; handlers that a test left behind are taken away."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(root)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in logger.handlers[:]:
            if isinstance(handler, UnseenHandler):
                logger.removeHandler(handler)


@contextmanager
def alone() -> Iterator[None]:
    """Without the test runner's own handlers, which fail where a record is broken and keep all of a flood."""
    logger = logging.getLogger()
    others = [handler for handler in logger.handlers if not isinstance(handler, UnseenHandler)]
    for handler in others:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for handler in others:
            logger.addHandler(handler)


def texts(records: list[Any]) -> list[str]:
    return [record["message"] for record in records]


def times_s(do: Callable[[int], object], count: int) -> list[float]:
    """How long each of many calls took, in seconds, the longest last."""
    took_s = []
    for number in range(count):
        began = time.perf_counter()
        do(number)
        took_s.append(time.perf_counter() - began)
    return sorted(took_s)
