"""MQTT 3.1.1 as bytes. Its sibling is `codec_v5`."""

from broker.wire.codec import (
    AS_IT_CAME,
    Codec,
    ConnackFacts,
    Publish,
    connect_flags,
    filters_of,
    keep_alive,
    login,
    passed_on,
    topic_and_id,
    will_message,
)
from broker.wire.message import ApplicationMessage
from broker.wire.packets import (
    BAD_LOGIN,
    FAILURE,
    INVALID_CLIENT_ID,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    QUOTA_EXCEEDED,
    SUCCESS,
    UNAVAILABLE,
    UNSUPPORTED_VERSION,
    MalformedPacket,
    packet,
    read_packet_id,
    read_text,
    short,
)
from broker.wire.property_shapes import Shapes
from broker.wire.requests import FOR_EVER, ConnectRequest, DisconnectRequest, FilterRequest, SubscribePacket

_RETURN_CODES = {
    SUCCESS: 0, UNSUPPORTED_VERSION: 1, INVALID_CLIENT_ID: 2, UNAVAILABLE: 3, QUOTA_EXCEEDED: 3, BAD_LOGIN: 5,
    NOT_AUTHORIZED: 5,
}  # fmt: skip
"""CONNACK has six codes in 3.1.1. What none of them says is a connection that is closed without an answer."""


class CodecV311(Codec):
    """Protocol level 4."""

    level = 4

    def connect(self, body: bytes) -> ConnectRequest:
        flags = connect_flags(body, 7)
        if flags & 0x40 and not flags & 0x80:
            raise MalformedPacket("a password without a user")
        client_id, at = read_text(body, 10, len(body))
        will = None
        if flags & 4:
            will, at = will_message(body, at, flags)
        username, password = login(body, at, flags)
        clean = bool(flags & 2)
        return ConnectRequest(client_id, clean, keep_alive(body, 8), 0 if clean else FOR_EVER, will, username, password)

    def check_long_length(self) -> None:
        return  # allowed, and there are clients that pad

    def publish(self, data: bytes, at: int, start: int, end: int, shapes: Shapes) -> Publish:
        topic, packet_id, position = topic_and_id(data, at, start, end)
        forwardable = 4 if data[at] in AS_IT_CAME else 0
        message = passed_on(data, at, end, position, topic, b"", forwardable, position - 2)
        return message, packet_id, None, None

    def subscribe(self, body: bytes) -> SubscribePacket:
        packet_id, at, filters = read_packet_id(body, 0, len(body)), 2, []
        while at < len(body):
            text, at = read_text(body, at, len(body))
            if at >= len(body) or body[at] > 2:
                raise MalformedPacket("a filter without a valid QoS")
            filters.append(FilterRequest(text, body[at]))
            at += 1
        if not filters:
            raise MalformedPacket("no filter", PROTOCOL_ERROR)
        return SubscribePacket(packet_id, filters)

    def unsubscribe(self, body: bytes) -> tuple[int, list[bytes]]:
        return read_packet_id(body, 0, len(body)), filters_of(body, 2)

    def acknowledgement(self, body: bytes) -> tuple[int, int]:
        if len(body) != 2:
            raise MalformedPacket("an acknowledgement that is no packet id")
        return read_packet_id(body, 0, 2), SUCCESS

    def disconnect(self, body: bytes) -> DisconnectRequest:
        if body:
            raise MalformedPacket("a DISCONNECT with a body")
        return DisconnectRequest()

    def connack(self, present: bool, reason: int, facts: ConnackFacts) -> bytes:
        code = _RETURN_CODES.get(reason)
        return b"" if code is None else bytes((0x20, 2, present, code))

    def answer(self, first: int, packet_id: int, reason: int = 0) -> bytes:
        return bytes((first, 2, packet_id >> 8, packet_id & 255))

    def suback(self, packet_id: int, reasons: list[int]) -> bytes:
        return packet(0x90, short(packet_id) + bytes(min(reason, FAILURE) for reason in reasons))

    def unsuback(self, packet_id: int, reasons: list[int]) -> bytes:
        return packet(0xB0, short(packet_id))

    def disconnection(self, reason: int, text: str) -> bytes:
        return b""

    def properties_of(self, message: ApplicationMessage, more: bytes, now: float) -> bytes:
        return b""


V311 = CodecV311()
