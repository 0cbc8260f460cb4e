"""A small MQTT 3.1.1 client on a bare socket: it sees every byte and acknowledges nothing unless told to.

Written without the broker's own codec, so that a mistake there cannot hide here. The trap: `packet` waits on the socket
with a deadline and raises `TimeoutError`; `None` means that the broker has closed the connection.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import struct
from types import TracebackType
from typing import NamedTuple

from patience import patience

PUBLISH, PUBACK, SUBACK, PINGRESP = 0x30, 0x40, 0x90, 0xD0


class Target(NamedTuple):
    """Where a broker listens, and who may enter."""

    host: str
    port: int
    username: str
    password: str
    max_packet_bytes: int


class Will(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Publication(NamedTuple):
    """A PUBLISH that arrived."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(encoded)) + encoded


def packet(first: int, body: bytes) -> bytes:
    length, number = b"", len(body)
    while True:
        number, low = divmod(number, 128)
        length += bytes([low | (128 if number else 0)])
        if not number:
            return bytes([first]) + length + body


def publish_packet(topic: str, payload: bytes, qos: int = 0, retain: bool = False, packet_id: int = 1) -> bytes:
    number = struct.pack("!H", packet_id) if qos else b""
    return packet(PUBLISH | qos << 1 | retain, text(topic) + number + payload)


def connect_packet(
    target: Target,
    client_id: str,
    clean: bool = True,
    keepalive_s: int = 60,
    will: Will | None = None,
    level: int = 4,
    properties: bytes = b"",
) -> bytes:
    flags = 0xC0 | clean << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    body = text("MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive_s) + properties + text(client_id)
    if will is not None:
        body += properties + text(will.topic) + text(will.payload)
    return packet(0x10, body + text(target.username) + text(target.password))


class RawClient:
    """One connection. Opened and admitted by the constructor, unless `hello` is False."""

    def __init__(
        self,
        target: Target,
        client_id: str | None = None,
        *,
        clean: bool = True,
        keepalive_s: int = 60,
        will: Will | None = None,
        hello: bool = True,
    ) -> None:
        self.client_id = client_id or f"raw-{secrets.token_hex(6)}"
        self.socket = socket.create_connection((target.host, target.port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._ids = itertools.cycle(range(1, 65_536))
        self.connack: bytes | None = None
        if hello:
            self.socket.sendall(connect_packet(target, self.client_id, clean, keepalive_s, will))
            came = self.packet()
            self.connack = came[1] if came else None

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def packet(self, timeout_s: float = 5.0) -> tuple[int, bytes] | None:
        """First byte and body of the next packet; None at the end of the connection."""
        while (whole := self._take()) is None:
            self.socket.settimeout(patience(timeout_s))
            try:
                data = self.socket.recv(262_144)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            finally:
                self.socket.settimeout(30)
            if not data:
                return None
            self._received += data
        return whole

    def is_closed(self, timeout_s: float = 3.0) -> bool:
        """Whether the broker closes the connection within the time; what comes before is read and forgotten."""
        try:
            while self.packet(timeout_s) is not None:
                pass
        except TimeoutError:
            return False
        return True

    def publication(self, timeout_s: float = 5.0) -> Publication:
        """The next PUBLISH; other packets are passed over."""
        while (came := self.packet(timeout_s)) is not None:
            if came[0] & 0xF0 == PUBLISH:
                return parsed(*came)
        raise ConnectionResetError("the broker closed the connection")

    def publications(self, quiet_s: float = 0.3) -> list[Publication]:
        """Every PUBLISH until nothing has come for the time."""
        found = []
        try:
            while True:
                found.append(self.publication(quiet_s))
        except (TimeoutError, ConnectionResetError):
            return found

    def subscribe(self, *filters: tuple[str, int]) -> list[int]:
        """Subscribe and give back what was granted; retained messages stay to be read after that."""
        number = next(self._ids)
        self.send(packet(0x82, struct.pack("!H", number) + b"".join(text(f) + bytes([qos]) for f, qos in filters)))
        while (came := self.packet()) is not None:
            if came[0] == SUBACK:
                return list(came[1][2:])
        raise ConnectionResetError("no SUBACK")

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, retain: bool = False) -> int:
        number = next(self._ids)
        self.send(publish_packet(topic, payload, qos, retain, number))
        return number

    def acknowledge(self, packet_id: int) -> None:
        self.send(packet(PUBACK, struct.pack("!H", packet_id)))

    def ping(self, timeout_s: float = 5.0) -> None:
        """Return when the broker has handled everything that was sent before."""
        self.send(b"\xc0\x00")
        while (came := self.packet(timeout_s)) is not None:
            if came[0] == PINGRESP:
                return
        raise ConnectionResetError("no PINGRESP")

    def disconnect(self) -> None:
        self.send(b"\xe0\x00")

    def _take(self) -> tuple[int, bytes] | None:
        data, length = self._received, 0
        for at in range(1, min(len(data), 5)):
            length |= (data[at] & 127) << 7 * (at - 1)
            if data[at] < 128:
                end = at + 1 + length
                if len(data) < end:
                    return None
                self._received = data[end:]
                return data[0], data[at + 1 : end]
        return None


def parsed(first: int, body: bytes) -> Publication:
    size = struct.unpack("!H", body[:2])[0]
    topic, rest, qos = body[2 : 2 + size].decode(), body[2 + size :], first >> 1 & 3
    number = struct.unpack("!H", rest[:2])[0] if qos else 0
    return Publication(topic, rest[2:] if qos else rest, qos, bool(first & 1), bool(first & 8), number)
