"""`mqtts://` and `wss://` against a real mosquitto and the embedded engine amqtt: the same promises as over TCP, and
nobody is trusted without a certificate."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import NEEDS_OPENSSL, make_certificates
from patience import patience
from running_brokers import mosquitto_missing, running_broker, soon

from ether.errors import BrokerUnreachable, NotAMember
from ether.transport import ConnectionDown, ConnectionUp, Endpoint, Transport, Will, open_transport
from ether.transport.endpoint import Kind
from tests.transport.backends import messages, take

pytestmark = NEEDS_OPENSSL
NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")

HOST = "localhost"
MIB = 1 << 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca.pem`, a server's certificate for localhost that it signed, and one for another host."""
    return make_certificates(tmp_path_factory.mktemp("certificates"), HOST, "elsewhere")


class TlsBroker:
    """A mosquitto with one TLS listener, for `scheme`."""

    login = ""

    def __init__(self, certificates: Path, folder: Path, scheme: str, name: str = HOST) -> None:
        self.port, self.scheme = free_port(), scheme
        self._settings = folder / "mosquitto.conf"
        lines = [
            f"listener {free_port()} 127.0.0.1",  # 2.0.11 does not start with a WebSocket alone
            f"listener {self.port} 127.0.0.1",
            f"certfile {certificates / name}.pem",
            f"keyfile {certificates / name}.key",
            *(["protocol websockets"] if scheme == "wss" else []),
            "allow_anonymous true",
            "set_tcp_nodelay true",
            "max_queued_messages 0",
            *(["user root"] if os.geteuid() == 0 else []),
        ]
        self._settings.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
        program = shutil.which("mosquitto", path=path)
        assert program is not None
        self.process = subprocess.Popen([program, "-c", str(self._settings)], stderr=subprocess.DEVNULL)
        assert soon(self._listens, 10)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class OwnTlsBroker(TlsBroker):
    """The embedded engine with TLS on its listener for other machines; it wants a user and a password."""

    login = "me:secret@"

    def __init__(self, certificates: Path, folder: Path, scheme: str, name: str = HOST) -> None:
        self.port, self.scheme = free_port(), scheme
        tls = {"tls_certificate": str(certificates / f"{name}.pem"), "tls_key": str(certificates / f"{name}.key")}
        at = {"websocket_port": self.port, "lan_port": free_port()} if scheme == "wss" else {"lan_port": self.port}
        self._own = {"lan_host": "127.0.0.1", "username": "me", "password": "secret", **at, **tls}
        self.start()

    def start(self) -> None:
        self._context = running_broker("amqtt", **self._own)
        self._broker = self._context.__enter__()
        self.process = self._broker.process

    def stop(self) -> None:
        self._broker.kill()
        self._context.__exit__(None, None, None)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def trusted(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))


@pytest.fixture(
    params=[
        pytest.param((TlsBroker, "mqtts"), marks=NEEDS_MOSQUITTO, id="mosquitto-mqtts"),
        pytest.param((TlsBroker, "wss"), marks=NEEDS_MOSQUITTO, id="mosquitto-wss"),
        pytest.param((OwnTlsBroker, "mqtts"), id="amqtt-mqtts"),
        pytest.param((OwnTlsBroker, "wss"), id="amqtt-wss"),
    ]
)
def broker(certificates: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TlsBroker]:
    kind, scheme = request.param
    running = kind(certificates, tmp_path, scheme)
    yield running
    running.stop()


@pytest.fixture
def opened() -> Iterator[list[Transport]]:
    transports: list[Transport] = []
    yield transports
    for transport in transports:
        transport.close()


def connect(broker: TlsBroker, opened: list[Transport], *filters: str, will: Will | None = None) -> Transport:
    transport = open_transport(
        Endpoint.from_url(f"{broker.scheme}://{broker.login}{HOST}:{broker.port}"), client_id="test", will=will
    )
    opened.append(transport)
    transport.connect(5)
    if filters:
        transport.subscribe(filters)
    return transport


@pytest.mark.usefixtures("trusted")
def test_messages_of_every_size_arrive_whole(broker: TlsBroker, opened: list[Transport]) -> None:
    receiver, sender = connect(broker, opened, "t"), connect(broker, opened)
    bodies = [os.urandom(size) for size in (0, 1, 1000, 16_383, 16_384, 16_385, 65_536, 100_000, 3 * MIB, 24 * MIB)]
    for body in bodies:
        sender.publish("t", body, timeout_s=patience(30))
    assert [delivery.payload for delivery in messages(receiver, len(bodies))] == bodies


