"""`ws://`: frames however they are cut, servers that are none, and a broker behind a web server of its own kind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from patience import patience
from websockets.frames import OP_BINARY, OP_CLOSE, OP_CONT, OP_PING, OP_PONG, Frame, Opcode

from ether.errors import BrokerUnreachable, EtherError, NotAuthorized, TransportClosed
from ether.transport import ConnectionDown, ConnectionUp, Endpoint, ProtocolVersion, Transport, open_transport
from ether.transport.packets import MalformedFrame
from ether.transport.sockets import Waker
from ether.transport.websocket import FrameReader, WebSocket
from tests.transport.backends import messages, take
from tests.transport.fake_broker import FakeBroker, FakeConnection, fake_broker

MIB = 1 << 20


# frames


def frame(opcode: int, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=False)


def read_all(stream: bytes, cuts: list[int]) -> tuple[bytes, list[tuple[int, bytes]], FrameReader]:
    reader, payload, at = FrameReader(), b"", 0
    for cut in [*cuts, len(stream)]:
        piece = stream[at : at + cut]
        got = reader.feed(piece)
        assert len(got) <= len(piece)
        payload += got
        at += cut
    return payload, reader.controls, reader


SHAPES = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.lists(st.binary(max_size=300), min_size=1, max_size=3)),
        st.tuples(st.just("large"), st.integers(0, 70_000)),
        st.tuples(st.just("ping"), st.binary(max_size=125)),
    ),
    max_size=6,
)


@given(SHAPES, st.lists(st.integers(1, 400), max_size=40))
def test_frames_survive_any_cutting(shapes: list[tuple[str, object]], cuts: list[int]) -> None:
    stream, wanted, pings = b"", b"", []
    for kind, what in shapes:
        if kind == "ping":
            assert isinstance(what, bytes)
            stream, pings = stream + frame(OP_PING, what), [*pings, (int(OP_PING), what)]
        elif kind == "large":
            assert isinstance(what, int)
            stream, wanted = stream + frame(OP_BINARY, b"L" * what), wanted + b"L" * what
        else:
            assert isinstance(what, list)
            for number, piece in enumerate(what):  # a ping may stand between the pieces of a message
                fin = number == len(what) - 1
                stream += frame(OP_CONT if number else OP_BINARY, piece, fin=fin) + frame(OP_PONG)
            wanted += b"".join(what)
    payload, controls, _ = read_all(stream, cuts)
    assert payload == wanted
    assert [control for control in controls if control[0] == OP_PING] == pings


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\xc2\x00", "unknown kind"),
        (b"\x83\x00", "unknown kind"),
        (b"\x8b\x00", "unknown kind"),
        (b"\x82\x81abcde", "masked"),
        (b"\x09\x00", "control frame"),
        (b"\x89\x7e\x00\x80", "control frame"),
        (b"\x81\x01x", "text"),
        (b"\x80\x00", "out of order"),
        (b"\x02\x01x\x82\x01x", "out of order"),
    ],
)
def test_frames_that_cannot_be(stream: bytes, why: str) -> None:
    for cuts in ([], [1] * len(stream)):
        with pytest.raises(MalformedFrame, match=why):
            read_all(stream, cuts)


@given(st.binary(max_size=200), st.lists(st.integers(1, 30), max_size=20))
def test_any_bytes_are_frames_or_malformed(stream: bytes, cuts: list[int]) -> None:
    with suppress(MalformedFrame):
        assert len(read_all(stream, cuts)[0]) <= len(stream)


def test_a_length_that_is_claimed_costs_nothing_and_what_comes_is_handed_on() -> None:
    reader = FrameReader()
    assert reader.feed(b"\x82\x7f" + (1 << 62).to_bytes(8, "big") + b"begun") == b"begun"
    assert reader.left == (1 << 62) - 5


def test_nothing_counts_after_close() -> None:
    payload, controls, _ = read_all(frame(OP_CLOSE, b"\x03\xe8") + frame(OP_BINARY, b"late"), [])
    assert (payload, controls) == (b"", [(OP_CLOSE, b"\x03\xe8")])


class Narrow:
    """A socket that takes a few bytes at a time, or none."""

    def __init__(self) -> None:
        self.room = 0
        self.sent = bytearray()
        self.arrived = bytearray()

    def fileno(self) -> int:
        return -1

    def send(self, data: memoryview) -> int:
        count = min(self.room, len(data))
        if not count:
            raise BlockingIOError
        self.room -= count
        self.sent += data[:count]
        return count

    def recv(self, count: int) -> bytes:
        if not self.arrived:
            raise BlockingIOError
        data = bytes(self.arrived[:count])
        del self.arrived[:count]
        return data

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None: ...
    def close(self) -> None: ...


def unmasked(stream: bytes) -> list[tuple[int, bytes]]:
    """A client's frames; every one of them must be masked and whole."""
    frames, at = [], 0
    while at < len(stream):
        assert stream[at] & 0x80
        assert stream[at + 1] & 0x80, "a client's frames are masked"
        length, start = stream[at + 1] & 127, at + 2
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(stream[at + 2 : start], "big")
        mask, body = stream[start : start + 4], stream[start + 4 : start + 4 + length]
        assert len(body) == length
        frames.append((stream[at] & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))))
        at = start + 4 + length
    return frames


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=5), st.lists(st.integers(0, 90), max_size=30))
def test_what_is_written_in_pieces_arrives_whole_and_pongs_stand_between(
    packets: list[bytes], rooms: list[int]
) -> None:
    narrow = Narrow()
    sock = WebSocket(narrow)
    backlog, pings = b"".join(packets), 0
    for room in [*rooms, 10_000, 10_000]:
        narrow.room = room
        if room % 7 == 0:
            narrow.arrived += frame(OP_PING, b"%d" % pings)
            pings += 1
            with pytest.raises(BlockingIOError):
                sock.recv(65_536)
        with suppress(BlockingIOError):
            backlog = backlog[sock.send(backlog) :]  # what was not taken comes again
        sock.flush()
    frames = unmasked(bytes(narrow.sent))
    assert not backlog
    assert not sock.unsent
    assert b"".join(body for opcode, body in frames if opcode == OP_BINARY) == b"".join(packets)
    answers = [body for opcode, body in frames if opcode == OP_PONG]
    if pings:
        assert answers[-1] == b"%d" % (pings - 1), "the newest ping is answered, an older one may be left out"


