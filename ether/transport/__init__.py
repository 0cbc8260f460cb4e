"""Bytes to a broker and back. `open_transport` makes a transport; `base` says what one promises.

Importing this loads no engine: paho is loaded by the first `open_transport()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ether.transport.base import (
    ConnectionDown,
    ConnectionUp,
    Delivery,
    ProtocolVersion,
    Receipt,
    Refusal,
    Transport,
    Will,
)
from ether.transport.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ConnectionDown",
    "ConnectionUp",
    "Delivery",
    "Endpoint",
    "ProtocolVersion",
    "Receipt",
    "Refusal",
    "Transport",
    "Will",
    "open_transport",
]


def open_transport(
    endpoint: Endpoint,
    *,
    client_id: str,
    will: Will | Callable[[ProtocolVersion], Will] | None = None,
    protocol: ProtocolVersion | None = None,
    keepalive_s: int = 5,
    max_packet_bytes: int | None = None,
) -> Transport:
    """A transport to the broker at `endpoint`, not connected yet.

    `client_id` is a name for people; random bits are added. `will` may be a function of the version that is tried,
    because what 3.1.1 cannot carry beside a message has to stand inside it. `protocol` None tries MQTT 5, then 3.1.1.
    `keepalive_s`: seconds of silence after which each side checks whether the other is alive. `max_packet_bytes`: the
    broker's limit where it announces none (3.1.1); by default MQTT's own, 268,435,455.
    """
    from ether.transport.connection import NetworkTransport  # late: it loads paho

    return NetworkTransport(
        endpoint,
        client_id=client_id,
        will=will,
        protocol=protocol,
        keepalive_s=keepalive_s,
        max_packet_bytes=max_packet_bytes,
    )
