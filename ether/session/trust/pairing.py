"""`ether pair`: waits for one device, lets it in by a token or a code, and signs its certificate.

    device                                         this machine
                       <- authority (certificate of the lab)
    with a token:      secret, request, host ->              only where the token names this very authority
    with a code:       SPAKE2 message ->
                       <- SPAKE2 message, proof of the code over authority and connection
                       proof, request, host ->
    both:              <- certificate, ports of brokers
                       stored ->

Promises: the port is open only while somebody waits; ten minutes, one device, and the first wrong secret ends it; a
device that got its certificate and did not say that it has stored it is no member. What a device says of itself (its
host name) is shown, and decides nothing: its name is the one that was typed here.

The trap: somebody who has got this side's message of SPAKE2 has had a guess, also where nothing follows.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ether.errors import EtherError
from ether.security import certificates as certs
from ether.security.certificates import NotSigned, check_device_name
from ether.security.pairing_code import (
    VALID_S,
    CodeExchange,
    Token,
    WrongProof,
    check_proof,
    new_code,
    proof,
    same_secret,
)
from ether.session.discovery import mdns
from ether.session.trust.lab import LabAuthority
from ether.session.trust.messages import BadMessage, Messages, as_text, bytes_of, text_of
from ether.system.clock import wall_time
from ether.system.lab_folders import write_bytes
from ether.version import VERSION

PORT = 8884
ANSWER_S = 10.0
MOST_AT_ONCE = 16


class PairingEnded(EtherError, RuntimeError):
    """Nobody was let in; the message says why, and what to type."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The device that was let in; `host` and `address` are what it says of itself, and where it came from."""

    name: str
    host: str
    address: str
    fingerprint: str
    ends: float


