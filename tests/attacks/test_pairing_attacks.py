"""Attacks against pairing itself: somebody in the network, in between, or with a stolen device, and what is gained."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from patience import patience
from running_brokers import soon

from ether.errors import ConfigError
from ether.security import certificates as certs
from ether.security.certificates import Authority
from ether.security.pairing_code import CodeExchange, WrongProof
from ether.session.trust.joining import JoinFailed, join
from ether.session.trust.lab import LabAuthority
from ether.session.trust.messages import Messages, as_text
from ether.session.trust.pairing import MOST_AT_ONCE, Pairing, PairingEnded
from ether.system.lab_folders import memberships


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabAuthority:
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "pc"))
    return LabAuthority.load_or_make(dict(os.environ), time.time())


@pytest.fixture
def pairing(lab: LabAuthority) -> Iterator[Pairing]:
    pairing = Pairing(lab, "pi3", valid_s=patience(20), port=0)
    yield pairing
    pairing.close()


@pytest.fixture
def pi(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "pi")}


class Impostor:
    """Answers in place of the machine that waits, with a certificate of the attacker's choice."""

    def __init__(self, certificate: Path, talk: Callable[[Messages], None]) -> None:
        self.heard: list[dict[str, object]] = []
        self._talk, self._context = talk, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.at = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            plain, _ = self._listener.accept()
            plain.settimeout(patience(5))
            with self._context.wrap_socket(plain, server_side=True) as sock:
                messages = Messages(sock)
                self._talk(messages)
                with suppress(ValueError, OSError):
                    while True:
                        self.heard.append(messages.receive())

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(signed_and_key: bytes, talk: Callable[[Messages], None]) -> Impostor:
        path = tmp_path / f"impostor{len(made)}.pem"
        path.write_bytes(signed_and_key)
        made.append(Impostor(path, talk))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.attack(
    "P1",
    "an impostor with the lab's certificate",
    "answers `ether join` with the public certificate and a key of its own",
)
def test_who_answers_with_the_labs_certificate_but_not_its_key_is_told_nothing(
    lab: LabAuthority, pairing: Pairing, pi: dict[str, str], impostor: Callable[..., Impostor]
) -> None:
    """The lab's certificate is no secret. The connection has to be a server's of that lab."""
    other, key = Authority.make("lab", time.time()), certs.make_key()
    own = other.sign_server(key, "pc", [], time.time()) + key
    trap = impostor(own, lambda to: to.send(authority=lab.authority_pem.decode(), host="pc"))
    with pytest.raises(JoinFailed, match="signed by another lab"):
        join(pairing.token, pi, trap.at)
    trap.close()
    assert trap.heard == []
    assert join(pairing.token, pi, f"127.0.0.1:{pairing.port}").membership.name == "pi3"


@pytest.mark.attack(
    "P2",
    "a stolen device as the machine that waits",
    "a device's certificate shown as a server's, to a token and to a code",
)
def test_a_stolen_device_cannot_pretend_to_be_the_machine_that_waits(
    lab: LabAuthority, pairing: Pairing, pi: dict[str, str], impostor: Callable[..., Impostor]
) -> None:
    key = certs.make_key()
    stolen = lab.admit(certs.signing_request(key), "stolen", "stolen", time.time()) + key
    for secret in (pairing.token, pairing.code):
        trap = impostor(stolen, lambda to: to.send(authority=lab.authority_pem.decode(), host="pc"))
        with pytest.raises(JoinFailed, match="not a server's"):
            join(secret, pi, trap.at)
        trap.close()
        assert trap.heard == []


