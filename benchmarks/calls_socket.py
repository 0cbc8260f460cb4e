"""Calls by MQTT over a raw socket: the floor for a call through a broker from Python.

One thread reads; whoever has something to say writes it under a lock; packets and properties are packed by hand.
It knows just what two friendly processes need: no reconnection, no keep-alive, no check of what arrives.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from calls_rig import CALL_WITHIN_S, END_WITHIN_S, Caller, OpenCaller, OverMessages, Setup, main, server

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
REFUSED = 0x80
RECEIVE_BYTES = LARGE_BYTES = 65_536

OnPublish = Callable[[bytes, memoryview], None]
"""Takes a topic, and what follows it: with MQTT 5 properties and payload, with 3.1.1 the payload."""


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet_head(kind: int, length: int) -> bytes:
    """A packet's kind and length, the latter with seven bits in each byte."""
    sizes = bytearray()
    while length > 127:
        sizes.append(length & 127 | 128)
        length >>= 7
    sizes.append(length)
    return bytes((kind, *sizes))


def packet(kind: int, body: bytes) -> bytes:
    return packet_head(kind, len(body)) + body


def frame(buffer: bytearray, at: int, filled: int) -> tuple[int, int] | None:
    """Where the body of the packet at `at` starts and ends; None where its length is not yet here."""
    length = shift = 0
    for start in range(at + 1, min(at + 5, filled)):
        length |= (buffer[start] & 127) << shift
        shift += 7
        if buffer[start] < 128:
            return start + 1, start + 1 + length
    return None


