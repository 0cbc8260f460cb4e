"""MQTT 5 as bytes. Its sibling is `codec_v311`."""

from broker.wire import properties
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
    PROTOCOL_ERROR,
    SUCCESS,
    MalformedPacket,
    packet,
    read_packet_id,
    read_text,
    read_variable_integer,
    short,
    variable_integer,
)
from broker.wire.properties import Spans, Values
from broker.wire.property_shapes import Shapes, keep_shape
from broker.wire.requests import (
    NO_LIMIT,
    ConnectRequest,
    DisconnectRequest,
    FilterRequest,
    SubscribePacket,
    WillRequest,
)

ACKNOWLEDGEMENTS = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x92, 0x97, 0x99})
"""The reasons of a client's PUBACK, PUBREC, PUBREL and PUBCOMP."""
GOODBYES = frozenset({0x00, 0x04, *range(0x80, 0x84), 0x90, *range(0x93, 0x9A)})
"""The reasons of a client's DISCONNECT (section 3.14.2.1)."""


class CodecV5(Codec):
    """Protocol level 5."""

    level = 5

    def connect(self, body: bytes) -> ConnectRequest:
        flags, end = connect_flags(body, 7), len(body)
        values, at = properties.read(body, 10, end, properties.IN_CONNECT)
        client_id, at = read_text(body, at, end)
        will = None
        if flags & 4:
            will, at = _will(body, at, flags)
        username, password = login(body, at, flags)
        method = values.get(properties.AUTHENTICATION_METHOD)
        if method is None and properties.AUTHENTICATION_DATA in values:
            raise MalformedPacket("authentication data without a method", PROTOCOL_ERROR)
        return ConnectRequest(
            client_id,
            bool(flags & 2),
            keep_alive(body, 8),
            _number(values, properties.SESSION_EXPIRY, 0),
            will,
            username,
            password,
            _number(values, properties.RECEIVE_MAXIMUM, 65_535),
            _number(values, properties.MAXIMUM_PACKET_SIZE, NO_LIMIT),
            _number(values, properties.TOPIC_ALIAS_MAXIMUM, 0),
            bool(_number(values, properties.RESPONSE_REQUESTED, 0)),
            method if isinstance(method, bytes) else None,
        )

    def check_long_length(self) -> None:
        raise MalformedPacket("a packet length with more bytes than it needs")

    def publish(self, data: bytes, at: int, start: int, end: int, shapes: Shapes) -> Publish:
        topic, packet_id, position = topic_and_id(data, at, start, end)
        id_at, forwardable = position - 2, 5 if data[at] in AS_IT_CAME else 0
        if position >= end:
            raise MalformedPacket("a PUBLISH without properties")
        length = data[position]
        if length < 128:
            position += 1
        elif 0 < (more := data[position + 1]) < 128:
            length, position = length & 127 | more << 7, position + 2
        else:
            length, position = read_variable_integer(data, position, end)
        payload_at = position + length
        if payload_at > end:
            raise MalformedPacket("properties that are longer than their packet")
        if not length:
            return passed_on(data, at, end, payload_at, topic, b"", forwardable, id_at), packet_id, None, None
        section = bytes(data[position:payload_at])
        shape = shapes.get(length)
        if shape is not None and shape.fits(section):
            alias, expiry_at = None, shape.expiry_at
            expiry_s = int.from_bytes(section[expiry_at : expiry_at + 4], "big") if expiry_at >= 0 else None
        else:
            expiry_s, alias, section, expiry_at = properties.read_of_publish(data, position, payload_at)
            if alias is None:
                keep_shape(shapes, section)
            else:
                forwardable = 0
        message = passed_on(data, at, end, payload_at, topic, section, forwardable, id_at)
        message.expiry_at = expiry_at
        return message, packet_id, alias, expiry_s

    def subscribe(self, body: bytes) -> SubscribePacket:
        packet_id, end, filters = read_packet_id(body, 0, len(body)), len(body), []
        values, at = properties.read(body, 2, end, properties.IN_SUBSCRIBE)
        while at < end:
            text, at = read_text(body, at, end)
            if at >= end:
                raise MalformedPacket("a filter without options")
            filters.append(_filter(text, body[at]))
            at += 1
        if not filters:
            raise MalformedPacket("no filter", PROTOCOL_ERROR)
        number = _number(values, properties.SUBSCRIPTION_ID, 0)
        identifier = properties.one(properties.SUBSCRIPTION_ID, number) if number else b""
        return SubscribePacket(packet_id, filters, identifier)

    def unsubscribe(self, body: bytes) -> tuple[int, list[bytes]]:
        packet_id = read_packet_id(body, 0, len(body))
        _, at = properties.read(body, 2, len(body), properties.IN_UNSUBSCRIBE)
        return packet_id, filters_of(body, at)

    def acknowledgement(self, body: bytes) -> tuple[int, int]:
        packet_id = read_packet_id(body, 0, len(body))
        if len(body) == 2:
            return packet_id, 0
        if len(body) > 3:
            _, at = properties.read(body, 3, len(body), properties.IN_ACKNOWLEDGEMENT)
            if at != len(body):
                raise MalformedPacket("an acknowledgement with bytes behind its end")
        if body[2] not in ACKNOWLEDGEMENTS:
            raise MalformedPacket(f"an acknowledgement with the reason {body[2]:#04x}", PROTOCOL_ERROR)
        return packet_id, body[2]

    def disconnect(self, body: bytes) -> DisconnectRequest:
        values: Values = {}
        if body and body[0] not in GOODBYES:
            raise MalformedPacket(f"a DISCONNECT with the reason {body[0]:#04x}", PROTOCOL_ERROR)
        if len(body) > 1:
            values, at = properties.read(body, 1, len(body), properties.IN_DISCONNECT)
            if at != len(body):
                raise MalformedPacket("a DISCONNECT with bytes behind its end")
        expiry = values.get(properties.SESSION_EXPIRY)
        return DisconnectRequest(
            # Only the reason 0x00 takes the will back (section 3.14.4).
            bool(body) and body[0] != SUCCESS,
            expiry if isinstance(expiry, int) else None,
        )

    def connack(self, present: bool, reason: int, facts: ConnackFacts) -> bytes:
        return packet(0x20, bytes((present, reason)) + properties.written(facts))

    def answer(self, first: int, packet_id: int, reason: int = 0) -> bytes:
        if reason:
            return bytes((first, 3, packet_id >> 8, packet_id & 255, reason))
        return bytes((first, 2, packet_id >> 8, packet_id & 255))

    def suback(self, packet_id: int, reasons: list[int]) -> bytes:
        return packet(0x90, short(packet_id) + b"\x00" + bytes(reasons))

    def unsuback(self, packet_id: int, reasons: list[int]) -> bytes:
        return packet(0xB0, short(packet_id) + b"\x00" + bytes(reasons))

    def disconnection(self, reason: int, text: str) -> bytes:
        if not text:
            return bytes((0xE0, 1, reason))
        return packet(0xE0, bytes((reason,)) + properties.written({properties.REASON_STRING: text}))

    def properties_of(self, message: ApplicationMessage, more: bytes, now: float) -> bytes:
        section = message.properties
        if message.expires_at is not None:
            at = message.expiry_at
            section = section[:at] + message.left_s(now).to_bytes(4, "big") + section[at + 4 :]
        section = more + section
        return variable_integer(len(section)) + section


