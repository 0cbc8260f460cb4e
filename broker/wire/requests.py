"""What clients ask for, as values that are the same for both versions of MQTT."""

from typing import NamedTuple

from broker.wire.message import ApplicationMessage

FOR_EVER = 0xFFFF_FFFF
"""A session expiry that means never."""
NO_LIMIT = 0x1_0000_0000


class WillRequest(NamedTuple):
    """The message that is published where a connection ends without a DISCONNECT. Times in seconds."""

    message: ApplicationMessage
    delay_s: int = 0
    expiry_s: int | None = None


class ConnectRequest(NamedTuple):
    """A CONNECT. Times in seconds; `username` and `password` are None where they are missing. `by_certificate`: the
    user is the name in the certificate that the client has shown, whatever it wrote."""

    client_id: bytes
    clean_start: bool
    keep_alive_s: int
    session_expiry_s: int
    will: WillRequest | None
    username: bytes | None
    password: bytes | None
    receive_maximum: int = 65_535
    max_packet_bytes: int = NO_LIMIT
    alias_maximum: int = 0
    wants_response_information: bool = False
    authentication_method: bytes | None = None
    by_certificate: bool = False


class FilterRequest(NamedTuple):
    """One filter of a SUBSCRIBE, with its options. `retain_handling`: 0 send retained messages, 1 only where the filter
    is new, 2 never."""

    text: bytes
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class SubscribePacket(NamedTuple):
    """A SUBSCRIBE; `identifier` is the encoded property, or empty."""

    packet_id: int
    filters: list[FilterRequest]
    identifier: bytes = b""


class DisconnectRequest(NamedTuple):
    """A DISCONNECT; `session_expiry_s` is None where it stays as it was."""

    with_will: bool = False
    session_expiry_s: int | None = None
