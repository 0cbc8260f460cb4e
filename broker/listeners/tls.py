"""TLS below a client, in memory: Python's `ssl` without a socket.

Promise: TLS 1.3, or 1.2 where the settings allow it. With a file of client authorities nobody enters without a
certificate of theirs that holds now and is not on the list of those taken back; with `tls_identity` the name in it is
the client's user. Nothing is resumed: a client that comes again shows its certificate again. The trap: a file that
cannot be read or does not fit its key is found at the start, not by the first client.
"""

import ssl
from collections.abc import Callable
from typing import Any

from broker.failures import EngineFailed
from broker.listeners.layers import LayerFailed
from broker.settings import Settings

READ_BYTES = 65_536


def context(settings: Settings) -> ssl.SSLContext:
    """How this broker speaks TLS, by the certificate of its settings. Raises `EngineFailed`."""
    assert settings.tls_certificate is not None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    made.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.tls_minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            made.load_verify_locations(settings.tls_client_ca)
            made.verify_mode = ssl.CERT_REQUIRED
        if settings.tls_crl is not None:
            made.load_verify_locations(settings.tls_crl)
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(
            str(each) for each in (settings.tls_certificate, settings.tls_key, settings.tls_client_ca, settings.tls_crl)
        )
        raise EngineFailed(f"Cannot use the certificates of the settings ({files}): {error}.") from error
    return made


class Contexts:
    """How new connections speak TLS: as the files of the settings say at the start, or at the last `reload`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reload()

    def reload(self) -> None:
        """Read the files again. Raises `EngineFailed`; then the earlier ones go on."""
        alone = self._settings._replace(tls_client_ca=None, tls_crl=None, tls_minimum="1.2")
        self.current, self.without_certificate = context(self._settings), context(alone)


class TlsLayer:
    """One connection's TLS, on the server's side. `identify` is told the name in the client's certificate."""

    def __init__(self, made: ssl.SSLContext, identify: Callable[[str], None] | None = None) -> None:
        self._identify = identify
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = made.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._entered = False

    def receive(self, data: bytes) -> bytes:
        self._incoming.write(data)
        try:
            if not self._entered:
                self._tls.do_handshake()
                self._entered = True
                if self._identify is not None:
                    self._identify(_common_name(self._tls.getpeercert()))
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            raise LayerFailed(f"no TLS: {error.reason or error}") from error

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while data := self._tls.read(READ_BYTES):
                pieces.append(data)
        except ssl.SSLWantReadError:
            return b"".join(pieces)
        except ssl.SSLZeroReturnError:
            pass
        if pieces:
            return b"".join(pieces)
        raise LayerFailed("")

    def send(self, data: bytes | memoryview) -> bytes:
        if data:
            self._tls.write(data)
        return self._outgoing.read()

    def close(self) -> None:
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            return  # the other side has not answered yet, or there was no handshake: our part is written


def _common_name(certificate: Any) -> str:
    """The one common name in a certificate; empty for none, or several."""
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return str(names[0]) if len(names) == 1 else ""
