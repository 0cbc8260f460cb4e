"""The embedded engine's core without a socket: clients that give bytes to `broker.core.client` and read what it writes.

The packets are built and read here by code of its own, so that a mistake in the broker's codecs cannot hide. The trap:
nothing moves by itself. `Bench.after` sets the clock, `Peer.packets` reads what was written since the last time.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from raw_client import packet, text

from broker.core.client import ClientProtocol, Terms
from broker.core.exchange import Exchange
from broker.core.quotas import Quotas
from broker.core.rights import Logins

KINDS = {
    0x01: "b", 0x02: "i", 0x03: "s", 0x08: "s", 0x09: "s", 0x0B: "v", 0x11: "i", 0x12: "s", 0x13: "h", 0x15: "s",
    0x16: "s", 0x17: "b", 0x18: "i", 0x19: "b", 0x1A: "s", 0x1C: "s", 0x1F: "s", 0x21: "h", 0x22: "h", 0x23: "h",
    0x24: "b", 0x25: "b", 0x26: "p", 0x27: "i", 0x28: "b", 0x29: "b", 0x2A: "b",
}  # fmt: skip
Properties = list[tuple[int, "int | str | bytes | tuple[str, str]"]]


def varint(number: int) -> bytes:
    encoded = b""
    while True:
        number, low = divmod(number, 128)
        encoded += bytes([low | (128 if number else 0)])
        if not number:
            return encoded


def props(*pairs: tuple[int, int | str | bytes | tuple[str, str]]) -> bytes:
    """A property section with its length."""
    body = b""
    for number, value in pairs:
        body += bytes([number])
        if isinstance(value, tuple):
            body += text(value[0]) + text(value[1])
        elif isinstance(value, (str, bytes)):
            body += text(value)
        else:
            kind = KINDS[number]
            body += varint(value) if kind == "v" else value.to_bytes({"b": 1, "h": 2, "i": 4}[kind], "big")
    return varint(len(body)) + body


def read_props(data: bytes, at: int) -> tuple[Properties, int]:
    length, at = read_varint(data, at)
    end, found = at + length, []
    while at < end:
        number, at = data[at], at + 1
        kind = KINDS[number]
        if kind == "v":
            value, at = read_varint(data, at)
            found.append((number, value))
        elif kind == "p":
            key, at = read_text(data, at)
            other, at = read_text(data, at)
            found.append((number, (key.decode(), other.decode())))
        elif kind == "s":
            raw, at = read_text(data, at)
            found.append((number, raw))
        else:
            size = {"b": 1, "h": 2, "i": 4}[kind]
            found.append((number, int.from_bytes(data[at : at + size], "big")))
            at += size
    assert at == end
    return found, at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def read_text(data: bytes, at: int) -> tuple[bytes, int]:
    size = struct.unpack_from("!H", data, at)[0]
    assert at + 2 + size <= len(data)
    return data[at + 2 : at + 2 + size], at + 2 + size


class Packet(NamedTuple):
    """One packet that the broker sent."""

    first: int
    body: bytes


class Received(NamedTuple):
    """A PUBLISH that the broker sent."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: Properties

    def value(self, number: int) -> object:
        """The value of a property; None where it is missing."""
        return next((value for key, value in self.properties if key == number), None)

    def values(self, number: int) -> list[object]:
        return [value for key, value in self.properties if key == number]


@dataclass
class Bench:
    """One exchange, and its clients."""

    max_packet_bytes: int = 1_000_000
    levels: tuple[int, ...] = (4, 5)
    quotas: Quotas = field(default_factory=Quotas)
    logins: Logins = field(default_factory=lambda: Logins("", {"": ""}, {}))
    warnings: list[str] = field(default_factory=list)
    exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.warnings.append, self.logins, 1_000.0, self.quotas)

    def plug(self, level: int = 5) -> Peer:
        """A client whose socket was accepted."""
        terms = Terms(self.max_packet_bytes, self.levels)
        return Peer(ClientProtocol(self.exchange, terms, "a test"), self, level)

    def client(self, client_id: str | None = None, level: int = 5, **options: object) -> Peer:
        """A client that was let in; its CONNACK is read already: `Peer.connack`."""
        peer = self.plug(level)
        peer.connect(client_id or f"client-{next(_numbers)}", **options)  # type: ignore[arg-type]
        first, body = peer.packet()
        assert (first, body[1]) == (0x20, 0)
        peer.connack = body
        return peer

    def after(self, seconds: float) -> None:
        """Let time go by, and what is due happen."""
        self.exchange.now += seconds
        self.exchange.timers.run(self.exchange.now)


_numbers = itertools.count()


