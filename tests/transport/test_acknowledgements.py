"""Acknowledgements of what was received: they ride along, and no broker waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from engine_params import NEEDS_MOSQUITTO
from limited_mosquitto import limited_mosquitto
from patience import patience

from ether.transport import open_transport
from ether.transport.base import Delivery, Transport
from ether.transport.endpoint import Endpoint
from ether.transport.mqtt import PACED_ACK_DELAY_S, MqttWire

pytestmark = NEEDS_MOSQUITTO
TOPIC = "readings"


def connected(url: str, name: str) -> Transport:
    transport = open_transport(Endpoint.from_url(url), client_id=name)
    transport.connect(patience(5))
    return transport


def exchanged(url: str, messages: int, pause: Callable[[], object]) -> float:
    """Seconds until so many messages of one client have come to another one, which takes each at once."""
    receiver, sender = connected(url, "receiver"), connected(url, "sender")
    try:
        receiver.subscribe([TOPIC])
        began = time.monotonic()
        for number in range(messages):
            sender.publish(TOPIC, str(number).encode())
            pause()
        got: list[bytes] = []
        while len(got) < messages:
            item = receiver.receive(patience(10))
            assert isinstance(item, Delivery), item
            receiver.consumed(item)
            got.append(bytes(item.payload))
        assert got == [str(number).encode() for number in range(messages)]
        return time.monotonic() - began
    finally:
        sender.close()
        receiver.close()


def test_acknowledgements_of_paced_messages_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message each 10 ms: a packet, and a wake-up of the network thread, for each acknowledgement would be 40."""
    sent: list[int] = []
    send = MqttWire._wire_send_acks_locked

    def counted(wire: Any) -> None:
        sent.append(len(wire._wire_acks) // 4)
        send(wire)

    monkeypatch.setattr(MqttWire, "_wire_send_acks_locked", counted)
    never = threading.Event()
    with limited_mosquitto() as broker:
        took_s = exchanged(broker.url_tcp, 40, lambda: never.wait(0.01))
    # On a busy machine a pause is longer, and fewer of them fit into the time that an acknowledgement waits.
    assert len(sent) <= max(20, 2 * took_s / PACED_ACK_DELAY_S), sent


def test_a_broker_with_one_message_under_way_is_not_slowed_down() -> None:
    messages = 200
    with limited_mosquitto("max_inflight_messages 1") as broker:
        took_s = exchanged(broker.url_tcp, messages, lambda: None)
    assert took_s < patience(messages * PACED_ACK_DELAY_S / 4)  # where each waits, four times as long and more
