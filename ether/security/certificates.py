"""The lab's certificates, as values: the authority, what it signs, and what it takes back. No files, no clock.

The lab is a certificate authority (ECDSA P-256). It signs two kinds of certificates: of a *server*, the broker of a
session that listens on the network, and of a *device*, a machine that may join. A device's certificate is no server's,
so a stolen device cannot pretend to be the broker. `now` is an argument throughout, in unix seconds.

How long things hold. A device's certificate is for `DEVICE_DAYS`, and says a year more (`GRACE_DAYS`): within it a
machine that was off still enters by its key, with the same standing as before (docs/decisions/0067-the-lab.md). What is
revoked enters no more, whatever it says.

The trap: OpenSSL, and Python 3.13 by default, are strict about extensions (RFC 5280): an authority says what its key
may do, and each certificate which key has signed it.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b32encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ether.errors import ConfigError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
DEVICE_DAYS = 90
GRACE_DAYS = 365
"""For how long after its end a device still enters, and may be given a new certificate by its key alone."""
BACK_DAYS = 2
"""Certificates begin before they are made: clocks of servers are set back, too."""

NAME_RULE = "letters, digits, dots, dashes and underscores, at most 63, a letter or digit first, and not ether in front"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ID_BYTES = 16
_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8


class NotSigned(ValueError):
    """A signing request, or a certificate, that does not hold what it should; the message says what."""


def check_device_name(name: str) -> str:
    """The name. Raises `ConfigError` for one that no device can have: `ether…` is for a session's own programs."""
    if not _NAME.fullmatch(name) or name.lower().startswith("ether"):
        raise ConfigError(f"found {name!r:.80} as the name of a device; expected {NAME_RULE}.")
    return name


def lab_id(authority_pem: bytes) -> str:
    """The lab that this authority is: 26 letters and digits of the hash of its certificate. Raises `NotSigned`."""
    return _id_of(_certificate(authority_pem))


def _id_of(certificate: x509.Certificate) -> str:
    return b32encode(certificate.fingerprint(hashes.SHA256())[:_ID_BYTES]).decode().rstrip("=").lower()


def make_key() -> bytes:
    """A new private key, as PKCS#8 in PEM."""
    return _private_pem(ec.generate_private_key(ec.SECP256R1()), None)


def signing_request(key_pem: bytes) -> bytes:
    """A request to sign the certificate of this key, signed by the key itself. It names nobody: whoever signs knows
    whom."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .sign(_key(key_pem), hashes.SHA256())
        .public_bytes(_PEM)
    )


def fingerprint_of_request(request_pem: bytes) -> str:
    """The fingerprint of the key in a request. Raises `NotSigned` where the request is not signed by that key."""
    return _fingerprint(_request(request_pem).public_key())


def _fingerprint(key: object) -> str:
    """The hash of a public key, in groups that two people can compare: 80 bits of it."""
    assert isinstance(key, ec.EllipticCurvePublicKey)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    text = digest.finalize()[:10].hex()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says: `name` of its device or host, whose it is, from when until when (unix seconds)."""

    name: str
    fingerprint: str
    serial: int
    begins: float
    ends: float


def facts_of(certificate_pem: bytes) -> CertificateFacts:
    """What is in a certificate. Raises `NotSigned`."""
    found = _certificate(certificate_pem)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return CertificateFacts(
        str(names[0].value) if names else "",
        _fingerprint(found.public_key()),
        found.serial_number,
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
    )


def check_device_certificate(certificate_pem: bytes, authority_pem: bytes, key_pem: bytes) -> CertificateFacts:
    """What a certificate that was received says. Raises `NotSigned` where this authority has not signed it, or for
    another key than this one."""
    certificate, facts = _certificate(certificate_pem), facts_of(certificate_pem)
    _check_issued(certificate, _certificate(authority_pem))
    if facts.fingerprint != _fingerprint(_key(key_pem).public_key()):
        raise NotSigned("the certificate is for another key than this device's")
    return facts


