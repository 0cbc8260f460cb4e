"""The listeners of the embedded engine amqtt beside loopback: IPv6, every network, TLS, WebSockets."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import NEEDS_OPENSSL, make_certificates
from engine_params import engine_params
from patience import patience
from raw_client import RawClient, Target, connect_packet
from running_brokers import RunningBroker, engines, running_broker, soon

HOST = "localhost"
ENGINES = engine_params(engines)
ACCEPTED = b"\x20\x02\x00\x00"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


NEEDS_IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def target_of(broker: RunningBroker) -> Target:
    return Target(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)


def ready(broker: RunningBroker, host: str, port: int) -> bool:
    """Whether a client is let in at that address."""
    with RawClient(target_of(broker)._replace(host=host, port=port)) as client:
        return client.connack == b"\x00\x00"


@NEEDS_IPV6
def test_ipv6_and_every_network() -> None:
    with running_broker("amqtt", host="::1", lan_host="0.0.0.0", websocket_port=0) as broker:
        assert ready(broker, "::1", broker.port)
        assert broker.lan_port is not None
        assert broker.websocket_port is not None
        assert ready(broker, "127.0.0.1", broker.lan_port)
        assert ready(broker, "::1", broker.lan_port), "every network means IPv6, too"
        for host in ("127.0.0.1", "::1"):
            with handshake(socket.create_connection((host, broker.websocket_port), patience(5))) as plug:
                assert plug.answer.startswith(b"HTTP/1.1 101")


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"), HOST, "client")


def tls_settings(certificates: Path) -> dict[str, object]:
    return {
        "lan_host": "127.0.0.1",
        "tls_certificate": str(certificates / f"{HOST}.pem"),
        "tls_key": str(certificates / f"{HOST}.key"),
    }


def enter(broker: RunningBroker, context: ssl.SSLContext) -> bytes:
    """What the broker answers to a CONNECT over TLS. Raises `OSError` where it ends the connection instead."""
    assert broker.lan_port is not None
    with (
        socket.create_connection(("127.0.0.1", broker.lan_port), patience(5)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as plug,
    ):
        plug.sendall(connect_packet(target_of(broker), "over-tls"))
        return plug.recv(4)


@NEEDS_OPENSSL
def test_tls_1_3_and_1_2_where_it_is_allowed(certificates: Path) -> None:
    old = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    new = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    for minimum, works in (("1.3", False), ("1.2", True)):
        with running_broker("amqtt", **tls_settings(certificates), tls_minimum=minimum) as broker:
            assert enter(broker, new) == ACCEPTED
            if works:
                assert enter(broker, old) == ACCEPTED
            else:
                with pytest.raises(OSError, match=r"(?i)version|alert|reset|eof"):
                    enter(broker, old)
                assert "no TLS" in broker.event("warning")["text"]
            with RawClient(target_of(broker)) as local:
                local.ping()  # on loopback there is none


@NEEDS_OPENSSL
@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_certificate_of_the_authority_nobody_enters(certificates: Path, engine: str) -> None:
    settings = {**tls_settings(certificates), "tls_client_ca": str(certificates / "ca.pem")}
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with running_broker(engine, **settings) as broker:
        try:
            assert enter(broker, context) == b""
        except OSError:
            pass
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        assert enter(broker, context) == ACCEPTED


@NEEDS_OPENSSL
def test_certificates_that_cannot_be_used_are_named_at_the_start(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("this is no certificate")
    settings = {**tls_settings(certificates), "tls_certificate": str(tmp_path / "none.pem")}
    with pytest.raises(AssertionError, match="ended"), running_broker("amqtt", **settings):
        pass


@NEEDS_OPENSSL
def test_what_is_no_tls_ends_its_connection_alone(certificates: Path) -> None:
    with running_broker("amqtt", **tls_settings(certificates)) as broker:
        assert broker.lan_port is not None
        with RawClient(target_of(broker)._replace(host="127.0.0.1", port=broker.lan_port), hello=False) as stranger:
            stranger.send(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00")
            stranger.socket.settimeout(patience(5))
            assert len(stranger.socket.recv(100)) < 10  # an alert, or the end
        with socket.create_connection(("127.0.0.1", broker.lan_port)):
            assert enter(broker, ssl.create_default_context(cafile=str(certificates / "ca.pem"))) == ACCEPTED


# -- WebSockets


class Plug:
    """A WebSocket by hand: a request, and masked frames."""

    def __init__(self, sock: socket.socket, *headers: str, subprotocol: str | None = "mqtt") -> None:
        self.socket = sock
        sock.settimeout(patience(5))
        key = base64.b64encode(os.urandom(16)).decode()
        wanted = [] if subprotocol is None else [f"Sec-WebSocket-Protocol: {subprotocol}"]
        lines = [
            "GET /mqtt HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}", *wanted, *headers, "", "",
        ]  # fmt: skip
        sock.sendall("\r\n".join(lines).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(4_096)
        self.answer, _, self._rest = received.partition(b"\r\n\r\n")

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes, final: bool = True) -> None:
        mask = os.urandom(4)
        length = len(payload)
        head = bytes([opcode | final << 7])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65_536:
            head += b"\xfe" + length.to_bytes(2, "big")
        else:
            head += b"\xff" + length.to_bytes(8, "big")
        self.socket.sendall(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; opcode 0 at the end."""
        while True:
            data = self._rest
            if len(data) >= 2:
                length, start = data[1] & 127, 2
                if length == 126 and len(data) >= 4:
                    length, start = int.from_bytes(data[2:4], "big"), 4
                if (length < 126 or start > 2) and len(data) >= start + length:
                    self._rest = data[start + length :]
                    return data[0] & 15, data[start : start + length]
            more = self.socket.recv(65_536)
            if not more:
                return 0, b""
            self._rest += more


