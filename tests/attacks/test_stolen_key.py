"""A device's key in the hands of somebody who did not write the defence: what could be tried with it beside what
`test_stolen_member.py` tries. On both engines, and against what TLS and signatures believe."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attack_parts import PREFIX, SESSION, Attacker, Target, target
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from engine_params import EMBEDDED
from paired import pair
from patience import patience
from running_brokers import soon

from ether.errors import EtherError
from ether.security import certificates as certs
from ether.security.certificates import NotSigned
from ether.security.rights import DeviceInstance, rights_of_host, rules_of
from ether.security.signing import Signer, Verifier
from ether.session.discovery.directory import read_directory
from ether.session.trust.lab import LabAuthority
from ether.transport import open_transport
from ether.transport.endpoint import Endpoint

PI3 = rights_of_host(SESSION, "pi3", [DeviceInstance("cam", "lab.yaml:3: instances.cam", ("picture",), (), ())])
LOGIN = {"user": "pi3", "password": "of-the-pi"}
HEARS = {**LOGIN, "hears": f"{PREFIX}state/#"}


@pytest.fixture(scope="module", params=EMBEDDED)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = {"users": {"pi3": "of-the-pi"}, "rights": rules_of({"pi3": PI3})}
    with target(request.param, tmp_path_factory.mktemp("key"), settings, security={"guests": "none"}) as session:
        yield session


def none_heard(owner: Attacker, words: list[str], last: str) -> None:
    """Nothing with one of the words comes before `last` does."""
    heard: list[str] = []

    def came(message: Any) -> bool:
        if any(word.encode() in message.payload for word in words):
            heard.append(message.topic)
        return last.encode() in message.payload

    assert owner.wait_for(came)
    assert heard == []


@pytest.mark.attack(
    "K1", "a will in another's name", "control/stop, another's announcement, data, the session; both versions"
)
@pytest.mark.parametrize("protocol", [3, 5])
def test_a_will_says_nothing_in_anothers_name(attacked: Target, protocol: int) -> None:
    marks = []
    with Attacker(attacked.broker) as owner:
        for topic in ("control/stop", "control/stop/main", "state/sensor", "data/temperature", "session"):
            evil = Attacker(attacked.broker, protocol=protocol, will=PREFIX + topic, **HEARS)
            with suppress(AssertionError), evil:  # the embedded engine does not let it in
                evil.drop()
            marks.append(evil.mark)
        with Attacker(attacked.broker, **HEARS) as evil:
            evil.send("log/cam", {"name": evil.mark})
        none_heard(owner, marks, evil.mark)
    assert attacked.lives()


@pytest.mark.attack(
    "K2", "a topic alias past the rights", "set on a forbidden topic, and moved from an allowed one to it"
)
def test_an_alias_is_no_way_round_the_rights(attacked: Target) -> None:
    with Attacker(attacked.broker) as owner:
        with Attacker(attacked.broker, **HEARS) as evil:
            forbidden, allowed, mark = f"{PREFIX}data/temperature", f"{PREFIX}data/picture", evil.mark
            evil.say_raw(forbidden, mark.encode(), alias=1)
            evil.say_raw("", mark.encode(), alias=1)
            evil.say_raw(allowed, b"1", alias=2)
            evil.say_raw(forbidden, mark.encode(), alias=2)
            evil.say_raw("", mark.encode(), alias=2)
        with Attacker(attacked.broker, **HEARS) as evil:
            evil.send("log/cam", {"name": evil.mark})
        none_heard(owner, [mark], evil.mark)


@pytest.mark.attack("K3", "another's connection taken over", "client ids looked for in all that it hears; each is new")
def test_no_client_id_is_told_or_guessed(attacked: Target) -> None:
    ids = [
        attacked.own._launch.session.link.transport.client_id,  # type: ignore[union-attr]
        *(open_transport(Endpoint.from_url(attacked.broker.url_tcp), client_id="main").client_id for _ in range(2)),
    ]  # fmt: skip
    assert len({each.rpartition("-")[2] for each in ids}) == len(ids)
    assert all(len(bytes.fromhex(each.rpartition("-")[2])) == 8 for each in ids)
    with Attacker(attacked.broker, **HEARS) as evil:
        assert attacked.lives()
        evil.send("log/cam", {"name": "heard"})
        said = b""
        evil.send("control/announce", {})
        assert soon(lambda: not evil.heard.empty(), 5)
        while not evil.heard.empty():
            message = evil.heard.get()
            said += message.topic.encode() + message.payload
    assert said
    assert ids[0].encode() not in said


@pytest.mark.attack("K4", "hearing round the rights", "`$share`, `$SYS`, `$CONTROL`, `+/#`, others' calls and batches")
@pytest.mark.parametrize(
    "hears",
    ["$share/g/ether/1/bench/data/#", "$share/g/#", "$SYS/#", "+/#", "ether/1/bench/call/#", "ether/1/bench/record/#"],
)
def test_a_filter_brings_nothing_beyond_the_rights(attacked: Target, hears: str) -> None:
    with suppress(AssertionError), Attacker(attacked.broker, hears=hears, **LOGIN) as evil:
        with attacked.own.subscribe("temperature") as heard:
            attacked.own.pub({"celsius": 4.5}, topic="wanted")
            assert heard.get(timeout_s=patience(10)).value == {"celsius": 4.5}
        assert attacked.lives()
        topics = set()
        while not evil.heard.empty():
            topics.add(evil.heard.get().topic)
        assert not [topic for topic in topics if not PI3.may("hear", topic)]


@pytest.mark.attack(
    "K5", "a recorder under the name of an echo", "`record/$echo-pi3/about`, which each device may publish"
)
def test_the_topic_of_echoes_announces_no_recorder(attacked: Target) -> None:
    about = {"birth": "f" * 16, "topics": ["temperature"], "host": "", "folder": "", "life": "", "wire": 2}
    with Attacker(attacked.broker, **HEARS) as evil:
        evil.send("record/$echo-pi3/about", about, retain=True)
    writer = attacked.own._launch.session.link  # type: ignore[union-attr]
    assert writer.transport.connected
    with Attacker(attacked.broker, hears=f"{PREFIX}record/#") as owner:
        assert attacked.own.get("sensor", "record", {"value": 5}, timeout_s=patience(20))
        topics = []

        def saved(message: Any) -> bool:
            topics.append(message.topic)
            return (
                message.topic.startswith(f"{PREFIX}record/recorder/")
                and not message.retain
                and b"EB2" in message.payload
            )

        assert owner.wait_for(saved)
    assert not [topic for topic in topics if "$echo" in topic and not topic.endswith("/about")]
    with Attacker(attacked.broker) as owner:
        owner.send("record/$echo-pi3/about", None, retain=True)


@pytest.mark.attack("K6", "a claim to lead for longer", "its own announcement as a program that leads since 1970")
def test_nobody_steps_back_for_an_announcement(attacked: Target) -> None:
    session = attacked.own._launch.session  # type: ignore[union-attr]
    before = session.info(patience(5))
    claim = {
        **before,
        "name": "pi3",
        "state": "ready",
        "kind": "program",
        "birth": "e" * 16,
        "program": "pi3",
        "since": 0.0,
        "leads": True,
    }
    with Attacker(attacked.broker, hears=f"{PREFIX}control/#", **LOGIN) as evil:
        evil.send("state/pi3", claim, retain=True)
        evil.send("session", claim, retain=True)
        evil.send("control/leader/probe", claim)
        evil.send("reply/main/pi3", claim, source="main", schema="ether/announced")
        assert soon(lambda: session.announcement("pi3") is not None, 10)
        assert attacked.lives()
        assert session.info(patience(5))["program"] == before["program"]
        evil.send("state/pi3", None, retain=True)


@pytest.mark.attack(
    "K7", "sessions that are none", "a retained entry on the one topic of the directory that each device may publish"
)
def test_the_directory_shows_no_session_of_its_own(attacked: Target) -> None:
    with Attacker(attacked.broker, hears=f"{PREFIX}control/#", **LOGIN) as evil:
        for body in ({"session": "bench", "broker": "mqtt://203.0.113.7", "host": "evil"}, [], "x", {"session": 7}):
            evil.publish("ether/1/$directory/session", body, retain=True)
            found = read_directory(Endpoint.from_url(attacked.broker.url_tcp), patience(10), None)
            assert set(found.sessions) == {SESSION}
            assert found.sessions[SESSION].host != "evil"
        evil.publish("ether/1/$directory/session", None, retain=True)


@pytest.mark.attack(
    "K11", "words about what another has sent",
    "answers that skip five million numbers, with and without a gap, last numbers, a farewell",
)  # fmt: skip
@pytest.mark.parametrize("way", ["gone", "unconfirmed", "heads", "left"])
def test_no_word_about_numbers_silences_a_source(attacked: Target, way: str) -> None:
    topic, many = f"{PREFIX}data/temperature", 5_000_000
    to = attacked.own._launch.session.link.retransmitter._node  # type: ignore[union-attr]
    with Attacker(attacked.broker, **HEARS) as evil, attacked.own.subscribe("temperature") as heard:
        node = evil.about("sensor")["node"]
        attacked.own.pub({"celsius": 1.5}, topic="wanted")
        assert heard.get(timeout_s=patience(10)).value == {"celsius": 1.5}
        answer = {"after": 0, "gone": many, "head": many, "total": many, "unconfirmed": []}
        said: dict[str, Any] = {
            "gone": {"answer": {topic: answer}},
            "unconfirmed": {"answer": {topic: {**answer, "gone": 0, "unconfirmed": [[1, many]]}}},
            "heads": {"heads": {topic: many}},
            "left": {"left": True},
        }[way]
        evil.send(f"control/missed/{to}", {"node": node, **said})
        assert attacked.lives()
        for celsius in (2.5, 3.5, 4.5):
            attacked.own.pub({"celsius": celsius}, topic="wanted")
            assert heard.get(timeout_s=patience(20)).value == {"celsius": celsius}


# -- TLS and signatures


class Stolen:
    """The key and certificate of pi3, the lab that has signed it, and a certificate that the key has signed itself."""

    def __init__(self, folder: Path) -> None:
        self.pc, self.pi = {"HOME": str(folder / "pc")}, {"HOME": str(folder / "pi")}
        self.known = pair(self.pc, self.pi, "pi3")
        self.key_pem, self.pem = (Path(path).read_bytes() for path in (self.known.key, self.known.certificate))
        lab = LabAuthority.load(self.pc)
        assert lab is not None
        self.lab = lab

    def issued(self, name: str, *purposes: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
        """Certificate and key of another name, signed by the stolen key as if it were an authority; PEM."""
        parent, key = x509.load_pem_x509_certificate(self.pem), ec.generate_private_key(ec.SECP256R1())
        signing = serialization.load_pem_private_key(self.key_pem, None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(parent.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=9))
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(signing, hashes.SHA256())
        )
        own = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return made.public_bytes(serialization.Encoding.PEM), own


@pytest.fixture
def stolen(tmp_path: Path) -> Stolen:
    return Stolen(tmp_path)


@pytest.mark.attack(
    "K8", "an authority of one's own", "a stolen key signs certificates of other names: for batches, for receipts"
)
def test_what_a_device_signs_is_no_certificate_of_the_lab(stolen: Stolen) -> None:
    verifier = Verifier(stolen.lab.authority_pem)
    own = Signer.from_pem(stolen.known.lab, "pi3", stolen.pem, stolen.key_pem)
    assert verifier.device(own.certificate, b"x", own.sign(b"x")) == "pi3"
    for name in ("pc", "pi4", "pi3"):
        forged = Signer.from_pem(stolen.known.lab, name, *stolen.issued(name, ExtendedKeyUsageOID.CLIENT_AUTH))
        with pytest.raises(NotSigned, match="none of this lab's"):
            verifier.device(forged.certificate, b"x", forged.sign(b"x"))
        with pytest.raises(NotSigned):
            verifier.device(own.certificate, b"x", forged.sign(b"x"))
        with pytest.raises(NotSigned):
            verifier.key_of(forged.certificate)


@pytest.mark.attack(
    "K9", "a stolen device as a broker", "its certificate, and one of its own making, shown to programs that connect"
)
@pytest.mark.parametrize("made", [False, True])
def test_a_device_is_no_broker(stolen: Stolen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool) -> None:
    victim = {"HOME": str(tmp_path / "victim")}
    pair(stolen.pc, victim, "victim")
    monkeypatch.setenv("HOME", victim["HOME"])
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    pem, key = stolen.issued("localhost", ExtendedKeyUsageOID.SERVER_AUTH) if made else (stolen.pem, stolen.key_pem)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pem + (stolen.pem if made else b"") + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    listener, said = socket.create_server(("127.0.0.1", 0)), list[bytes]()
    listener.settimeout(patience(20))

    def serve() -> None:
        with suppress(OSError):
            plain, _ = listener.accept()
            plain.settimeout(patience(5))
            with context.wrap_socket(plain, server_side=True) as sock:
                said.append(sock.recv(1_000))

    thread = threading.Thread(target=serve)
    thread.start()
    transport = open_transport(Endpoint.from_url(f"mqtts://127.0.0.1:{listener.getsockname()[1]}"), client_id="victim")
    try:
        with pytest.raises(EtherError):
            transport.connect(patience(5))
    finally:
        transport.close()
        listener.close()
        thread.join()
    assert b"".join(said) == b"", "not even a CONNECT was said to it"


@pytest.mark.attack(
    "K10",
    "a renewal for somebody else",
    "requests with another name, other extensions, another kind of key; after a revocation",
)
def test_a_renewal_gives_the_keys_own_name_alone(stolen: Stolen) -> None:
    late = time.time() + 70 * 86_400
    key = serialization.load_pem_private_key(stolen.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pc")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    given = x509.load_pem_x509_certificate(stolen.lab.renew(asked, late))
    assert certs.facts_of(given.public_bytes(serialization.Encoding.PEM)).name == "pi3"
    assert given.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = given.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = given.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    stolen.lab.revoke("pi3", late)
    revoked = set(stolen.lab._read()[1])
    assert given.serial_number in revoked, "what was renewed for the thief is taken back with the rest"
    with pytest.raises(EtherError, match="which was taken back"):
        stolen.lab.renew(asked, late + 80 * 86_400)
    assert json.loads(json.dumps(sorted(map(str, revoked))))