def test_close_is_answered_once_and_ends_the_stream() -> None:
    narrow = Narrow()
    narrow.room = 1000
    sock = WebSocket(narrow, early=frame(OP_BINARY, b"last") + frame(OP_CLOSE, b"\x03\xe9gone"))
    assert sock.readable
    assert sock.recv(65_536) == b"last"
    assert sock.readable
    assert sock.recv(65_536) == sock.recv(65_536) == b""
    assert sock.recv_into(bytearray(5)) == 0
    sock.shutdown(socket.SHUT_WR)
    assert unmasked(bytes(narrow.sent)) == [(OP_CLOSE, b"\x03\xe9")]


def test_waiting_finishes_what_has_begun() -> None:
    """A pong for which there was no room leaves as soon as there is, although nobody writes."""
    waker = Waker()
    waker.open()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65_536))
        sock = WebSocket(ours)
        theirs.sendall(frame(OP_PING, b"are you there"))
        with pytest.raises(BlockingIOError):
            sock.recv(65_536)
        assert sock.unsent
        theirs.settimeout(0.05)
        wait, deadline = sock.waiting_with(waker), time.monotonic() + patience(10)
        last = b""
        while sock.unsent:
            assert time.monotonic() < deadline
            last = theirs.recv(1 << 20)
            wait.wait(0.05, writing=False)
        with suppress(TimeoutError):
            while more := theirs.recv(1 << 20):
                last += more
        assert unmasked(last.lstrip(b"\0")) == [(OP_PONG, b"are you there")]
    waker.close()


