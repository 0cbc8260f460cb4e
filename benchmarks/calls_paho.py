"""Calls by paho-mqtt, written by hand: what a user would write who knows MQTT well.

paho's defaults, with TCP_NODELAY unless the setup says otherwise. Over MQTT 5 response topic and correlation data are
properties; over 3.1.1 the correlation leads the payload, and the reply's topic follows from the request's.
The method runs in paho's own thread. No headers, no JSON, no validation: bytes are given back.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from calls_rig import CALL_WITHIN_S, Body, Caller, OpenCaller, OverMessages, Setup, main, server
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def publish_properties() -> Any:
    return Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]


class Version5:
    """A call's fields as properties."""

    protocol = MQTTProtocolVersion.MQTTv5

    def request(self, correlation: bytes, reply_topic: str, body: bytes) -> tuple[bytes, Properties | None]:
        properties = publish_properties()
        properties.ResponseTopic = reply_topic
        properties.CorrelationData = correlation
        return body, properties

    def reply(self, message: MQTTMessage) -> tuple[str, bytes | bytearray, Properties | None]:
        asked: Any = message.properties
        properties = publish_properties()
        properties.CorrelationData = asked.CorrelationData
        return asked.ResponseTopic, message.payload, properties

    def correlation_and_body(self, message: MQTTMessage) -> tuple[bytes, Body]:
        answered: Any = message.properties
        return answered.CorrelationData, message.payload


class Version311:
    """A call's fields in the payload."""

    protocol = MQTTProtocolVersion.MQTTv311

    def request(self, correlation: bytes, reply_topic: str, body: bytes) -> tuple[bytes, Properties | None]:
        return correlation + body, None

    def reply(self, message: MQTTMessage) -> tuple[str, bytes | bytearray, Properties | None]:
        return message.topic.replace("/call/", "/reply/"), message.payload, None

    def correlation_and_body(self, message: MQTTMessage) -> tuple[bytes, Body]:
        return bytes(message.payload[:8]), message.payload[8:]


def version(setup: Setup) -> Version5 | Version311:
    return Version5() if setup.v5 else Version311()


def without_delay(_client: Client, _data: object, opened: Any) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def connected(setup: Setup, topic: str, on_message: Any) -> Iterator[Client]:
    """A client with its network thread that has subscribed to the topic."""
    client = Client(
        CallbackAPIVersion.VERSION2,
        protocol=version(setup).protocol,
        transport="unix" if setup.unix_socket else "tcp",
    )
    client.username_pw_set(setup.username, setup.password)
    if setup.nodelay and not setup.unix_socket:
        client.on_socket_open = without_delay
    client.on_message = on_message
    ready = threading.Event()

    def on_connect(*_: Any) -> None:
        client.subscribe(topic, setup.qos)

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: ready.set()
    client.connect(setup.unix_socket or setup.host, setup.port)
    client.loop_start()
    try:
        if not ready.wait(CALL_WITHIN_S):
            raise TimeoutError(f"no subscription within {CALL_WITHIN_S:.0f} s")
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def serve(setup: Setup) -> Iterator[str]:
    spoken = version(setup)

    def on_message(client: Client, _data: object, message: MQTTMessage) -> None:
        topic, body, properties = spoken.reply(message)
        client.publish(topic, body, setup.qos, properties=properties)

    with connected(setup, f"{setup.topic}/call/+", on_message):
        yield setup.topic


class PahoCaller(OverMessages):
    """Any number of threads on one connection."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._version, self._qos = version(setup), setup.qos
        self._call_topic = f"{setup.topic}/call/{os.getpid()}"
        self.reply_topic = f"{setup.topic}/reply/{os.getpid()}"
        self.client: Client | None = None

    def send(self, correlation: bytes, body: bytes) -> None:
        assert self.client is not None
        body, properties = self._version.request(correlation, self.reply_topic, body)
        self.client.publish(self._call_topic, body, self._qos, properties=properties)

    def on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.settle(*self._version.correlation_and_body(message))


@contextmanager
def connect(setup: Setup) -> Iterator[OpenCaller]:
    caller = PahoCaller(setup)
    with server(setup), connected(setup, caller.reply_topic, caller.on_message) as caller.client:

        def open_caller() -> nullcontext[Caller]:
            return nullcontext(caller)

        yield open_caller


if __name__ == "__main__":
    main(connect, serve=serve)