def handshake(sock: socket.socket, *headers: str, subprotocol: str | None = "mqtt") -> Plug:
    return Plug(sock, *headers, subprotocol=subprotocol)


@pytest.fixture(scope="module")
def websockets() -> Iterator[RunningBroker]:
    origins = ["https://lab.example"]
    with running_broker("amqtt", lan_host="127.0.0.1", websocket_port=0, websocket_origins=origins) as broker:
        yield broker


def plugged(broker: RunningBroker, *headers: str, subprotocol: str | None = "mqtt") -> Plug:
    assert broker.websocket_port is not None
    sock = socket.create_connection(("127.0.0.1", broker.websocket_port), patience(5))
    return handshake(sock, *headers, subprotocol=subprotocol)


def test_the_subprotocol_is_demanded_and_the_origin_checked(websockets: RunningBroker) -> None:
    for subprotocol, headers, answer in [
        ("mqtt", [], b"101"), ("mqtt", ["Origin: https://lab.example"], b"101"), ("chat, mqtt", [], b"101"),
        ("mqtt", ["Origin: https://evil.example"], b"403"), ("mqtt", ["Origin: null"], b"403"),
        (None, [], b"400"), ("mqttv3.1", [], b"400"),
    ]:  # fmt: skip
        with plugged(websockets, *headers, subprotocol=subprotocol) as plug:
            assert plug.answer.split()[1] == answer, (subprotocol, headers)
            assert (b"Sec-WebSocket-Protocol: mqtt" in plug.answer) is (answer == b"101")


def test_packets_may_lie_across_frames(websockets: RunningBroker) -> None:
    connect = connect_packet(target_of(websockets), "pieces")
    with plugged(websockets) as plug:
        for at in range(len(connect)):
            plug.send(2 if at == 0 else 0, connect[at : at + 1], final=at == len(connect) - 1)
        assert plug.receive() == (2, ACCEPTED)
        plug.send(2, b"\xc0\x00\xc0")
        plug.send(9, b"are you there?")
        plug.send(2, b"\x00")
        came = [plug.receive() for _ in range(3)]
        assert sorted(came) == [(2, b"\xd0\x00"), (2, b"\xd0\x00"), (10, b"are you there?")]
        plug.send(8, b"\x03\xe8")
        assert plug.receive()[0] == 8


@pytest.mark.parametrize(
    "frame", [(1, b"0\x04\x00\x01tx"), (3, b"reserved"), (2, bytes(600_000))], ids=["text", "opcode", "size"]
)
def test_frames_that_make_no_sense_end_their_connection(websockets: RunningBroker, frame: tuple[int, bytes]) -> None:
    """600 kB are more than anybody may send who has not been let in. What the text frame holds is a message."""
    with plugged(websockets) as plug:
        if frame[0] == 1:
            plug.send(2, connect_packet(target_of(websockets), "text"))
            assert plug.receive() == (2, ACCEPTED)
        try:
            plug.send(*frame)
        except ConnectionError:
            return
        assert plug.receive()[0] == 8
    with plugged(websockets) as other:
        other.send(2, connect_packet(target_of(websockets), "beside"))
        assert other.receive() == (2, ACCEPTED)


def test_pings_that_are_never_read_cost_no_memory(websockets: RunningBroker) -> None:
    with plugged(websockets) as plug:
        plug.send(2, connect_packet(target_of(websockets), "pinger"))
        assert plug.receive() == (2, ACCEPTED)
        ping = b"\x89" + bytes([0x80 | 125]) + bytes(4) + bytes(125)
        ended = threading.Event()

        def flood() -> None:
            try:
                for _ in range(2_000):
                    plug.socket.sendall(ping * 100)
            except OSError:
                ended.set()

        thread = threading.Thread(target=flood)
        thread.start()
        thread.join(patience(20))
        assert ended.is_set(), "26 MB of pongs wait for somebody who reads none"
    assert soon(lambda: ready(websockets, "127.0.0.1", websockets.port), 10)