@pytest.mark.attack("P3", "somebody in between of a code", "passes the messages of SPAKE2 on, under a lab of its own")
def test_somebody_in_between_of_a_code_has_one_guess_and_gets_no_member(
    lab: LabAuthority, pairing: Pairing, pi: dict[str, str], impostor: Callable[..., Impostor]
) -> None:
    """The attacker is a lab of its own, and passes the messages of SPAKE2 on."""
    other, key = Authority.make("lab", time.time()), certs.make_key()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def relay(device: Messages) -> None:
        plain = socket.create_connection(("127.0.0.1", pairing.port), patience(5))
        with context.wrap_socket(plain) as sock:
            real = Messages(sock)
            real.receive()
            device.send(authority=other.certificate_pem.decode(), host="pc")
            real.send(**{key: str(value) for key, value in device.receive().items()})
            device.send(**{key: str(value) for key, value in real.receive().items()})

    trap = impostor(other.sign_server(key, "pc", [], time.time()) + key, relay)
    with pytest.raises(JoinFailed, match="the code is wrong, or somebody stands in between"):
        join(pairing.code, pi, trap.at)
    with pytest.raises(PairingEnded, match="tried a wrong token or code"):
        pairing.wait()
    assert memberships(pi) == []
    assert "pi3" not in lab.members()


def talk_to(pairing: Pairing) -> Messages:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", pairing.port), patience(5))
    messages = Messages(context.wrap_socket(plain))
    messages.receive()
    return messages


@pytest.mark.attack("P4", "guesses that are not finished", "takes the answer of SPAKE2 and hangs up")
def test_who_has_got_an_answer_of_spake2_and_hangs_up_has_had_its_guess(pairing: Pairing, pi: dict[str, str]) -> None:
    messages = talk_to(pairing)
    messages.send(spake2=as_text(CodeExchange("2222-2222", joins=True).message))
    assert set(messages.receive()) == {"spake2", "proof"}
    messages.close()
    with pytest.raises(PairingEnded, match="tried a wrong token or code"):
        pairing.wait()
    with pytest.raises(JoinFailed):
        join(pairing.code, pi, f"127.0.0.1:{pairing.port}")


@pytest.mark.attack("P5", "many guesses at once", "six connections, each with a code of its own")
def test_many_at_once_have_one_guess_together(pairing: Pairing, lab: LabAuthority) -> None:
    visitors = [talk_to(pairing) for _ in range(6)]
    for number, visitor in enumerate(visitors):
        visitor.send(spake2=as_text(CodeExchange(f"2222-222{number + 2}", joins=True).message))
    answers = [set(visitor.receive()) for visitor in visitors]
    assert answers.count({"spake2", "proof"}) == 1
    assert answers.count({"refused"}) == 5
    for visitor in visitors:
        visitor.close()
    assert "pi3" not in lab.members()


@pytest.mark.attack("P6", "messages that make no sense", "depth, length, half characters, other types, nothing at all")
@pytest.mark.parametrize(
    "said",
    [
        b"", b"\n", b"[]\n", b"{}\n", b'{"secret": 5}\n', b'{"secret": ["a"]}\n', b'{"spake2": "!!"}\n', b"\xff\xfe\n",
        b'{"spake2": ""}\n', b"[" * 50_000 + b"\n", b"x" * 200_000, b'{"secret": ""}\n', b'{"secret": null}\n',
        b'{"secret": "\\ud800"}\n', b'{"spake2": "\\ud800"}\n',
    ],
)  # fmt: skip
def test_what_makes_no_sense_lets_nobody_in(pairing: Pairing, lab: LabAuthority, said: bytes) -> None:
    messages = talk_to(pairing)
    with suppress(OSError, ValueError):
        messages.socket.sendall(said)
        messages.socket.unwrap()
    messages.close()
    assert "pi3" not in lab.members()
    # Whoever has begun is heard to the end: the wait goes on for others, or it is over and says why.
    assert soon(lambda: bool(pairing._why) or not any(thread.is_alive() for thread in pairing._threads), 15)
    assert pairing._why or not pairing._in_hand


@pytest.mark.attack("P7", "a request for another name", "subject, host and `stored` name somebody else")
def test_a_request_for_another_name_gets_the_name_that_was_typed(lab: LabAuthority, pairing: Pairing) -> None:
    """The subject of a request is its maker's choice; so are keys of other kinds, which are refused."""
    messages = talk_to(pairing)
    request = certs.signing_request(certs.make_key()).decode()
    messages.send(secret=pairing.token.secret, request=request, host="\x1b]0;evil\x07" * 100)
    said = messages.receive()
    assert certs.facts_of(str(said["certificate"]).encode()).name == "pi3"
    messages.send(stored="root")
    joined = pairing.wait()
    assert "\x1b" not in joined.host
    assert len(joined.host) <= 255
    assert set(lab.members()) >= {"pi3"}
    assert "root" not in lab.members()
    messages.close()