class Pairing:
    """One wait for one device. `close()` ends it."""

    def __init__(self, lab: LabAuthority, name: str, *, valid_s: float = VALID_S, port: int = PORT) -> None:
        """Listens at once. Raises `ConfigError`, `LabRefused`, and `OSError` where there is no port."""
        self.name = check_device_name(name)
        lab.refuse_own(name)
        self._lab, self._valid_s, self._authority = lab, valid_s, lab.authority_pem
        addresses = mdns.own_addresses()
        self._context, self._certificate = _server_context(lab, addresses)
        self._listener = _listener(port)
        self.port: int = self._listener.getsockname()[1]
        self.code = new_code()
        self.token = Token.new(lab.id, tuple(f"{address}:{self.port}" for address in addresses))
        self._ended = threading.Condition()
        self._joined: Joined | None = None
        self._why = ""
        self._in_hand = False
        self._room = threading.Semaphore(MOST_AT_ONCE)
        self._threads: list[threading.Thread] = []
        self._announced = self._announce(addresses)
        self._accepting = threading.Thread(target=self._accept, name="ether-pairing", daemon=True)
        self._accepting.start()

    def wait(self) -> Joined:
        """The device that was let in. Raises `PairingEnded`."""
        with self._ended:
            self._ended.wait_for(lambda: self._joined is not None or self._why, self._valid_s)
            if self._joined is not None:
                return self._joined
            self._why = self._why or f"nobody came within {self._valid_s / 60:.0f} min"
            raise PairingEnded(f"{self._why}: token and code are void. Type `ether pair {self.name}` again.")

    def close(self) -> None:
        """Let nobody in any more."""
        with self._ended:
            self._why = self._why or "it was ended"
            self._ended.notify_all()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._announced is not None:
            self._announced.close()
        for thread in (self._accepting, *self._threads):
            thread.join(ANSWER_S)

    def _announce(self, addresses: Sequence[str]) -> mdns.MdnsAnnouncement | None:
        if not mdns.browse_seconds(os.environ) or not addresses:
            return None
        return mdns.announce_pairing(self.port, addresses, VERSION, self._lab.id)

    # -- one connection

    def _accept(self) -> None:
        while not self._why and self._joined is None:
            try:
                plain, address = self._listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                plain.close()
                continue
            peer = str(address[0]).removeprefix("::ffff:")
            thread = threading.Thread(target=self._serve, args=(plain, peer), name="ether-paired", daemon=True)
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()

    def _serve(self, plain: socket.socket, address: str) -> None:
        """On a thread of its own: whoever says nothing holds up nobody."""
        try:
            plain.settimeout(ANSWER_S)
            with self._context.wrap_socket(plain, server_side=True) as sock:
                self._talk(Messages(sock), address)
        except (BadMessage, NotSigned, OSError):
            plain.close()  # a scan of ports, or a device that changed its mind: nothing has been guessed
        finally:
            self._room.release()

    def _talk(self, messages: Messages, address: str) -> None:
        messages.send(ether="pair 1", authority=self._authority.decode(), host=socket.gethostname())
        said = messages.receive()
        with self._ended:
            void = self._in_hand or bool(self._why) or self._joined is not None
            self._in_hand = True  # until it is known whether this one knows the secret no other one may try
        if void:
            messages.send(refused="it was used already, or is too old")
            return
        try:
            request, host = self._proven(messages, said)
        except (ValueError, OSError) as error:  # WrongProof and BadMessage, and texts that are none
            self._burn(f"somebody at {address} tried a wrong token or code")
            with suppress(OSError):
                messages.send(refused="it is wrong")
            raise BadMessage("a wrong secret") from error
        self._let_in(messages, request, host, address)

    def _proven(self, messages: Messages, said: dict[str, object]) -> tuple[bytes, str]:
        """The device's request and host name. Raises `WrongProof`; from here on each failure counts as a guess."""
        if "secret" in said:
            if not same_secret(self.token.secret, said["secret"]):
                raise WrongProof("another secret")
            return text_of(said, "request").encode(), _printable(text_of(said, "host"))
        exchange = CodeExchange(self.code, joins=False)
        key = exchange.key(bytes_of(said, "spake2"))
        bound = self._authority, self._certificate
        messages.send(spake2=as_text(exchange.message), proof=as_text(proof(key, b"lab", *bound)))
        said = messages.receive()
        request, host = text_of(said, "request"), text_of(said, "host")
        check_proof(bytes_of(said, "proof"), key, b"device", *bound, request.encode(), host.encode())
        return request.encode(), _printable(host)

    def _let_in(self, messages: Messages, request: bytes, host: str, address: str) -> None:
        """Sign the request, and keep the member if it has its certificate, and somebody still waits for it."""
        if self._is_over():
            messages.send(refused="it is too old")
            return
        try:
            signed = self._lab.admit(request, self.name, host, wall_time())
        except (EtherError, NotSigned, OSError) as error:
            self._burn(f"{self.name} could not be let in: {error}")
            messages.send(refused=str(error))
            return
        try:
            ports = " ".join(str(port) for port in self._lab.broker_ports())
            messages.send(certificate=signed.decode(), name=self.name, ports=ports)
            text_of(messages.receive(), "stored")
        except (BadMessage, OSError):
            self._lab.revoke(self.name, wall_time())
            self._burn(f"{self.name} did not say that it has stored its certificate, which was taken back")
            return
        member = self._lab.members()[self.name]
        with self._ended:
            if not self._is_over():
                self._joined = Joined(self.name, host, address, member.fingerprint, member.ends)
                self._ended.notify_all()
                return
        self._lab.revoke(self.name, wall_time())  # the wait was over first, and its end has said that nobody came in

    def _is_over(self) -> bool:
        return bool(self._why)

    def _burn(self, why: str) -> None:
        with self._ended:
            self._why = self._why or why
            self._ended.notify_all()


def _server_context(lab: LabAuthority, addresses: Sequence[str]) -> tuple[ssl.SSLContext, bytes]:
    """How the wait speaks TLS, with a certificate of its own, and that certificate as DER."""
    key = certs.make_key()
    signed = lab.authority.sign_server(key, socket.gethostname(), addresses, wall_time())
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    path = os.path.join(lab.folder, f"pairing-{os.getpid()}.pem")  # `ssl` reads files alone
    write_bytes(path, signed + key)
    try:
        made.load_cert_chain(path)
    finally:
        os.unlink(path)
    return made, ssl.PEM_cert_to_DER_cert(signed.decode())


def _listener(port: int) -> socket.socket:
    """At the port, or a free one where another program has it; over IPv6, too, where there is that."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError:
        return socket.create_server(("", 0), family=family, dualstack_ipv6=both)


def _printable(text: str) -> str:
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text[:255])