# servers that are none


def accepting(request: bytes) -> bytes:
    """The right answer to a handshake."""
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    assert found is not None
    accept = base64.b64encode(hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


@contextmanager
def web_server(answer: Callable[[bytes], bytes], *, stay: bool = False) -> Iterator[tuple[Endpoint, list[bytes]]]:
    """Reads a request, answers, and closes, or stays until the client goes."""
    requests: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(4096)
                    requests.append(request)
                    connection.sendall(answer(request))
                    while stay and connection.recv(4096):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        port = listener.getsockname()[1]
        yield Endpoint("ws", "127.0.0.1", port, "/lab/mqtt", username="me", password="s3cret"), requests
        listener.shutdown(socket.SHUT_RDWR)
        server.join(patience(10))


def refused(endpoint: Endpoint, timeout_s: float = 5.0) -> EtherError:
    transport = open_transport(endpoint, client_id="test")
    began = time.monotonic()
    try:
        with pytest.raises((BrokerUnreachable, NotAuthorized)) as caught:
            transport.connect(patience(timeout_s))
    finally:
        transport.close()
    assert time.monotonic() - began < patience(timeout_s + 4)
    said = str(caught.value)
    assert endpoint.address in said
    assert endpoint.address.endswith("/lab/mqtt")
    assert "s3cret" not in said
    assert "\n" not in said
    assert len(said) < 600
    return caught.value


HTML = b"Content-Type: text/html\r\nContent-Length: 5000\r\n\r\n<html><body>"


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n" + HTML, NotAuthorized, "its web server answered HTTP 403 Forbidden"),
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n", NotAuthorized, "HTTP 401 Unauthorized"),
        (b"HTTP/1.1 404 Not Found\r\n" + HTML, BrokerUnreachable, "there is no WebSocket at the path /lab/mqtt"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://portal.example/login\r\n\r\n", BrokerUnreachable,
         "HTTP 302 Found and leads on to https://portal.example/login, which is not followed"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", BrokerUnreachable, "HTTP 301 Moved and leads on, which is not followed"),
        (b"HTTP/1.0 200 OK\r\n" + HTML, BrokerUnreachable, "HTTP 200 OK instead of opening a WebSocket"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", BrokerUnreachable, "HTTP 502 Bad Gateway instead of"),
        (b"HTTP/1.1 500 \x1b[2J\x07oops\r\n\r\n", BrokerUnreachable, r"HTTP 500 \?\[2J\?oops instead of"),
        (b"HTTP/1.1 503 " + b"x" * 9000 + b"\r\n\r\n", BrokerUnreachable, "HTTP 503 xxx"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", BrokerUnreachable, "handshake is wrong"),
        (b"HTTP/1.1 101 X\r\n no header\r\n\r\n", BrokerUnreachable, "handshake is wrong"),
        (b"HTTP/1.1 garbage\r\n\r\n", BrokerUnreachable, "no web server"),
        (b"\x20\x02\x00\x00", BrokerUnreachable, "no web server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", BrokerUnreachable, "no web server"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, BrokerUnreachable, "no web server|longer than"),
        (b"", BrokerUnreachable, "closed the connection at the WebSocket handshake"),
        (b"HTTP/1.1 101 Sw", BrokerUnreachable, "closed the connection at the WebSocket handshake"),
    ],
)  # fmt: skip
def test_what_answers_is_no_broker(answer: bytes, kind: type[EtherError], says: str) -> None:
    with web_server(lambda _: answer) as (endpoint, _):
        error = refused(endpoint)
    assert type(error) is kind
    assert re.search(says, str(error)), str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b"Accept: ", b"Accept: x"), "handshake is wrong .*Sec-WebSocket-Accept"),
        ((b"Upgrade: websocket\r\n", b""), "handshake is wrong .*Upgrade"),
        ((b"Upgrade: websocket", b"Upgrade: h2c"), "handshake is wrong .*Upgrade"),
        ((b": mqtt", b": chat"), "handshake is wrong .*subprotocol"),
        ((b"Sec-WebSocket-Protocol: mqtt\r\n", b""), "not one of an MQTT broker"),
        ((b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "handshake is wrong .*extension"),
    ],
)
def test_a_handshake_that_is_nearly_right(change: tuple[bytes, bytes], says: str) -> None:
    with web_server(lambda request: accepting(request).replace(*change), stay=True) as (endpoint, _):
        error = refused(endpoint)
    assert type(error) is BrokerUnreachable
    assert re.search(says, str(error)), str(error)


