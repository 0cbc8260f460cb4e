"""Runs the engine that installs by pip: our own loop and core, in this process, in the shell of amqtt.

Promise: at the ready line every listener is open. When the lifeline asks for the end, listeners and connections are
closed within milliseconds, without output on stderr.
What is used of amqtt itself is named in `amqtt_plugins`; an amqtt that was never tested is refused.
"""

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.core.client import ClientProtocol, Terms
from broker.core.exchange import Exchange
from broker.core.rights import Logins
from broker.engines.amqtt_plugins import PluginLogins, Plugins, amqtt_version, require_tested
from broker.events import EventWriter
from broker.failures import EngineFailed, SettingsRefused
from broker.lifeline import Lifeline
from broker.listeners import opening, private
from broker.listeners.layers import Layer
from broker.listeners.loop import Loop, MakeLayers
from broker.settings import Settings, changed_rights, revoked_users

if TYPE_CHECKING:
    from broker.listeners.tls import Contexts

LEVELS = {"3.1.1": 4, "5": 5}


def serve(settings: Settings, events: EventWriter, lifeline: Lifeline) -> None:
    """Serve until the lifeline asks for the end; raises `BrokerFailure` when it cannot start."""
    version = require_tested(amqtt_version())
    allow_many_files()
    levels = tuple(LEVELS[each] for each in settings.protocols)
    terms = Terms(settings.max_packet_bytes, levels)
    loop = Loop(events.warning, terms, _logins(settings, None), settings.quotas)
    plugins = None
    if settings.plugins:
        plugins = Plugins(settings.plugins, events.warning, lambda errand: loop.soon(lambda _: errand()))
        loop.exchange.logins = _logins(settings, plugins)
    contexts = _contexts(settings)
    path = settings.unix_socket if os.name == "posix" else None
    try:
        port, lan_port, websocket_port = _listen(settings, loop, path, contexts)
        commands = _Commands(settings, loop, events, contexts, plugins)
        lifeline.watch(loop.stop, commands.take)
        events.ready(
            engine="amqtt",
            version=version,
            host=settings.host,
            port=port,
            unix_socket=path,
            protocols=list(settings.protocols),
            max_packet_bytes=settings.max_packet_bytes,
            pid=os.getpid(),
            lan_host=settings.lan_host,
            lan_port=lan_port,
            websocket_port=websocket_port,
        )
        loop.run()
    finally:
        if plugins is not None:
            plugins.close()
        if path is not None:
            private.remove_file(path)


def _listen(
    settings: Settings, loop: Loop, path: str | None, contexts: "Contexts | None"
) -> tuple[int, int | None, int | None]:
    """Open the listeners; the ports of the three that have one: for this machine, for others, for WebSockets."""
    port, lan_port, websocket_port = _opened(loop, [opening.tcp(settings.host, settings.port)], None), None, None
    if path is not None:
        loop.listen(opening.unix(path))
    if settings.lan_host is not None:
        listeners = opening.lan(settings.lan_host, settings.lan_port, tls=contexts is not None)
        lan_port = _opened(loop, listeners, _layers(settings, contexts, False))
        if settings.websocket_port is not None:
            listeners = opening.websocket(settings.lan_host, settings.websocket_port)
            websocket_port = _opened(loop, listeners, _layers(settings, contexts, True))
        if settings.password_port is not None and contexts is not None:
            layers = _only_tls(contexts, settings.username.encode())
            _opened(loop, opening.websocket(settings.lan_host, settings.password_port), layers)
    return port, lan_port, websocket_port


def _opened(loop: Loop, listeners: list[socket.socket], layers: MakeLayers | None) -> int:
    for listener in listeners:
        loop.listen(listener, layers)
    return int(listeners[0].getsockname()[1])


def _contexts(settings: Settings) -> "Contexts | None":
    """How connections speak TLS; None where none does. What is not needed is not loaded: 4 MB."""
    if settings.tls_certificate is None:
        return None
    from broker.listeners.tls import Contexts

    return Contexts(settings)


def _only_tls(contexts: "Contexts", owner: bytes) -> MakeLayers:
    """What lies below a client that shows no certificate: its user and password are looked at. The session's own user,
    who may do everything, does not come over the network: programs of this machine have other ways."""
    from broker.listeners.tls import TlsLayer

    def layers(client: ClientProtocol) -> list[Layer]:
        client.barred_user = owner
        return [TlsLayer(contexts.without_certificate)]

    return layers


def _layers(settings: Settings, contexts: "Contexts | None", framed: bool) -> MakeLayers | None:
    """What lies between a socket on the network and its client; None where nothing does."""
    if contexts is None and not framed:
        return None
    makers: list[Callable[[ClientProtocol], Layer]] = []
    if contexts is not None:
        from broker.listeners.tls import TlsLayer

        identity = settings.tls_identity
        makers.append(lambda client: TlsLayer(contexts.current, client.identify if identity else None))
    if framed:
        from broker.listeners.websocket import WebSocketLayer

        origins = tuple(settings.websocket_origins)
        makers.append(lambda client: WebSocketLayer(origins, lambda: client.limit_bytes))
    return lambda client: [make(client) for make in makers]


def _logins(settings: Settings, plugins: Plugins | None, revoked: frozenset[str] = frozenset()) -> Logins:
    passwords = {settings.username: settings.password, **settings.users}
    if plugins is None:
        return Logins(settings.username, passwords, settings.rights, revoked)
    return PluginLogins(settings.username, passwords, settings.rights, plugins, revoked)


class _Commands:
    """What lines of the lifeline that are no `stop` have changed. On the lifeline's thread."""

    def __init__(
        self, settings: Settings, loop: Loop, events: EventWriter, contexts: "Contexts | None", plugins: Plugins | None
    ) -> None:
        self._settings, self._loop, self._events, self._contexts = settings, loop, events, contexts
        self._plugins = plugins
        self._revoked: frozenset[str] = frozenset()

    def take(self, line: bytes) -> None:
        """Users and rights that hold from now on; or certificates, in files that are read again."""
        kind = "rights"
        error: str | None = None
        try:
            revoked = revoked_users(line)
            if revoked is None:
                self._settings = changed_rights(line, self._settings)
            else:
                kind, self._revoked = "trust", revoked
                if self._contexts is not None:
                    self._contexts.reload()
        except SettingsRefused as refused:
            self._events.answered(kind, error=str(refused))
            return
        except EngineFailed as failed:  # of the files: who was put out is out nevertheless
            error = str(failed)
        logins = _logins(self._settings, self._plugins, self._revoked)

        def change(exchange: Exchange) -> None:
            exchange.change_logins(logins)
            self._events.answered(kind, error=error)

        self._loop.soon(change)


def allow_many_files() -> None:
    """Each client is an open file: take as many as the system allows this process without asking anybody."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
