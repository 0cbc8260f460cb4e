"""What the lab signs is accepted by strict verification, holds for what it was made for, and for nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from patience import patience

from ether.errors import ConfigError
from ether.security import certificates as certs
from ether.security.certificates import Authority, NotSigned

NOW = 1_790_000_000.0
DAY = 86_400.0
NO_TIME = 0x200000


def signed(lab: Authority, name: str = "pi3", now: float = NOW) -> tuple[bytes, bytes]:
    key = certs.make_key()
    return key, lab.sign_device(certs.signing_request(key), name, now)


def test_names_and_ends() -> None:
    lab = Authority.make("the lab", NOW)
    key, certificate = signed(lab)
    facts = certs.check_device_certificate(certificate, lab.certificate_pem, key)
    assert facts.name == "pi3"
    assert facts.begins < NOW - DAY
    assert facts.ends == NOW + (certs.DEVICE_DAYS + certs.GRACE_DAYS) * DAY
    assert facts.fingerprint == certs.fingerprint_of_request(certs.signing_request(key))
    assert certs.lab_id(lab.certificate_pem) == lab.id
    assert Authority.from_pem(lab.certificate_pem, lab.key_pem()).id == lab.id


def test_a_passphrase_is_needed_where_there_is_one() -> None:
    lab = Authority.make("the lab", NOW)
    locked = lab.key_pem("open sesame")
    assert Authority.from_pem(lab.certificate_pem, locked, "open sesame").id == lab.id
    for wrong, why in ((None, "has a passphrase"), ("shut", "passphrase is wrong")):
        with pytest.raises(NotSigned, match=why):
            Authority.from_pem(lab.certificate_pem, locked, wrong)


def test_another_lab_or_another_key_is_refused() -> None:
    lab, other = Authority.make("the lab", NOW), Authority.make("the lab", NOW)
    key, certificate = signed(lab)
    with pytest.raises(NotSigned, match="another lab"):
        certs.check_device_certificate(certificate, other.certificate_pem, key)
    with pytest.raises(NotSigned, match="another key"):
        certs.check_device_certificate(certificate, lab.certificate_pem, certs.make_key())
    with pytest.raises(NotSigned, match="belong together"):
        Authority.from_pem(lab.certificate_pem, other.key_pem())


def test_a_request_that_was_changed_is_not_signed() -> None:
    lab = Authority.make("the lab", NOW)
    pem = bytearray(certs.signing_request(certs.make_key()))
    pem[-60] ^= 1
    for bad in (bytes(pem), b"", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(NotSigned):
            lab.sign_device(bad, "pi3", NOW)


@pytest.mark.parametrize("name", ["", "-pi", "a/b", "pi 3", "pi\n3", "#", "+", "x" * 64, "pï", "ether", "Ether-1"])
def test_names_that_no_device_has(name: str) -> None:
    with pytest.raises(ConfigError, match="as the name of a device"):
        certs.check_device_name(name)


def test_a_device_is_no_server() -> None:
    lab = Authority.make("the lab", NOW)
    _, device = signed(lab)
    server = lab.sign_server(certs.make_key(), "pc", ["10.0.0.1"], NOW)
    certs.check_server(ssl.PEM_cert_to_DER_cert(server.decode()), lab.certificate_pem)
    with pytest.raises(NotSigned, match="not a server's"):
        certs.check_server(ssl.PEM_cert_to_DER_cert(device.decode()), lab.certificate_pem)
    with pytest.raises(NotSigned, match="another lab"):
        certs.check_server(ssl.PEM_cert_to_DER_cert(server.decode()), Authority.make("the lab", NOW).certificate_pem)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> tuple[str, str]:
    """How it ended on either side: empty where it did not fail."""
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(patience(5))
    said = ["", ""]

    def serve() -> None:
        try:
            with server.wrap_socket(ends[0], server_side=True) as made:
                made.recv(1)
                made.send(b"!")
        except (OSError, ssl.SSLError) as error:
            said[0] = str(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ends[1], server_hostname=name) as made:
            made.send(b"?")
            if made.recv(1) != b"!":
                said[1] = "closed"
    except (OSError, ssl.SSLError) as error:
        said[1] = str(error)
    thread.join()
    return said[0], said[1]


def contexts(
    folder: Path, lab: Authority, server_of: Authority, device: bytes, key: bytes, now: float
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's, both strict."""
    server_key = certs.make_key()
    (folder / "server.pem").write_bytes(server_of.sign_server(server_key, "pc", ["10.0.0.1"], now) + server_key)
    (folder / "device.pem").write_bytes(device + key)
    (folder / "revoked.pem").write_bytes(lab.revocation_list([], 1, now))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "server.pem")
    server.load_verify_locations(cadata=lab.certificate_pem.decode())
    server.load_verify_locations(folder / "revoked.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
    client.load_cert_chain(folder / "device.pem")
    client.load_verify_locations(cadata=lab.certificate_pem.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    return server, client


def test_strict_verification_accepts_both_sides(tmp_path: Path) -> None:
    now = time.time()
    lab = Authority.make("the lab", now)
    key, device = signed(lab, now=now)
    server, client = contexts(tmp_path, lab, lab, device, key, now)
    for name in ("pc", "localhost", "10.0.0.1"):
        assert shake_hands(server, client, name) == ("", "")
    assert "certificate is not valid for" in shake_hands(server, client, "elsewhere")[1]


def test_what_was_taken_back_does_not_enter_and_the_youngest_list_counts(tmp_path: Path) -> None:
    now = time.time()
    lab = Authority.make("the lab", now)
    key, device = signed(lab, now=now)
    server, client = contexts(tmp_path, lab, lab, device, key, now)
    (tmp_path / "revoked.pem").write_bytes(lab.revocation_list([certs.facts_of(device).serial], 2, now))
    server.load_verify_locations(tmp_path / "revoked.pem")
    assert "revoked" in shake_hands(server, client, "pc")[0]


def test_ends_are_judged_by_the_servers_clock(tmp_path: Path) -> None:
    """A server's certificate that has ended is taken by a client that leaves time to the server; a device's that has
    ended is not taken by the server."""
    now = time.time()
    lab = Authority.make("the lab", now - 1000 * DAY)
    key, old = signed(lab, now=now - 500 * DAY)
    server, client = contexts(tmp_path, lab, lab, old, key, now - 200 * DAY)
    assert "expired" in shake_hands(server, client, "pc")[1]
    client.verify_flags |= NO_TIME
    assert "expired" in shake_hands(server, client, "pc")[0]
    (tmp_path / "device.pem").write_bytes(lab.sign_device(certs.signing_request(key), "pi3", now - 300 * DAY) + key)
    client.load_cert_chain(tmp_path / "device.pem")
    assert shake_hands(server, client, "pc") == ("", ""), "within the year after its end a device still enters"
