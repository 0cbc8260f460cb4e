"""Clients that are known by their certificate, on both engines: the name in it is the user, what is taken back is ended
and does not come again, and certificates are exchanged under way."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_params import engine_params
from patience import patience
from raw_client import Target, connect_packet
from running_brokers import RunningBroker, engines, running_broker, soon

from ether.security import certificates as certs
from ether.security.certificates import Authority

ACCEPTED = b"\x20\x02\x00\x00"


class Lab:
    """An authority with its files, a broker's and devices' certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lists = folder, 0
        self.authority = Authority.make("lab", time.time())
        (folder / "ca.pem").write_bytes(self.authority.certificate_pem)
        self.renew()
        self.revoke()

    def renew(self) -> None:
        key = certs.make_key()
        (self.folder / "server.key").write_bytes(key)
        (self.folder / "server.pem").write_bytes(self.authority.sign_server(key, "pc", ["127.0.0.1"], time.time()))

    def device(self, name: str, authority: Authority | None = None, now: float | None = None) -> Path:
        key = certs.make_key()
        signed = (authority or self.authority).sign_device(certs.signing_request(key), name, now or time.time())
        path = self.folder / f"{name}-{certs.facts_of(signed).serial}.pem"
        path.write_bytes(signed + key)
        return path

    def revoke(self, *devices: Path) -> None:
        self.lists += 1
        serials = [certs.facts_of(each.read_bytes()).serial for each in devices]
        made = self.authority.revocation_list(serials, self.lists, time.time())
        (self.folder / "revoked.pem").write_bytes(made)

    @property
    def settings(self) -> dict[str, object]:
        files = {
            "tls_certificate": "server.pem",
            "tls_key": "server.key",
            "tls_client_ca": "ca.pem",
            "tls_crl": "revoked.pem",
        }
        paths = {key: str(self.folder / name) for key, name in files.items()}
        return {"lan_host": "127.0.0.1", "tls_identity": True, **paths}

    def context(self, device: Path | None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if device is not None:
            made.load_cert_chain(device)
        return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module", params=engine_params(engines))
def broker(lab: Lab, request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    lab.revoke()
    with running_broker(request.param, **lab.settings) as running:
        yield running


def command(broker: RunningBroker, **said: object) -> None:
    assert broker.process.stdin is not None
    broker.process.stdin.write(json.dumps({"command": "trust", **said}).encode() + b"\n")
    broker.process.stdin.flush()
    assert broker.event("trust")["error"] is None


class Client:
    """A client of 3.1.1 over TLS; `why` says why it was not let in."""

    def __init__(
        self, broker: RunningBroker, context: ssl.SSLContext, client_id: str, session: ssl.SSLSession | None = None
    ) -> None:
        self.why = ""
        self.plug: ssl.SSLSocket | None = None
        OPEN.append(self)
        assert broker.lan_port is not None
        plain = socket.create_connection(("127.0.0.1", broker.lan_port), patience(5))
        try:
            self.plug = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
            target = Target("", 0, "owner", "wrong", broker.max_packet_bytes)
            self.plug.sendall(connect_packet(target, client_id))
            self.answer = self.plug.recv(4)
        except OSError as error:
            plain.close()
            self.close()
            self.answer, self.why = b"", str(error)

    @property
    def is_in(self) -> bool:
        return self.answer == ACCEPTED

    def ended(self, within_s: float) -> bool:
        """Whether the broker ends it by then."""
        self.plug.settimeout(within_s)
        try:
            while self.plug.recv(4_096):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def subscribe(self, text: bytes) -> None:
        field = len(text).to_bytes(2, "big") + text
        self.plug.sendall(bytes([0x82, 3 + len(field), 0, 1]) + field + b"\x00")
        assert self.plug.recv(5) == b"\x90\x03\x00\x01\x00"

    def publish(self, topic: bytes, payload: bytes) -> None:
        body = len(topic).to_bytes(2, "big") + topic + payload
        self.plug.sendall(bytes([0x30, len(body)]) + body)

    def receive(self) -> bytes:
        return self.plug.recv(4_096)

    def close(self) -> None:
        if self.plug is not None:
            self.plug.close()


OPEN: list[Client] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What a test leaves open is closed."""
    yield
    while OPEN:
        OPEN.pop().close()


def test_the_name_in_the_certificate_is_enough_and_another_lab_is_not(lab: Lab, broker: RunningBroker) -> None:
    pi, pc = (Client(broker, lab.context(lab.device(name)), f"{name}-1") for name in ("pi3", "pc2"))
    assert pi.is_in, pi.why
    assert pc.is_in, pc.why
    pi.subscribe(b"lab/#")
    pc.publish(b"lab/x", b"hello")
    assert pi.receive().endswith(b"lab/xhello")
    for stranger in (
        None,
        lab.device("pi3", Authority.make("lab", time.time())),
        lab.device("pi3", now=time.time() - 600 * 86_400),
    ):
        refused = Client(broker, lab.context(stranger), "stranger")
        assert not refused.is_in
    pi.close()
    pc.close()


def test_what_is_taken_back_is_ended_within_a_second_and_does_not_come_again(lab: Lab, broker: RunningBroker) -> None:
    stolen, other = lab.device("stolen"), lab.device("other")
    context = lab.context(stolen)
    odd = ("plain", "with (p2, c1, k60, u'other').", "Client x disconnected.", "")
    clients = [Client(broker, context, f"{name}-{number}" if name else "") for number, name in enumerate(odd)]
    assert [client.is_in for client in clients] == [True] * len(odd)
    stays = Client(broker, lab.context(other), "other-1")
    assert stays.is_in
    session = clients[0].plug.session
    lab.revoke(stolen)
    began = time.monotonic()
    command(broker, revoked=["stolen"])
    assert all(client.ended(patience(1)) for client in clients)
    assert time.monotonic() - began < patience(1)
    for tried in (None, session):
        again = Client(broker, context, "again", tried)
        assert not again.is_in or again.ended(patience(5)), "also not by a session that TLS would resume"
    assert not stays.ended(0.05)
    stays.close()
    assert not Client(broker, context, "again").is_in
    lab.revoke()
    command(broker, revoked=[])
    renewed = Client(broker, lab.context(lab.device("stolen")), "paired-again")
    assert renewed.is_in, "the name may be given to a device again"
    renewed.close()


def test_two_lists_of_the_same_second_count_in_their_order(lab: Lab, broker: RunningBroker) -> None:
    first, second = lab.device("first"), lab.device("second")
    lab.revoke(first)
    command(broker, revoked=["first"])
    lab.revoke(first, second)
    command(broker, revoked=["first", "second"])
    for device in (first, second):
        assert soon(lambda device=device: not Client(broker, lab.context(device), "late").is_in, 10)


def test_a_new_certificate_of_the_broker_is_shown_without_ending_anybody(lab: Lab, broker: RunningBroker) -> None:
    context = lab.context(lab.device("reader"))
    before = Client(broker, context, "before")
    shown = before.plug.getpeercert(True)
    lab.renew()
    command(broker, revoked=[])

    def is_new() -> bool:
        after = Client(broker, context, "after")
        found = after.plug.getpeercert(True)
        after.close()
        return found != shown

    assert soon(is_new, 10)
    before.subscribe(b"lab/#")
    before.close()


def test_settings_that_make_no_sense(lab: Lab) -> None:
    for key, value in (("tls_identity", "yes"), ("tls_crl", "relative"), ("tls_client_ca", None)):
        with pytest.raises(AssertionError, match="ended"), running_broker("amqtt", **{**lab.settings, key: value}):
            pass
