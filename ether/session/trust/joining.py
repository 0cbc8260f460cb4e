"""`ether join`: makes this machine a device of a lab, by the token or the code that `ether pair` shows there.

Promises: the key is made here and never leaves; nothing secret is sent to anybody whose certificate is not that of the
lab which the token names, and of a code nothing but messages that are worth one guess. The membership is there whole or
not at all. No clock is asked: this machine may be in 1970.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from ether.errors import EtherError
from ether.security import certificates as certs
from ether.security.certificates import NotSigned
from ether.security.pairing_code import CodeExchange, Token, WrongProof, check_proof, proof
from ether.session.discovery import mdns
from ether.session.discovery.known_brokers import remember_broker
from ether.session.trust.messages import BadMessage, Messages, as_text, bytes_of, text_of
from ether.session.trust.pairing import ANSWER_S, PORT
from ether.system.lab_folders import AUTHORITY, CERTIFICATE, KEY, Membership, write_membership
from ether.transport.endpoint import Endpoint

CONNECT_S = 3.0
LOOK_S = 3.0
"""How long to look for a machine that waits, where no address is known."""
_AGAIN = "Type `ether pair NAME` there again, and here what it shows."


class JoinFailed(EtherError, RuntimeError):
    """This machine did not become a member; the message says why, and what to type."""


@dataclass(frozen=True, slots=True)
class NewMembership:
    """What this machine is from now on; `fingerprint` is its key's, for comparing with what the other machine shows."""

    membership: Membership
    fingerprint: str


def join(
    secret: Token | str, environment: Mapping[str, str], address: str | None = None, *, mdns_s: float = LOOK_S
) -> NewMembership:
    """Join by a token, or a code. `address` is `host` or `host:port` of the machine that waits; without one, the
    token's are tried, then the network is searched. Raises `JoinFailed`."""
    given = [address] if address else list(secret.addresses) if isinstance(secret, Token) else []
    failures: list[str] = []
    for host, port in [_host_and_port(each) for each in given] or _announced(secret, mdns_s):
        try:
            plain = socket.create_connection((host, port), CONNECT_S)
        except OSError as error:
            failures.append(f"{host}:{port}: {error.strerror or error}")
            continue
        with plain:
            return _join_at(plain, host, secret, environment)
    if not failures:
        raise JoinFailed(
            "no machine of this network waits for a device. Is `ether pair NAME` still running there? Where the network"
            " blocks multicast, name that machine: `ether join … --at HOST`."
        )
    raise JoinFailed(
        f"the machine that waits cannot be reached ({'; '.join(failures)}). Is `ether pair NAME` still running there?"
        " Another of its addresses can be named: `ether join … --at HOST`."
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and (host.startswith("[") or ":" not in host):
        return host.strip("[]"), int(port)
    return address.strip("[]"), PORT


def _announced(secret: Token | str, mdns_s: float) -> list[tuple[str, int]]:
    """The addresses of the machine of this network that waits. Raises `JoinFailed` where several do, because a code
    that is tried at the wrong one is used up there."""
    try:
        found = mdns.browse(mdns_s, service=mdns.PAIRING) if mdns_s > 0 else []
    except mdns.MdnsUnavailable:
        return []
    if isinstance(secret, Token):
        found = [each for each in found if each.lab == secret.lab]
    if len({(each.host, each.port) for each in found}) > 1:
        hosts = ", ".join(sorted({f"{each.host} ({each.addresses[0]}:{each.port})" for each in found}))
        raise JoinFailed(f"several machines wait for a device: {hosts}. Name the one that is meant: --at HOST:PORT.")
    return [(address, each.port) for each in found for address in each.addresses]


def _join_at(plain: socket.socket, host: str, secret: Token | str, environment: Mapping[str, str]) -> NewMembership:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is checked below, against what the token names or the code proves
    plain.settimeout(ANSWER_S)
    try:
        with context.wrap_socket(plain, server_hostname=host) as sock:
            return _Applicant(Messages(sock), host, secret, environment).join()
    except (BadMessage, WrongProof, NotSigned, ssl.SSLError) as error:
        raise JoinFailed(f"what answers at {host} is not what waits for this device: {error}. {_AGAIN}") from error
    except OSError as error:
        raise JoinFailed(f"the connection to {host} broke: {error.strerror or error}. {_AGAIN}") from error


class _Applicant:
    """This machine's side of one connection."""

    def __init__(self, messages: Messages, address: str, secret: Token | str, environment: Mapping[str, str]) -> None:
        self._messages, self._address, self._secret = messages, address, secret
        self._environment = environment
        self._key = certs.make_key()
        self._request = certs.signing_request(self._key)

    def join(self) -> NewMembership:
        hello = self._messages.receive()
        authority = text_of(hello, "authority").encode()
        lab, server = certs.lab_id(authority), self._messages.server_certificate
        certs.check_server(server, authority)
        if isinstance(self._secret, Token):
            if lab != self._secret.lab:
                raise NotSigned("it is of another lab than the token names, and was told nothing")
            own = {"request": self._request.decode(), "host": socket.gethostname()}
            self._messages.send(secret=self._secret.secret, **own)
        else:
            self._prove_code(self._secret, authority, server)
        return self._store(lab, authority, self._answer(), text_of(hello, "host"))

    def _prove_code(self, code: str, authority: bytes, server: bytes) -> None:
        exchange = CodeExchange(code, joins=True)
        self._messages.send(spake2=as_text(exchange.message))
        said = self._answer()
        key = exchange.key(bytes_of(said, "spake2"))
        try:
            check_proof(bytes_of(said, "proof"), key, b"lab", authority, server)
        except WrongProof as error:
            raise JoinFailed(
                f"the code is wrong, or somebody stands in between. A code is good once. {_AGAIN}"
            ) from error
        host = socket.gethostname()
        told = proof(key, b"device", authority, server, self._request, host.encode())
        self._messages.send(proof=as_text(told), request=self._request.decode(), host=host)

    def _answer(self) -> dict[str, object]:
        said = self._messages.receive()
        if isinstance(why := said.get("refused"), str):
            shown = "".join(sign for sign in why[:300] if sign.isprintable())
            raise JoinFailed(f"{self._address} does not take this token or code: {shown}. {_AGAIN}")
        return said

    def _store(self, lab: str, authority: bytes, said: dict[str, object], host: str) -> NewMembership:
        certificate = text_of(said, "certificate").encode()
        facts = certs.check_device_certificate(certificate, authority, self._key)
        host = "".join(sign for sign in host[:255] if sign.isascii() and sign.isprintable())
        files = {AUTHORITY: authority, CERTIFICATE: certificate, KEY: self._key}
        membership = write_membership(lab, facts.name, host, files, self._environment)
        self._messages.send(stored=facts.name)
        for port in text_of(said, "ports").split()[:20]:
            if port.isdecimal() and 0 < int(port) < 65_536:
                url = Endpoint("tls", self._address, int(port)).address
                remember_broker(url, "", host, self._environment)
        return NewMembership(membership, facts.fingerprint)
