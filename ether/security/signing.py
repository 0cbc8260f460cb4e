"""Signatures of what is saved: a device signs its batches and receipts with the key of its certificate. No files.

ECDSA P-256 over SHA-256, by the key that the lab has certified for TLS. Who verifies knows the lab's authority: the
certificate says which device it was. Promise: `Verifier.device` names a device only where this authority has signed the
certificate as a device's, and the key of that certificate has signed this very message.

The trap: when a certificate ends is not looked at. What was signed stays signed, and clocks of devices may be anything;
who may be in the session at this moment is the broker's matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ether.security.certificates import NotSigned, lab_id

_REMEMBERED = 256
_HOW = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Signer:
    """A device that signs: `lab` and `device` say who, `certificate` is its certificate as DER. `repr` shows no key."""

    lab: str
    device: str
    certificate: bytes = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def from_pem(cls, lab: str, device: str, certificate_pem: bytes, key_pem: bytes) -> Signer:
        """The signer of this certificate and key. Raises `NotSigned`."""
        try:
            certificate, key = x509.load_pem_x509_certificate(certificate_pem), load_pem_private_key(key_pem, None)
        except (ValueError, TypeError) as error:
            raise NotSigned("its certificate or key cannot be read") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise NotSigned("its key and certificate do not belong together")
        return cls(lab, device, certificate.public_bytes(Encoding.DER), key)

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        return self.key.sign(message, _HOW)


class Verifier:
    """Names the devices of one lab by what they have signed. Not locked: for one thread."""

    def __init__(self, authority_pem: bytes) -> None:
        """Raises `NotSigned` for what is no certificate."""
        self.lab = lab_id(authority_pem)
        self.authority = authority_pem
        self._certificate = x509.load_pem_x509_certificate(authority_pem)
        self._known: dict[bytes, tuple[str, ec.EllipticCurvePublicKey]] = {}

    def device(self, certificate: bytes, message: bytes, signature: bytes) -> str:
        """The device that has signed. Raises `NotSigned`, which says what is wrong."""
        name, key = self._key_of(certificate)
        try:
            key.verify(signature, message, _HOW)
        except InvalidSignature as error:
            raise NotSigned(f"its signature is not that of {name!r} for what was sent") from error
        return name

    def certified(self, certificate: bytes) -> str:
        """The device whose certificate (DER) this is. Raises `NotSigned`."""
        return self._key_of(certificate)[0]

    def key_of(self, certificate: bytes) -> bytes:
        """The public key of a device's certificate (DER): a renewed certificate has the same. Raises `NotSigned`."""
        return self._key_of(certificate)[1].public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def _key_of(self, certificate: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
        digest = hashlib.sha256(certificate).digest()
        if (known := self._known.get(digest)) is not None:
            return known
        try:
            read = x509.load_der_x509_certificate(certificate)
            usage = read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            key = read.public_key()
            names = read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            read.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
            raise NotSigned("it is signed by a device that is none of this lab's") from error
        is_device = ExtendedKeyUsageOID.CLIENT_AUTH in usage and len(names) == 1
        if not is_device or not isinstance(key, ec.EllipticCurvePublicKey):
            raise NotSigned("it is signed by a certificate that is no device's")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[digest] = str(names[0].value), key
        return self._known[digest]


def verifiers(authorities: Mapping[str, bytes]) -> dict[str, Verifier]:
    """A verifier for each authority (PEM) that can be read, by its lab."""
    found: dict[str, Verifier] = {}
    for lab, pem in authorities.items():
        try:
            verifier = Verifier(pem)
        except NotSigned:
            continue
        if verifier.lab == lab:
            found[lab] = verifier
    return found