def test_the_request_names_host_path_and_subprotocol_and_no_password() -> None:
    with web_server(lambda _: b"HTTP/1.1 404 Not Found\r\n\r\n") as (endpoint, requests):
        refused(endpoint)
    request = requests[0].decode()
    assert request.startswith("GET /lab/mqtt HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{endpoint.port}\r\n" in request
    assert "Sec-WebSocket-Protocol: mqtt\r\n" in request
    assert "uthorization" not in request


def test_a_body_is_not_waited_for() -> None:
    with web_server(lambda _: b"HTTP/1.1 404 Not Found\r\n" + HTML, stay=True) as (endpoint, _):
        began = time.monotonic()
        assert "404" in str(refused(endpoint))
        assert time.monotonic() - began < patience(2.4)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 1", b"HTTP/1.1 200 OK\r\nServer: x\r\n"])
def test_half_an_answer_ends_in_time(answer: bytes) -> None:
    with web_server(lambda _: answer, stay=True) as (endpoint, _):
        assert "no answer in time" in str(refused(endpoint, 0.4))


def test_close_ends_a_handshake_that_hangs() -> None:
    asked = threading.Event()

    def answer(_: bytes) -> bytes:
        asked.set()
        return b""

    with web_server(answer, stay=True) as (endpoint, _):
        transport = open_transport(endpoint, client_id="test")
        outcome: list[BaseException] = []

        def connect() -> None:
            try:
                transport.connect(30)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        assert asked.wait(patience(5))
        transport.close()
        thread.join(patience(5))
        assert isinstance(outcome[0], TransportClosed)


# brokers that do as they like with frames


class Framed(FakeConnection):
    """A fake broker's connection behind a WebSocket; every packet as `cut` says."""

    def __init__(self, under: FakeConnection, cut: Callable[[bytes], bytes]) -> None:
        super().__init__(under.number, under.sock)
        self._cut, self._received = cut, b""
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self.sock.recv(1)
        self._held = accepting(request)

    def read_exactly(self, count: int) -> bytes:
        if self._held and count:
            self.sock.sendall(self._held)
            self._held = b""
        while len(self._received) < count:
            self._read_frame()
        data, self._received = self._received[:count], self._received[count:]
        return data

    def _read_frame(self) -> None:
        head = super().read_exactly(2)
        length = head[1] & 127
        rest = super().read_exactly({126: 2, 127: 8}.get(length, 0))
        length = int.from_bytes(rest, "big") if rest else length
        body = super().read_exactly(4 + length)
        opcode, data = unmasked(head + rest + body)[0]
        if opcode == OP_CLOSE:
            raise ConnectionResetError
        if opcode == OP_BINARY:
            self._received += data

    def send(self, data: bytes) -> None:
        self.sock.sendall(self._cut(data))


def bytewise(data: bytes) -> bytes:
    last = len(data) - 1
    pieces = (frame(OP_CONT if i else OP_BINARY, data[i : i + 1], fin=i == last) for i in range(len(data)))
    return frame(OP_PING, b"?").join(pieces)


@contextmanager
def framed_broker(script: Callable[[Framed, FakeBroker], None], cut: Callable[[bytes], bytes]) -> Iterator[FakeBroker]:
    with fake_broker(lambda client, broker: script(Framed(client, cut), broker)) as broker:
        broker.endpoint = Endpoint("ws", "127.0.0.1", broker.endpoint.port, "/mqtt")
        yield broker


@contextmanager
def client(endpoint: Endpoint) -> Iterator[Transport]:
    transport = open_transport(endpoint, client_id="test", protocol=ProtocolVersion.V5)
    try:
        transport.connect(5)
        yield transport
    finally:
        transport.close()


PUBLISHED = b"\x30\x05\x00\x01a\x00x"


def test_one_byte_in_a_frame() -> None:
    def script(connection: Framed, broker: FakeBroker) -> None:
        connection.accept()
        connection.send(PUBLISHED * 3)
        connection.stay()

    with framed_broker(script, bytewise) as broker, client(broker.endpoint) as transport:
        assert [message.payload for message in messages(transport, 3)] == [b"x"] * 3


def test_packets_that_come_with_the_handshake_and_share_a_frame() -> None:
    def script(connection: Framed, broker: FakeBroker) -> None:
        connected = b"\x20\x03\x00\x00\x00"
        connection.sock.sendall(connection._held + frame(OP_BINARY, connected + PUBLISHED * 2))
        connection._held = b""
        connection.stay()

    with framed_broker(script, lambda data: data) as broker, client(broker.endpoint) as transport:
        assert [message.payload for message in messages(transport, 2)] == [b"x"] * 2


@pytest.mark.parametrize(
    "nonsense",
    [frame(OP_CLOSE, b"\x03\xf0"), frame(OP_CLOSE), frame(1, b"text"), b"\x82\x85abcdefghi", frame(OP_BINARY, b"\0\0")],
)
def test_nonsense_costs_the_connection_and_nothing_else(nonsense: bytes) -> None:
    def script(connection: Framed, broker: FakeBroker) -> None:
        connection.accept()
        if connection.number == 0:
            connection.sock.sendall(nonsense)
        else:
            connection.send(PUBLISHED)
        connection.stay()

    with framed_broker(script, lambda data: frame(OP_BINARY, data)) as broker, client(broker.endpoint) as transport:
        assert isinstance(take(transport), ConnectionDown)
        assert isinstance(take(transport), ConnectionUp)
        assert take(transport).payload == b"x"


# amqtt's own WebSocket


@pytest.fixture
def amqtt() -> Iterator[Endpoint]:
    """amqtt as it is, behind its own WebSocket."""
    script = Path(__file__).parents[1] / "brokers" / "plain_amqtt.py"
    command = [sys.executable, str(script), "me", "s3cret", "ws"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = json.loads(child.stdout.readline())["port"]
        yield Endpoint.from_url(f"ws://me:s3cret@127.0.0.1:{port}")
        child.communicate("end\n", timeout=patience(10))


def test_amqtt_behind_its_own_websocket(amqtt: Endpoint) -> None:
    transport = open_transport(amqtt, client_id="test", protocol=ProtocolVersion.V311)
    transport.connect(5)
    transport.subscribe(["t"])
    bodies = [bytes(size) for size in (0, 1, 117, 125, 126, 4_096, 65_535, 65_536, 3 * MIB)]
    for body in bodies:
        transport.publish("t", body)
    assert [message.payload for message in messages(transport, len(bodies))] == bodies
    transport.close()
    stranger = open_transport(
        Endpoint("ws", amqtt.host, amqtt.port, amqtt.path, "me", "wrong"),
        client_id="test",
        protocol=ProtocolVersion.V311,
    )
    with pytest.raises(NotAuthorized):
        stranger.connect(5)
    stranger.close()


def test_other_connections_load_no_websocket() -> None:
    code = "import sys, ether.transport.connection; print('websockets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