def _filter(text: bytes, options: int) -> FilterRequest:
    qos, handling = options & 3, options >> 4 & 3
    if options & 0xC0:
        raise MalformedPacket("reserved bits among the options of a filter")
    if qos == 3 or handling == 3:
        raise MalformedPacket("options of a filter that make no sense", PROTOCOL_ERROR)
    if options & 4 and text.startswith(b"$share/"):
        raise MalformedPacket("a shared subscription that wants no local messages", PROTOCOL_ERROR)
    return FilterRequest(text, qos, bool(options & 4), bool(options & 8), handling)


def _will(body: bytes, at: int, flags: int) -> tuple[WillRequest, int]:
    spans: Spans = {}
    start = at
    values, at = properties.read(body, at, len(body), properties.IN_WILL, spans)
    _, start = read_variable_integer(body, start, at)
    expiry = values.get(properties.MESSAGE_EXPIRY)
    will, after = will_message(
        body,
        at,
        flags,
        properties.without(body, start, at, spans, (properties.WILL_DELAY,)),
        _number(values, properties.WILL_DELAY, 0),
        expiry if isinstance(expiry, int) else None,
    )
    if will.expiry_s is not None:
        first, delay = spans[properties.MESSAGE_EXPIRY][0], spans.get(properties.WILL_DELAY)
        left_out = delay[1] - delay[0] if delay is not None and delay[0] < first else 0
        will.message.expiry_at = first - start - left_out + 1
    return will, after


def _number(values: Values, number: int, default: int) -> int:
    value = values.get(number, default)
    assert isinstance(value, int)
    return value


V5 = CodecV5()