@pytest.fixture
def overlaps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls into OpenSSL that began while another thread was inside the same connection. What comes of them is a matter
    of luck, so it is the calls that are watched, not the damage."""
    found: list[str] = []
    inside: dict[int, str] = {}

    def watched(name: str) -> None:
        real = getattr(ssl.SSLSocket, name)

        def call(self: ssl.SSLSocket, *arguments: Any) -> Any:
            if id(self) in inside:
                found.append(f"{name} during {inside[id(self)]}")
            inside[id(self)] = name
            try:
                return real(self, *arguments)
            finally:
                inside.pop(id(self), None)

        monkeypatch.setattr(ssl.SSLSocket, name, call)

    for name in ("send", "recv", "recv_into", "pending", "unwrap"):
        watched(name)
    return found


@pytest.mark.usefixtures("trusted")
def test_many_threads_write_while_one_reads(broker: TlsBroker, opened: list[Transport], overlaps: list[str]) -> None:
    """Both directions at full speed over one connection; never two threads in one OpenSSL connection."""
    both = connect(broker, opened, "t/+")
    threads, each = 6, 1_500

    def publish(number: int) -> None:
        for count in range(each):
            both.publish(f"t/{number}", f"{count} ".encode() + b"x" * (count % 7 * 400), qos=1, timeout_s=patience(30))

    writers = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    for writer in writers:
        writer.start()
    got: dict[str, list[int]] = {f"t/{number}": [] for number in range(threads)}
    for delivery in messages(both, threads * each, 60):
        got[delivery.topic].append(int(delivery.payload.split()[0]))
    for writer in writers:
        writer.join(patience(10))
    assert got == {topic: list(range(each)) for topic in got}
    assert both.dropped == 0
    assert overlaps == []


@pytest.mark.usefixtures("trusted")
def test_it_comes_back_with_its_subscriptions(broker: TlsBroker, opened: list[Transport]) -> None:
    receiver, sender = connect(broker, opened, "t"), connect(broker, opened)
    broker.stop()
    assert isinstance(take(receiver), ConnectionDown)
    broker.start()
    assert isinstance(take(receiver), ConnectionUp)
    sender.publish("t", b"again", timeout_s=patience(10))
    assert take(receiver).payload == b"again"


@pytest.mark.usefixtures("trusted")
def test_a_clean_leave_sends_no_will(broker: TlsBroker, opened: list[Transport]) -> None:
    receiver = connect(broker, opened, "will", "after")
    leaving = connect(broker, opened, will=Will("will", b"gone", retain=False))
    for _ in range(20):
        leaving.publish("elsewhere", b"x" * 50_000)
    leaving.close()
    connect(broker, opened).publish("after", b"").wait(patience(5))
    assert take(receiver).topic == "after"


def test_an_authority_that_nobody_trusts(broker: TlsBroker, opened: list[Transport]) -> None:
    refusal = (BrokerUnreachable, NotAMember)  # without a user in the address, it may be a lab's
    with pytest.raises(
        refusal, match=r"its TLS certificate is not accepted|needs a certificate that this system trusts"
    ):
        connect(broker, opened)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
def test_a_certificate_of_another_host(
    certificates: Path, tmp_path: Path, opened: list[Transport], scheme: str
) -> None:
    wrong = OwnTlsBroker(certificates, tmp_path, scheme, "elsewhere")
    try:
        with pytest.raises(BrokerUnreachable, match="its TLS certificate is not accepted"):
            connect(wrong, opened)
    finally:
        wrong.stop()


@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_a_port_without_tls(opened: list[Transport], kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection, suppress(ConnectionError):
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00" * 10)
                connection.recv(4096)

        server = threading.Thread(target=answer)
        server.start()
        endpoint = Endpoint(kind, "127.0.0.1", plain.getsockname()[1])
        transport = open_transport(endpoint, client_id="test")
        opened.append(transport)
        with pytest.raises(BrokerUnreachable, match="TLS failed, perhaps it speaks none on this port"):
            transport.connect(5)
        server.join(patience(5))


def test_a_server_that_never_answers_ends_in_time(opened: list[Transport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = open_transport(Endpoint("tls", "127.0.0.1", silent.getsockname()[1]), client_id="test")
        opened.append(transport)
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match="no answer in time"):
            transport.connect(0.4)
        assert time.monotonic() - began < patience(2)


def test_plain_connections_do_not_load_openssl() -> None:
    code = "import sys, ether.transport.connection; print('ssl' in sys.modules, 'ether.transport.tls' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"
