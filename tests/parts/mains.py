"""A stock Mosquitto whose power can be cut: it comes back at the same address, with what it had on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from patience import patience
from running_brokers import STOCK, STOCK_PERSISTENT, RunningBroker, running_broker

from ether.transport import open_transport
from ether.transport.base import Delivery
from ether.transport.endpoint import Endpoint


class Mains:
    """A broker, and its later lives."""

    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker

    @property
    def url(self) -> str:
        """For `broker=`."""
        return self._broker.url_tcp

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        self._broker.kill()

    def start(self) -> None:
        """Start it again; returns when it lets clients in."""
        self._broker = self._broker.restart()

    def said(self) -> str:
        """What it has written to its log."""
        return self._broker.stderr()

    def retained(self) -> dict[str, Any]:
        """Everything of Ether's that it retains."""
        return retained_at(self.url)


@contextmanager
def mains(*, persistent: bool = True) -> Iterator[Mains]:
    """A stock Mosquitto. A persistent one writes each change to its disk at once, so that a power cut takes nothing
    with it; Debian's own configuration has persistence, too, and writes every half an hour."""
    more = {"autosave_on_changes": "true"} if persistent else {}
    with running_broker(STOCK_PERSISTENT if persistent else STOCK, **more) as broker:
        yield Mains(broker)


def retained_at(url: str) -> dict[str, Any]:
    """Everything that a broker retains under `ether/`, by topic. A message on a topic outside comes back behind it."""
    transport = open_transport(Endpoint.from_url(url), client_id="looker")
    transport.connect(patience(5))
    found: dict[str, Any] = {}
    try:
        transport.subscribe(["ether/#", "looker/echo"])
        transport.publish("looker/echo", b"").wait(patience(5))
        while isinstance(item := transport.receive(patience(5)), Delivery) and item.topic != "looker/echo":
            transport.consumed(item)
            if item.retained:
                found[item.topic] = json.loads(item.payload)
    finally:
        transport.close()
    return found
