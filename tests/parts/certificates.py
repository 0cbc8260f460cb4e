"""Certificates for tests, made by openssl: an authority, servers that it vouches for, a client."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NEEDS_OPENSSL = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not installed"
)


def openssl(*arguments: str) -> None:
    """Run it; what it says is seen only where it fails."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificates(folder: Path, *names: str) -> Path:
    """An authority `ca.pem`, and for each name `name.pem` and `name.key`: good for a server of that host name, and for
    a client."""
    ca, ca_key = str(folder / "ca.pem"), str(folder / "ca.key")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 goes by RFC 5280: an authority says what its key may do, a certificate which key has signed it.
    authority = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    added = [argument for extension in authority for argument in ("-addext", extension)]
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=lab", *added, "-keyout", ca_key, "-out", ca)
    for name in names:
        request, key, extensions = (str(folder / f"{name}.{kind}") for kind in ("csr", "key", "ext"))
        Path(extensions).write_text(
            f"subjectAltName=DNS:{name}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid:always\n"
        )
        openssl(*new, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signed = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions)
        openssl("x509", "-req", "-in", request, *signed, "-out", str(folder / f"{name}.pem"))
    return folder
