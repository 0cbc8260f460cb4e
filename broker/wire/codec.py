"""What the codecs of both versions share: the packets that have one form, and the pieces of a PUBLISH."""

from abc import ABC, abstractmethod

from broker.wire.message import ApplicationMessage, Pieces
from broker.wire.packets import (
    PROTOCOL_ERROR,
    MalformedPacket,
    read_field,
    read_short,
    read_text,
    short,
    variable_integer,
)
from broker.wire.property_shapes import Shapes
from broker.wire.requests import ConnectRequest, DisconnectRequest, SubscribePacket, WillRequest
from broker.wire.topics import checked_topic

COPIED_BYTES = 16_384
"""A larger payload is never copied for one client: it goes to the socket as it lies in the packet that it came in."""

Publish = tuple[ApplicationMessage, int, "int | None", "int | None"]
"""A decoded PUBLISH: the message, its packet id (0 at QoS 0), its topic alias, its expiry in seconds."""
ConnackFacts = dict[int, "int | str | bytes"]
AS_IT_CAME = (0x30, 0x32, 0x34)
"""A PUBLISH that begins so may be passed on as it came: its flags are those of a delivery that is not retained."""


class Codec(ABC):
    """One version of MQTT as bytes. The two siblings are `CodecV311` and `CodecV5`; a connection has one of them."""

    level = 0

    @abstractmethod
    def connect(self, body: bytes) -> ConnectRequest:
        """A CONNECT."""

    @abstractmethod
    def check_long_length(self) -> None:
        """The length of a packet has more bytes than it needs. Raises `MalformedPacket` where that is an error."""

    @abstractmethod
    def publish(self, data: bytes, at: int, start: int, end: int, shapes: Shapes) -> Publish:
        """The PUBLISH that begins at `at`, and whose body lies from `start` to `end`. `shapes` are those of the
        properties that this connection has sent."""

    @abstractmethod
    def subscribe(self, body: bytes) -> SubscribePacket:
        """A SUBSCRIBE."""

    @abstractmethod
    def unsubscribe(self, body: bytes) -> tuple[int, list[bytes]]:
        """Packet id and filters of an UNSUBSCRIBE."""

    @abstractmethod
    def acknowledgement(self, body: bytes) -> tuple[int, int]:
        """Packet id and reason code of PUBACK, PUBREC, PUBREL or PUBCOMP."""

    @abstractmethod
    def disconnect(self, body: bytes) -> DisconnectRequest:
        """A DISCONNECT."""

    @abstractmethod
    def connack(self, present: bool, reason: int, facts: ConnackFacts) -> bytes:
        """The answer to a CONNECT; `reason` is a code of MQTT 5, `facts` are properties."""

    @abstractmethod
    def answer(self, first: int, packet_id: int, reason: int = 0) -> bytes:
        """PUBACK, PUBREC, PUBREL, PUBCOMP."""

    @abstractmethod
    def suback(self, packet_id: int, reasons: list[int]) -> bytes:
        """The answer to a SUBSCRIBE; `reasons` are granted QoS, or codes of MQTT 5."""

    @abstractmethod
    def unsuback(self, packet_id: int, reasons: list[int]) -> bytes:
        """The answer to an UNSUBSCRIBE."""

    @abstractmethod
    def disconnection(self, reason: int, text: str) -> bytes:
        """The broker's own DISCONNECT; empty where the version has none. `text` is a reason string, or empty."""

    @abstractmethod
    def properties_of(self, message: ApplicationMessage, more: bytes, now: float) -> bytes:
        """The property section of a PUBLISH; `more` are encoded properties of this delivery. Empty for 3.1.1."""

    def pieces(self, message: ApplicationMessage, qos: int, retain: bool, more: bytes, now: float) -> Pieces:
        """A PUBLISH of this message in three pieces; see `Pieces`."""
        key = (self.level, qos, retain, more, message.left_s(now) if message.expires_at is not None else 0)
        known = message.known_pieces(key)
        if known is None:
            known = self.pieces_of_topic(message, message.topic, qos, retain, more, now)
            message.keep_pieces(key, known)
        return known

    def pieces_of_topic(
        self, message: ApplicationMessage, topic: bytes, qos: int, retain: bool, more: bytes, now: float
    ) -> Pieces:
        """The same with this topic, which is empty where an alias stands for it; nothing is kept."""
        after = self.properties_of(message, more, now)
        payload_bytes = message.payload_bytes
        length = 2 + len(topic) + (2 if qos else 0) + len(after) + payload_bytes
        head = bytes((0x30 | qos << 1 | retain,)) + variable_integer(length) + short(len(topic)) + topic
        if payload_bytes <= COPIED_BYTES:
            return head, after + message.payload, b""
        return head, after, message.payload_view()


