"""amqtt's broker with another core: the only module that imports amqtt.

Kept from amqtt: life cycle and listeners, plugins (and with them the check of user and password), the codec of CONNECT.
Replaced: connections, sessions, subscriptions, retained messages and delivery (`broker.listeners.connection`,
`broker.core.exchange`), because the defects that break our promises lie in the structure of amqtt's own
(docs/decisions/0002-embedded-broker.md).

The trap: the methods that are overridden here are private to amqtt, so only tested versions of it are accepted.
"""

import asyncio
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import amqtt
from amqtt.adapters import BufferReader
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError, BrokerError, MQTTError, NoDataError
from amqtt.mqtt.connack import IDENTIFIER_REJECTED, NOT_AUTHORIZED
from amqtt.mqtt.connect import ConnectPacket
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session as PluginSession

from broker.core.exchange import Exchange, LastWill
from broker.listeners.connection import Admission, ClientConnection
from broker.settings import Settings
from broker.wire.packets import MalformedPacket, PublishPacket, decoded_topic

VERSION: str = amqtt.__version__
OLDEST, BEFORE = (0, 12, 1), (0, 13)
LISTENER = "default"

__all__ = ["VERSION", "BrokerError", "MendedBroker", "OneUser", "is_tested"]


def is_tested(version: str) -> bool:
    """Whether this version's private methods are the ones that are overridden here."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
    return OLDEST <= numbers < BEFORE


class OneUser(BaseAuthPlugin):
    """Admits the one user of the session; compares in constant time, in microseconds.

    argon2, which amqtt's own plugins use, would stall every client whenever one connects, and protects nothing here:
    the password is random and valid for one session.
    """

    @dataclass
    class Config:
        """This plugin's part of the broker's configuration."""

        username: str
        password: str

    async def authenticate(self, *, session: PluginSession) -> bool:
        """Whether user and password are those of the settings."""
        given = f"{session.username or ''}\0{session.password or ''}"
        known = f"{self.config.username}\0{self.config.password}"
        return hmac.compare_digest(given.encode(), known.encode())


class MendedBroker(Broker):
    """One listener on loopback, one user, and the exchange."""

    def __init__(self, settings: Settings, warn: Callable[[str], None]) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        plugin = f"{OneUser.__module__}.{OneUser.__qualname__}"
        super().__init__(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.TCP, bind=f"{host}:{settings.port}")},
                plugins={plugin: {"username": settings.username, "password": settings.password}},
            )
        )
        self.exchange = Exchange(warn)
        self._max_packet_bytes = settings.max_packet_bytes
        self._connections: set[ClientConnection] = set()

    @property
    def port(self) -> int:
        """The TCP port of the listener, once started."""
        server = self._servers[LISTENER].instance
        return int(next(iter(server.sockets)).getsockname()[1])

    async def shutdown(self) -> None:
        """Close the listener, hang up on every client, and end amqtt's own parts."""
        for server in self._servers.values():
            server.instance.close()
        for connection in list(self._connections):
            connection.hang_up()
        await super().shutdown()

    async def internal_message_broadcast(self, topic: str, data: bytes, qos: int | None = None) -> None:
        """Publish for a plugin."""
        self.exchange.publish(PublishPacket(topic.encode(), bytes(data), min(qos or 0, 1)), retain=False)
        self.exchange.flush()

    async def _create_server_instance(
        self, listener_name: str, listener_type: ListenerType, address: str | None, port: int, ssl_context: Any
    ) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        reuse = os.name == "posix"  # on Windows it would let two brokers share a port
        host = address.strip("[]") if address else address
        return await loop.create_server(self._connection, host, port, reuse_address=reuse)

    def _connection(self) -> ClientConnection:
        return ClientConnection(self.exchange, self._admission, self._max_packet_bytes, self._connections)

    async def _admission(self, packet: bytes, peer: tuple[str, int]) -> Admission:
        """Decode and check a CONNECT. Nothing is looked up by its client id before the password has been checked."""
        try:
            connect = await ConnectPacket.from_stream(BufferReader(packet))
            will = _will(connect)
        except (AMQTTError, MQTTError, NoDataError, MalformedPacket, ValueError):
            return Admission(None)
        if _wants_to_keep_an_unnamed_session(connect):
            return Admission(IDENTIFIER_REJECTED)
        if not await self._authenticate(_plugin_session(connect, peer), self.listeners_config[LISTENER]):
            self.exchange.warn(f"a client at {peer[0]}:{peer[1]} was refused: wrong user or password")
            return Admission(NOT_AUTHORIZED)
        return Admission(0, connect.client_id or "", connect.clean_session_flag, connect.keep_alive, will)

    async def _broadcast_loop(self) -> None:
        """Not needed: the exchange delivers within the call."""
        await self._broadcast_shutdown_waiter

    async def _session_monitor(self) -> None:
        """Not needed: sessions end with their connection."""


def _wants_to_keep_an_unnamed_session(connect: ConnectPacket) -> bool:
    return connect.payload is not None and connect.payload.client_id_is_random and not connect.clean_session_flag


def _will(connect: ConnectPacket) -> LastWill | None:
    header = connect.variable_header
    if header is None or header.reserved_flag or header.will_qos == 3 or (header.will_qos and not header.will_flag):
        raise MalformedPacket("flags of a CONNECT that make no sense")
    if not header.will_flag:
        return None
    topic = (connect.will_topic or "").encode()
    if decoded_topic(topic).startswith("$"):
        raise MalformedPacket("a will for a topic that belongs to the broker")
    return LastWill(
        PublishPacket(topic, bytes(connect.will_message or b""), min(header.will_qos, 1)), header.will_retain_flag
    )


def _plugin_session(connect: ConnectPacket, peer: tuple[str, int]) -> PluginSession:
    session = PluginSession()
    session.client_id = connect.client_id
    session.username, session.password = connect.username, connect.password
    session.remote_address, session.remote_port = peer
    return session