class Will(NamedTuple):
    """A will to connect with."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: bytes = b"\x00"


class Peer:
    """One client's end."""

    def __init__(self, client: ClientProtocol, bench: Bench, level: int) -> None:
        self.core, self._bench, self.level = client, bench, level
        self.connack = b""
        self._ids = itertools.cycle(range(1, 65_536))
        self._read: list[Packet] = []

    # -- sending

    def send(self, data: bytes) -> None:
        self.core.receive(data)

    def connect(
        self,
        client_id: str | bytes = "",
        *,
        clean: bool = True,
        keep_alive_s: int = 0,
        properties: bytes = b"\x00",
        will: Will | None = None,
        login: tuple[str | bytes, str] | None = None,
    ) -> None:
        self.send(connect(self.level, client_id, clean, keep_alive_s, properties, will, login))

    def subscribe(self, *filters: str | tuple[str, int], properties: bytes = b"\x00") -> list[int]:
        """Subscribe with options (1 where none are given); the reasons. Retained messages stay to be read."""
        pairs = [(each, 1) if isinstance(each, str) else each for each in filters]
        more = properties if self.level == 5 else b""
        body = struct.pack("!H", next(self._ids)) + more + b"".join(text(f) + bytes([o]) for f, o in pairs)
        self.send(packet(0x82, body))
        came = self.packet()
        assert came.first == 0x90
        return list(came.body[3 if self.level == 5 else 2 :])

    def unsubscribe(self, *filters: str) -> list[int]:
        more = b"\x00" if self.level == 5 else b""
        self.send(packet(0xA2, b"\x00\x07" + more + b"".join(map(text, filters))))
        came = self.packet()
        assert came.first == 0xB0
        return list(came.body[3:])

    def publish(
        self,
        topic: str | bytes,
        payload: bytes = b"x",
        qos: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 9,
        properties: bytes = b"\x00",
    ) -> None:
        number = struct.pack("!H", packet_id) if qos else b""
        more = properties if self.level == 5 else b""
        self.send(packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + number + more + payload))

    def acknowledge(self, kind: int, packet_id: int, reason: int | None = None) -> None:
        """PUBACK (0x40), PUBREC (0x50), PUBREL (0x62), PUBCOMP (0x70)."""
        self.send(packet(kind, struct.pack("!H", packet_id) + (b"" if reason is None else bytes([reason]))))

    def disconnect(self, body: bytes = b"") -> None:
        self.send(packet(0xE0, body))

    def drop(self) -> None:
        """The connection is lost."""
        self.core.lost()

    # -- reading

    @property
    def over(self) -> bool:
        return self.core.over

    def packets(self) -> list[Packet]:
        """What came since the last time."""
        data = b"".join(self._read_bytes())
        found, self._read = self._read, []
        at = 0
        while at < len(data):
            length, start = read_varint(data, at + 1)
            assert start + length <= len(data), "half a packet"
            found.append(Packet(data[at], data[start : start + length]))
            at = start + length
        return found

    def _read_bytes(self) -> list[bytes]:
        pieces = []
        while batch := self.core.outlet.batch(self._bench.exchange.now):
            pieces.append(bytes(batch))
        return pieces

    def packet(self) -> Packet:
        """The next packet; later ones stay to be read."""
        found = self.packets()
        assert found, "nothing came"
        self._read = found[1:]
        return found[0]

    def received(self) -> list[Received]:
        """The messages that came since the last time; acknowledgements are passed over."""
        return [self._publication(each) for each in self.packets() if each.first >> 4 == 3]

    def payloads(self) -> list[bytes]:
        return [each.payload for each in self.received()]

    def reason(self) -> int:
        """The reason code of the last packet, which is a DISCONNECT or a CONNACK with a reason."""
        last = self.packets()[-1]
        assert last.first in (0xE0, 0x20), last
        return last.body[0 if last.first == 0xE0 else 1]

    def _publication(self, came: Packet) -> Received:
        first, body = came
        qos = first >> 1 & 3
        topic, at = read_text(body, 0)
        number = 0
        if qos:
            number, at = struct.unpack_from("!H", body, at)[0], at + 2
        found: Properties = []
        if self.level == 5:
            found, at = read_props(body, at)
        return Received(topic.decode(), body[at:], qos, bool(first & 1), bool(first & 8), number, found)


def connect(
    level: int = 5,
    client_id: str | bytes = "",
    clean: bool = True,
    keep_alive_s: int = 0,
    properties: bytes = b"\x00",
    will: Will | None = None,
    login: tuple[str | bytes, str] | None = None,
) -> bytes:
    """A CONNECT."""
    flags = clean << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    if login is not None:
        flags |= 0xC0
    five = level == 5
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keep_alive_s) + (properties if five else b"")
    body += text(client_id)
    if will is not None:
        body += (will.properties if five else b"") + text(will.topic) + text(will.payload)
    if login is not None:
        body += text(login[0]) + text(login[1])
    return packet(0x10, body)


def connack_properties(peer: Peer) -> Mapping[int, object]:
    """The properties of the CONNACK that let this client in."""
    return dict(read_props(peer.connack, 2)[0])


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, taken out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                del changed[at : at + rng.randrange(1, 9)]
            case 3:
                changed[at:at] = changed[at : at + rng.randrange(1, 30)]
            case 4:
                changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        if not changed:
            return b"\x00"
    return bytes(changed)
