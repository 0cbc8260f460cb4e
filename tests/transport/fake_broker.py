"""A broker that misbehaves on purpose: a few lines of MQTT under the control of a test."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from patience import patience

from ether.transport import Endpoint

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14


@dataclass
class FakeConnection:
    """One accepted connection; `number` counts from 0."""

    number: int
    sock: socket.socket
    v5: bool = False

    def read_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(min(count - len(data), 1 << 20))
            if not more:
                raise ConnectionResetError
            data += more
        return data

    def read_packet(self) -> tuple[int, int, bytes]:
        """Type, flags, body."""
        first = self.read_exactly(1)[0]
        length = shift = 0
        while True:
            byte = self.read_exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return first >> 4, first & 15, self.read_exactly(length)

    def await_type(self, wanted: int) -> bytes:
        """The body of the next packet of that type; pings are answered, others skipped."""
        while True:
            kind, _, body = self.read_packet()
            if kind == wanted:
                return body
            if kind == PINGREQ:
                self.send(b"\xd0\x00")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def accept(self, reason: int = 0, properties: bytes = b"") -> None:
        """Read CONNECT and answer it."""
        self.v5 = self.await_type(CONNECT)[6] == 5
        rest = bytes((len(properties),)) + properties if self.v5 else b""
        self.send(bytes((0x20, 2 + len(rest), 0, reason)) + rest)

    def grant(self, reason: int = 1) -> bytes:
        """Read SUBSCRIBE and answer it for one filter."""
        body = self.await_type(SUBSCRIBE)
        rest = b"\0" if self.v5 else b""
        self.send(bytes((0x90, 3 + len(rest))) + body[:2] + rest + bytes((reason,)))
        return body

    def read_publish(self) -> tuple[bytes, bytes]:
        """Packet id and the rest of the next QoS 1 PUBLISH."""
        body = self.await_type(PUBLISH)
        after_topic = 2 + int.from_bytes(body[:2], "big")
        return body[after_topic : after_topic + 2], body[after_topic + 2 :]

    def stay(self) -> None:
        """Answer pings until the client goes."""
        with suppress(OSError):
            self.await_type(DISCONNECT)


@dataclass
class FakeBroker:
    """Where it listens, and what its script found out (`said`)."""

    endpoint: Endpoint
    said: queue.SimpleQueue[object] = field(default_factory=queue.SimpleQueue)
    errors: list[BaseException] = field(default_factory=list)

    def heard(self, timeout_s: float = 10.0) -> object:
        """The next thing that the script put into `said`."""
        return self.said.get(timeout=patience(timeout_s))


Script = Callable[[FakeConnection, FakeBroker], None]


@contextmanager
def fake_broker(script: Script, *, receive_buffer: int | None = None) -> Iterator[FakeBroker]:
    """Run `script` for each connection, one after the other, and close the connection after it."""
    with socket.socket() as listener:
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        broker = FakeBroker(Endpoint("tcp", "127.0.0.1", listener.getsockname()[1]))
        current: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(listener, script, broker, current))
        thread.start()
        try:
            yield broker
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for sock in current:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            thread.join(patience(10))
            assert not broker.errors, broker.errors


def _serve(listener: socket.socket, script: Script, broker: FakeBroker, current: list[socket.socket]) -> None:
    number = 0
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        current[:] = [sock]
        with sock:
            try:
                script(FakeConnection(number, sock), broker)
            except OSError:
                pass  # the client went, as clients do
            except BaseException as error:
                broker.errors.append(error)
        number += 1