def check_server(certificate_der: bytes, authority_pem: bytes) -> None:
    """Return where this authority has signed the certificate as a server's. Raises `NotSigned`. The time is left out:
    the clock of a machine that joins may be anything."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise NotSigned("its certificate is not a server's") from error
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise NotSigned("its certificate is not a server's")
    _check_issued(certificate, _certificate(authority_pem))


def _check_issued(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise NotSigned("the certificate was signed by another lab") from error


@dataclass(frozen=True, slots=True)
class Authority:
    """The lab: its certificate, and the key that signs. `repr` shows neither key nor certificate."""

    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, title: str, now: float) -> Authority:
        """A new lab; `title` is for people."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:64])])
        usage = _usage(signs=True)
        built = (
            _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(built.sign(key, hashes.SHA256()), key)

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes, passphrase: str | None = None) -> Authority:
        """The lab that was written. Raises `NotSigned`; of a key with a passphrase, where it is missing or wrong."""
        certificate, key = _certificate(certificate_pem), _key(key_pem, passphrase)
        if _fingerprint(certificate.public_key()) != _fingerprint(key.public_key()):
            raise NotSigned("key and certificate do not belong together")
        return cls(certificate, key)

    @property
    def id(self) -> str:
        """See `lab_id`."""
        return _id_of(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, which is no secret."""
        return self.certificate.public_bytes(_PEM)

    def key_pem(self, passphrase: str | None = None) -> bytes:
        """The key as PKCS#8, encrypted where there is a passphrase."""
        return _private_pem(self.key, passphrase)

    def sign_server(self, key_pem: bytes, host: str, addresses: Sequence[str], now: float) -> bytes:
        """The certificate of a broker, for programs that come by one of these host names or addresses."""
        names = [_general_name(text) for text in dict.fromkeys((host, "localhost", *addresses))]
        builder = _builder(_common(host), self.certificate.subject, _key(key_pem).public_key(), now, SERVER_DAYS)
        return self._signed(builder, names, ExtendedKeyUsageOID.SERVER_AUTH)

    def sign_device(self, request_pem: bytes, name: str, now: float) -> bytes:
        """The certificate of a device under this name, whatever name the request has. It holds from the lab's own
        beginning on: one that was renewed while the lab's clock was ahead takes the place of the one of before, and
        would leave its device outside once the clock is right. Raises `NotSigned`."""
        key = _request(request_pem).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise NotSigned("the request is for another kind of key than ECDSA P-256")
        uri = x509.UniformResourceIdentifier(f"ether://{self.id}/device/{check_device_name(name)}")
        begins = self.certificate.not_valid_before_utc
        builder = _builder(_common(name), self.certificate.subject, key, now, DEVICE_DAYS + GRACE_DAYS, begins)
        return self._signed(builder, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)

    def revocation_list(self, serials: Iterable[int], number: int, now: float) -> bytes:
        """What is taken back. `number` grows by one with each list: it makes each list younger than the one before,
        also within one second, because OpenSSL goes by the youngest that it has seen."""
        made = _moment(now)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(made - timedelta(days=BACK_DAYS) + timedelta(seconds=number))
            .next_update(made + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._authority_key(), critical=False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(made).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM)

    def _signed(
        self, builder: x509.CertificateBuilder, names: Sequence[x509.GeneralName], purpose: x509.ObjectIdentifier
    ) -> bytes:
        usage = _usage(signs=False)
        built = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(self._authority_key(), critical=False)
        )
        return built.sign(self.key, hashes.SHA256()).public_bytes(_PEM)

    def _authority_key(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, days: int,
    begins: datetime | None = None,
) -> x509.CertificateBuilder:  # fmt: skip
    """`begins`: it holds from then on at the latest."""
    made = _moment(now)
    usual = made - timedelta(days=BACK_DAYS)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(usual if begins is None else min(usual, begins))
        .not_valid_after(made + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _common(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text.encode("idna").decode() if not text.isascii() else text)


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(int(now), UTC)


def _private_pem(key: ec.EllipticCurvePrivateKey, passphrase: str | None) -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase.encode())
    return key.private_bytes(_PEM, _PKCS8, how)


def _key(pem: bytes, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except TypeError as error:  # a passphrase is missing, or there is none
        raise NotSigned("the key has a passphrase" if passphrase is None else "the key has no passphrase") from error
    except ValueError as error:
        raise NotSigned("the passphrase is wrong" if passphrase else "it is no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotSigned("it is another kind of key than ECDSA")
    return key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise NotSigned("it is no certificate") from error


def _request(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise NotSigned("it is no signing request") from error
    if not request.is_signature_valid:
        raise NotSigned("the signing request is not signed by its own key")
    return request