class Connection:
    """A socket, and the thread that reads it."""

    def __init__(self, setup: Setup, name: str, on_publish: OnPublish) -> None:
        self._setup, self._on_publish = setup, on_publish
        self._lock = threading.Lock()
        self._number = 0
        self._acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._socket = self._open()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        names = text(name.encode()) + text(setup.username.encode()) + text(setup.password.encode())
        level, no_properties = (b"\x05", b"\0") if setup.v5 else (b"\x04", b"")
        self._ask(packet(CONNECT, text(b"MQTT") + level + b"\xc2\0\0" + no_properties + names))

    def _open(self) -> socket.socket:
        if self._setup.unix_socket:
            opened = socket.socket(socket.AF_UNIX)
            opened.connect(self._setup.unix_socket)
            return opened
        opened = socket.create_connection((self._setup.host, self._setup.port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def subscribe(self, topic: bytes) -> None:
        no_properties = b"\0" if self._setup.v5 else b""
        self._ask(packet(SUBSCRIBE, b"\0\1" + no_properties + text(topic) + bytes((self._setup.qos,))))

    def publish(self, topic: bytes, fields: bytes, body: bytes | memoryview) -> None:
        """`fields` stand between topic and body: properties, or what takes their place."""
        with self._lock:
            self._number = self._number % 65_535 + 1
            number = self._number.to_bytes(2, "big") if self._setup.qos else b""
            start = text(topic) + number + fields
            head = packet_head(PUBLISH | self._setup.qos << 1, len(start) + len(body)) + start
            if len(body) < LARGE_BYTES:
                self._socket.sendall(head + body)
            else:  # a second write costs less than to copy it
                self._socket.sendall(head)
                self._socket.sendall(body)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(END_WITHIN_S)
        self._socket.close()

    def _ask(self, question: bytes) -> None:
        self._socket.sendall(question)
        code = self._acknowledged.get(timeout=CALL_WITHIN_S)
        if code >= (REFUSED if question[0] == SUBSCRIBE else 1):
            raise ConnectionError(f"the broker refuses: reason {code}")

    def _read(self) -> None:
        buffer, filled = bytearray(RECEIVE_BYTES), 0
        while received := self._socket.recv_into(memoryview(buffer)[filled:]):
            filled += received
            at = wanted = 0
            while (found := frame(buffer, at, filled)) is not None:
                start, end = found
                if end > filled:
                    wanted = end - at
                    break
                self._take(buffer[at], bytes(memoryview(buffer)[start:end]))
                at = end
            filled -= at
            buffer[:filled] = buffer[at : at + filled]
            if wanted > len(buffer):
                buffer.extend(bytes(wanted - len(buffer)))

    def _take(self, head: int, body: bytes) -> None:
        kind = head & 0xF0
        if kind == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            if head & 2:
                self._on_publish(body[2:end], memoryview(body)[end + 2 :])
                with self._lock:
                    self._socket.sendall(packet(PUBACK, body[end : end + 2]))
            else:
                self._on_publish(body[2:end], memoryview(body)[end:])
        elif kind == CONNACK:
            self._acknowledged.put(body[1])
        elif kind == SUBACK:
            self._acknowledged.put(body[-1])


class Version5:
    """Properties: 8 is the response topic, 9 the correlation data."""

    def request(self, correlation: bytes, reply_topic: bytes) -> bytes:
        properties = b"\x08" + text(reply_topic) + b"\x09" + text(correlation)
        return bytes((len(properties),)) + properties

    def reply(self, _topic: bytes, rest: memoryview) -> tuple[bytes, bytes, memoryview]:
        found, body = self._split(rest)
        correlation = b"\x09" + text(found[9])
        return found[8], bytes((len(correlation),)) + correlation, body

    def correlation_and_body(self, rest: memoryview) -> tuple[bytes, memoryview]:
        found, body = self._split(rest)
        return found[9], body

    def _split(self, rest: memoryview) -> tuple[dict[int, bytes], memoryview]:
        found, at, end = {}, 1, 1 + rest[0]
        while at < end:
            stop = at + 3 + int.from_bytes(rest[at + 1 : at + 3], "big")
            found[rest[at]] = bytes(rest[at + 3 : stop])
            at = stop
        return found, rest[end:]


class Version311:
    """The correlation leads the payload, and the reply's topic follows from the request's."""

    def request(self, correlation: bytes, _reply_topic: bytes) -> bytes:
        return correlation

    def reply(self, topic: bytes, rest: memoryview) -> tuple[bytes, bytes, memoryview]:
        return topic.replace(b"/call/", b"/reply/"), b"", rest

    def correlation_and_body(self, rest: memoryview) -> tuple[bytes, memoryview]:
        return bytes(rest[:8]), rest[8:]


@contextmanager
def connected(setup: Setup, topic: str, on_publish: OnPublish) -> Iterator[Connection]:
    connection = Connection(setup, f"calls-{os.getpid()}", on_publish)
    try:
        connection.subscribe(topic.encode())
        yield connection
    finally:
        connection.close()


@contextmanager
def serve(setup: Setup) -> Iterator[str]:
    version = Version5() if setup.v5 else Version311()

    def answer(topic: bytes, rest: memoryview) -> None:
        connection.publish(*version.reply(topic, rest))

    with connected(setup, f"{setup.topic}/call/+", answer) as connection:
        yield setup.topic


class SocketCaller(OverMessages):
    """Any number of threads on one connection."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self._version = Version5() if setup.v5 else Version311()
        self._call_topic = f"{setup.topic}/call/{os.getpid()}".encode()
        self.reply_topic = f"{setup.topic}/reply/{os.getpid()}"
        self._encoded_reply_topic = self.reply_topic.encode()
        self.connection: Connection | None = None

    def send(self, correlation: bytes, body: bytes) -> None:
        assert self.connection is not None
        fields = self._version.request(correlation, self._encoded_reply_topic)
        self.connection.publish(self._call_topic, fields, body)

    def on_publish(self, _topic: bytes, rest: memoryview) -> None:
        self.settle(*self._version.correlation_and_body(rest))


@contextmanager
def connect(setup: Setup) -> Iterator[OpenCaller]:
    caller = SocketCaller(setup)
    with server(setup), connected(setup, caller.reply_topic, caller.on_publish) as caller.connection:

        def open_caller() -> nullcontext[Caller]:
            return nullcontext(caller)

        yield open_caller


if __name__ == "__main__":
    main(connect, serve=serve)
