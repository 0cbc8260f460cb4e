"""MQTT 5 and MQTT 3.1.1: two siblings, one of them chosen once for each connection.

Everything in which the two differ for a transport stands here and nowhere else: the arguments for paho, the place of
properties in a packet, the limits that the broker announces. Properties pass as packed bytes, never as paho's objects,
one of which costs 17 % of a call. The trap: what 3.1.1 cannot carry raises `UnsupportedFeature`; it is never silently
left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from ether.errors import UnsupportedFeature
from ether.errors.reason_codes import QOS_ADVICE, RETAIN_ADVICE, WILDCARD_ADVICE
from ether.transport.base import ProtocolVersion
from ether.transport.packets import (
    MAX_PACKET_BYTES,
    MalformedFrame,
    find_property,
    packed_length,
    read_length,
)

# How many unacknowledged QoS 1 messages may be under way in one direction where the other side announces nothing. It
# bounds what arrives while the reader is slow. Ether's own brokers allow 100, so their number decides with them.
RECEIVE_MAXIMUM = 256
WINDOW_V311 = 256
_MAXIMUM_PACKET_SIZE = 0x27


class PackedProperties(Properties):
    """A property section that is packed already, for paho's public `properties=` arguments."""

    _packed: bytes

    def __init__(self, packed: bytes) -> None:  # paho's own builds tables for 7 µs
        object.__setattr__(self, "_packed", packed_length(len(packed)) + packed)

    def pack(self) -> bytes:
        """With its length in front, as it stands in a packet."""
        return self._packed

    def __str__(self) -> str:
        return f"[{len(self._packed)} bytes, packed]"


class Version(ABC):
    """The parts of a transport that depend on the version of MQTT."""

    version: ClassVar[ProtocolVersion]
    client_arguments: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def connect_arguments(self) -> dict[str, Any]:
        """For paho's `connect()`."""

    @abstractmethod
    def will_properties(self, packed: bytes) -> Properties | None:
        """For paho's `will_set()`."""

    def subscription(self, qos: int, as_published: bool) -> Any:
        """The options of one filter, for paho's `subscribe()`."""
        return qos

    @abstractmethod
    def section(self, properties: bytes) -> bytes:
        """The property section of a PUBLISH, with its length."""

    @abstractmethod
    def split_properties(self, packet: bytes | bytearray, at: int, stop: int) -> tuple[bytes, int]:
        """The properties of a PUBLISH whose variable header goes on at `at`, and where its payload starts."""

    def readable_connack(self, body: bytes) -> bytes:
        """The CONNACK, changed where paho could not read it."""
        return body

    @abstractmethod
    def limits(self, connack: Properties | None) -> tuple[int, int]:
        """The broker's limits: messages under way, and bytes in one packet."""

    def takes_numbers(self, connack: Properties | None) -> bool:
        """Whether subscriptions may have numbers, which come back with each message."""
        return False

    def lacks(self, connack: Properties | None) -> Iterator[tuple[str, str]]:
        """What the broker says that it does not have and a session needs, each with what to do."""
        yield from ()


class V5(Version):
    version = ProtocolVersion.V5
    client_arguments: ClassVar[Mapping[str, Any]] = {"protocol": MQTTProtocolVersion.MQTTv5}

    def connect_arguments(self) -> dict[str, Any]:
        receive_maximum = b"\x21" + RECEIVE_MAXIMUM.to_bytes(2, "big")
        return {"clean_start": True, "properties": PackedProperties(receive_maximum)}

    def will_properties(self, packed: bytes) -> Properties | None:
        return PackedProperties(packed)

    def subscription(self, qos: int, as_published: bool) -> Any:
        return SubscribeOptions(qos=qos, retainAsPublished=True) if as_published else qos

    def section(self, properties: bytes) -> bytes:
        return packed_length(len(properties)) + properties if properties else b"\0"

    def split_properties(self, packet: bytes | bytearray, at: int, stop: int) -> tuple[bytes, int]:
        if at < stop and not packet[at]:
            return b"", at + 1
        low = packet[at] if at < stop else 128
        if low < 128:
            length, start = low, at + 1
        elif at + 1 < stop and packet[at + 1] < 128:  # one or two bytes say it, as for nearly every message
            length, start = low & 127 | packet[at + 1] << 7, at + 2
        else:
            length, start = read_length(packet, at)
        if start < 0 or start + length > stop:
            raise MalformedFrame("properties that reach beyond their packet")
        return bytes(packet[start : start + length]), start + length

    def readable_connack(self, body: bytes) -> bytes:
        # Some brokers announce a Maximum Packet Size above what a packet can have (HiveMQ 268,435,460). That
        # is valid, but paho 2.2 takes it for malformed.
        length, start = read_length(body, 2)
        at = find_property(body, start, start + length, _MAXIMUM_PACKET_SIZE) if start > 0 else -1
        if at < 0 or int.from_bytes(body[at : at + 4], "big") <= MAX_PACKET_BYTES:
            return body
        return body[:at] + MAX_PACKET_BYTES.to_bytes(4, "big") + body[at + 4 :]

    def limits(self, connack: Properties | None) -> tuple[int, int]:
        window = getattr(connack, "ReceiveMaximum", 65_535)
        return min(window, 65_000), getattr(connack, "MaximumPacketSize", MAX_PACKET_BYTES)

    def takes_numbers(self, connack: Properties | None) -> bool:
        return bool(getattr(connack, "SubscriptionIdentifierAvailable", 1))

    def lacks(self, connack: Properties | None) -> Iterator[tuple[str, str]]:
        if getattr(connack, "MaximumQoS", 1) < 1:
            yield "it takes messages at QoS 0 only", QOS_ADVICE
        if not getattr(connack, "RetainAvailable", 1):
            yield "it keeps no retained messages", RETAIN_ADVICE
        if not getattr(connack, "WildcardSubscriptionAvailable", 1):
            yield "it grants no wildcards in subscriptions", WILDCARD_ADVICE


class V311(Version):
    version = ProtocolVersion.V311
    client_arguments: ClassVar[Mapping[str, Any]] = {
        "protocol": MQTTProtocolVersion.MQTTv311,
        "clean_session": True,
    }

    def connect_arguments(self) -> dict[str, Any]:
        return {}

    def will_properties(self, packed: bytes) -> Properties | None:
        if packed:
            raise UnsupportedFeature("a will with properties")
        return None

    def section(self, properties: bytes) -> bytes:
        if properties:
            raise UnsupportedFeature("a message with properties")
        return b""

    def split_properties(self, packet: bytes | bytearray, at: int, stop: int) -> tuple[bytes, int]:
        return b"", at

    def limits(self, connack: Properties | None) -> tuple[int, int]:
        return WINDOW_V311, MAX_PACKET_BYTES


SIBLINGS: Mapping[ProtocolVersion, Version] = {ProtocolVersion.V5: V5(), ProtocolVersion.V311: V311()}