@pytest.mark.attack("P8", "a certificate that nobody took", "hangs up before it says that it is stored")
def test_a_certificate_that_nobody_took_is_taken_back(lab: LabAuthority, pairing: Pairing) -> None:
    messages = talk_to(pairing)
    request = certs.signing_request(certs.make_key()).decode()
    messages.send(secret=pairing.token.secret, request=request, host="pi")
    messages.receive()
    messages.close()
    with pytest.raises(PairingEnded, match="did not say that it has stored its certificate, which was taken back"):
        pairing.wait()
    assert lab.members()["pi3"].revoked is not None


@pytest.mark.attack("P9", "in while the wait ends", "answers after the wait was over")
def test_who_is_on_the_way_in_when_the_wait_ends_is_no_member(lab: LabAuthority, pairing: Pairing) -> None:
    messages = talk_to(pairing)
    request = certs.signing_request(certs.make_key()).decode()
    messages.send(secret=pairing.token.secret, request=request, host="pi")
    messages.receive()
    closing = threading.Thread(target=pairing.close)
    closing.start()
    assert soon(lambda: bool(pairing._why), 5)
    messages.send(stored="pi3")
    closing.join(patience(10))
    messages.close()
    with pytest.raises(PairingEnded):
        pairing.wait()
    assert lab.members()["pi3"].revoked is not None


def test_this_machine_comes_in_anew_when_its_own_certificate_was_taken_back(lab: LabAuthority) -> None:
    (own_name,), request = lab.members(), certs.signing_request(certs.make_key())
    with pytest.raises(ConfigError, match=f"`ether revoke {own_name}` first"):
        lab.admit(request, own_name, "pc", time.time())
    lab.revoke(own_name, time.time())
    with pytest.raises(ConfigError):
        lab.admit_by_password(own_name, time.time())
    lab.admit(request, own_name, "pc", time.time())
    assert lab.members()[own_name].revoked is None


@pytest.mark.attack("P10", "connections that say nothing", "as many as are served at once, less two")
def test_connections_that_say_nothing_hold_up_nobody(pairing: Pairing, pi: dict[str, str]) -> None:
    idle = [socket.create_connection(("127.0.0.1", pairing.port)) for _ in range(MOST_AT_ONCE - 2)]
    try:
        assert join(pairing.token, pi, f"127.0.0.1:{pairing.port}").membership.name == "pi3"
    finally:
        for each in idle:
            each.close()