def topic_and_id(data: bytes, at: int, start: int, end: int) -> tuple[bytes, int, int]:
    """Topic, packet id (0 at QoS 0) and the position behind them of a PUBLISH, whose flags are checked."""
    first = data[at]
    qos = first >> 1 & 3
    if qos == 3 or first & 0x0E == 0x08:
        raise MalformedPacket("a PUBLISH with flags that make no sense")
    if start + 2 > end:
        raise MalformedPacket("a PUBLISH without a topic")
    topic_end = start + 2 + (data[start] << 8 | data[start + 1])
    if topic_end > end:
        raise MalformedPacket("a topic that is longer than its packet")
    topic = bytes(data[start + 2 : topic_end])
    if not qos:
        return topic, 0, topic_end
    packet_id = data[topic_end] << 8 | data[topic_end + 1] if topic_end + 2 <= end else 0
    if not packet_id:
        raise MalformedPacket("a PUBLISH without a packet id, or with the packet id 0")
    return topic, packet_id, topic_end + 2


def passed_on(
    data: bytes, at: int, end: int, payload_at: int, topic: bytes, properties: bytes, forwardable: int, id_at: int
) -> ApplicationMessage:
    """The message of the PUBLISH from `at` to `end`, with its packet id at `id_at`. A large packet lies in its buffer
    alone, and is not copied."""
    first, packet = data[at], data if at == 0 and end == len(data) else data[at:end]
    return ApplicationMessage(
        topic, packet, payload_at - at, first >> 1 & 3, first & 1 == 1, properties, forwardable, id_at - at
    )


def level_of(body: bytes) -> int:
    """The protocol level of a CONNECT: 4 is 3.1.1, 5 is 5, 3 is 3.1."""
    name, at = read_field(body, 0, len(body))
    if name not in (b"MQTT", b"MQIsdp") or at >= len(body):
        raise MalformedPacket("the name of another protocol")
    return body[at] if name == b"MQTT" else min(body[at], 3)


def connect_flags(body: bytes, at: int) -> int:
    """The flags of a CONNECT at `at`, checked."""
    if at >= len(body):
        raise MalformedPacket("a CONNECT without flags")
    flags = body[at]
    if flags & 1 or flags & 0x18 == 0x18 or (not flags & 4 and flags & 0x38):
        raise MalformedPacket("flags of a CONNECT that make no sense")
    return flags


def login(body: bytes, at: int, flags: int) -> tuple[bytes | None, bytes | None]:
    """User and password at the end of a CONNECT; nothing may follow them."""
    username = password = None
    if flags & 0x80:
        username, at = read_text(body, at, len(body))
    if flags & 0x40:
        password, at = read_field(body, at, len(body))
    if at != len(body):
        raise MalformedPacket("a CONNECT with bytes behind its end")
    return username, password


def will_message(
    body: bytes, at: int, flags: int, properties: bytes = b"", delay_s: int = 0, expiry_s: int | None = None
) -> tuple[WillRequest, int]:
    """The will at `at`, behind its properties, and where it ends."""
    topic, at = read_text(body, at, len(body))
    payload, at = read_field(body, at, len(body))
    message = ApplicationMessage(checked_topic(topic), payload, 0, flags >> 3 & 3, bool(flags & 0x20), properties)
    return WillRequest(message, delay_s, expiry_s), at


def filters_of(body: bytes, at: int) -> list[bytes]:
    """The filters of an UNSUBSCRIBE; there must be one."""
    texts = []
    while at < len(body):
        text, at = read_text(body, at, len(body))
        texts.append(text)
    if not texts:
        raise MalformedPacket("no filter", PROTOCOL_ERROR)
    return texts


def keep_alive(body: bytes, at: int) -> int:
    """The keep-alive of a CONNECT, in seconds."""
    return read_short(body, at, len(body))