@pytest.mark.attack("P13", "a message byte by byte", "one byte at a time, each in time")
def test_a_message_that_never_ends_is_not_waited_for(pairing: Pairing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ether.session.trust.messages.MESSAGE_S", 0.3)
    messages = talk_to(pairing)

    def drop() -> bool:
        with suppress(OSError):
            messages.socket.sendall(b"x")
        return not any(thread.is_alive() for thread in pairing._threads)

    assert soon(drop, 10)
    messages.close()


@pytest.mark.attack("P11", "a recorder on the line", "looks for secret, name, request and certificate in a pairing")
def test_nothing_is_in_the_clear(lab: LabAuthority, pi: dict[str, str]) -> None:
    """A recorder in between sees neither secret, request, name nor certificate."""
    name = "pi-of-the-third-bench"  # one of three letters is found by chance among some thousand random bytes
    pairing = Pairing(lab, name, valid_s=patience(20), port=0)
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def pump(source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4_096):
                seen.append(data)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def record() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", pairing.port)) as far:
            back = threading.Thread(target=pump, args=(far, near))
            back.start()
            pump(near, far)
            back.join()

    recorder = threading.Thread(target=record)
    recorder.start()
    join(pairing.token, pi, f"127.0.0.1:{listener.getsockname()[1]}")
    recorder.join()
    listener.close()
    pairing.close()
    everything = b"".join(seen)
    assert len(everything) > 2_000
    for word in (pairing.token.secret.encode(), name.encode(), b"BEGIN CERTIFICATE", b"secret", b"authority"):
        assert word not in everything


@pytest.mark.attack("P12", "tokens and codes on disk", "every file of both machines")
def test_tokens_and_codes_are_in_no_file(pairing: Pairing, pi: dict[str, str], tmp_path: Path) -> None:
    join(pairing.token, pi, f"127.0.0.1:{pairing.port}")
    pairing.wait()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert pairing.token.secret.encode() not in text
            assert pairing.code.encode() not in text


@pytest.mark.attack(
    "P14", "points of SPAKE2 that are none", "one's own message sent back, the neutral element, low orders"
)
def test_no_message_of_spake2_makes_a_key_that_is_known_without_the_code(
    lab: LabAuthority, pi: dict[str, str], impostor: Callable[..., Impostor]
) -> None:
    neutral = b"\x01" + bytes(31)
    low_orders = (bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xed" + b"\xff" * 30 + b"\x7f", neutral)
    for point in low_orders:
        for side in (b"A", b"B", b"S"):
            with pytest.raises(WrongProof):
                CodeExchange("2222-2222", joins=False).key(side + point)
            with pytest.raises(WrongProof):
                CodeExchange("2222-2222", joins=True).key(side + point)
    other, key = Authority.make("lab", time.time()), certs.make_key()

    def reflect(device: Messages) -> None:
        device.send(authority=other.certificate_pem.decode(), host="pc")
        said = str(device.receive()["spake2"])
        device.send(spake2=said, proof=said)

    trap = impostor(other.sign_server(key, "pc", [], time.time()) + key, reflect)
    with pytest.raises(JoinFailed):
        join("4K7M-QX9P", pi, trap.at)
    assert memberships(pi) == []
    pairing = Pairing(lab, "pi3", valid_s=patience(20), port=0)
    messages = talk_to(pairing)
    messages.send(spake2=as_text(b"A" + neutral))
    with pytest.raises(PairingEnded, match="tried a wrong token or code"):
        pairing.wait()
    messages.close()
    pairing.close()


@pytest.mark.attack(
    "P15", "a pairing that was recorded", "the messages of a device that came in, sent again to one of the same code"
)
def test_a_recorded_pairing_lets_nobody_in_again(lab: LabAuthority, pi: dict[str, str]) -> None:
    first = Pairing(lab, "pi3", valid_s=patience(20), port=0)
    sent: list[dict[str, object]] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Messages.send

        def send(self: Messages, **said: str) -> None:
            sent.append(dict(said))
            real(self, **said)

        patch.setattr(Messages, "send", send)
        join(first.code, pi, f"127.0.0.1:{first.port}")
        first.wait()
    first.close()
    device = [said for said in sent if "authority" not in said and "certificate" not in said]
    own = [said for said in device if set(said) in ({"spake2"}, {"proof", "request", "host"})]
    assert len(own) == 2, "what the device has said"
    second = Pairing(lab, "pi9", valid_s=patience(20), port=0)
    second.code = first.code
    messages = talk_to(second)
    messages.send(**{name: str(text) for name, text in own[0].items()})
    messages.receive()
    messages.send(**{name: str(text) for name, text in own[1].items()})
    with pytest.raises(PairingEnded, match="tried a wrong token or code"):
        second.wait()
    messages.close()
    second.close()
    assert "pi9" not in lab.members()


@pytest.mark.attack(
    "P16",
    "the wait of another lab",
    "answers to a token that is not its own, with a certificate that is good in its lab",
)
def test_a_token_is_told_to_no_other_lab(pairing: Pairing, pi: dict[str, str], tmp_path: Path) -> None:
    other = LabAuthority.load_or_make({"HOME": str(tmp_path / "other")}, time.time())
    trap = Pairing(other, "pi3", valid_s=patience(20), port=0)
    with pytest.raises(JoinFailed, match="of another lab than the token names, and was told nothing"):
        join(pairing.token, pi, f"127.0.0.1:{trap.port}")
    trap.close()
    assert memberships(pi) == []
    assert join(pairing.token, pi, f"127.0.0.1:{pairing.port}").membership.lab == pairing.token.lab
    assert pairing.wait().name == "pi3"
