"""The one loop of the broker: it waits for sockets, lets clients read and write, and runs what is due.

How it works. A round: wait until something is ready; accept, read and write; then write for every client for which the
round has queued something (`Exchange.unflushed`); then run the timers. So everything that one round produces for a
client leaves in one write; a PUBACK may wait for the next one (`broker.core.held_acks`). A bare loop was chosen over
asyncio by measurement (docs/decisions/0060-own-engine.md).

Promise: one slow client delays nobody. Where the process may open no more files, the listeners rest for a moment and
everybody who is there goes on.
"""

import errno
import math
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from broker.core.client import ClientProtocol, Terms
from broker.core.exchange import Exchange
from broker.core.held_acks import HOLD_S
from broker.core.quotas import Quotas
from broker.core.rights import Logins
from broker.core.timers import Timer
from broker.listeners.connection import ClientConnection, LayeredConnection
from broker.listeners.layers import Layer
from broker.listeners.readiness import READ, WRITE, readiness

LONGEST_WAIT_S = 0.5
"""Python runs a signal's handler between two waits at the latest: see `broker.lifeline.SIGNALS_S`."""
ACCEPTED_AT_ONCE = 64
REST_S = 0.1

PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""When TCP itself asks whether the peer is there: after a minute of silence; two minutes later the connection ends."""

MakeLayers = Callable[[ClientProtocol], list[Layer]]
"""Makes what lies between a socket and its client, the layer at the socket first."""

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Loop:
    """All listeners and connections of one broker."""

    def __init__(self, warn: Callable[[str], None], terms: Terms, logins: Logins, quotas: Quotas) -> None:
        self.now = time.monotonic()
        self._exchange, self._terms, self._warn = Exchange(warn, logins, self.now, quotas), terms, warn
        self._errands: SimpleQueue[Callable[[Exchange], None]] = SimpleQueue()
        self._readiness = readiness()
        self._connections: dict[ClientProtocol, ClientConnection] = {}
        self._listeners: dict[socket.socket, MakeLayers | None] = {}
        self._stopped = False
        self._next_warning = 0.0
        self._alarm, self._alarm_far = socket.socketpair()
        for end in (self._alarm, self._alarm_far):
            end.setblocking(False)
        self._readiness.watch(self._alarm, self._on_alarm)

    @property
    def exchange(self) -> Exchange:
        """What is served; for others than the loop's thread only before `run`."""
        return self._exchange

    def listen(self, listener: socket.socket, layers: MakeLayers | None = None) -> None:
        """Accept clients there; the loop closes it at its end."""
        listener.setblocking(False)
        self._listeners[listener] = layers
        self._watch_listener(listener)

    def stop(self) -> None:
        """Let `run` return; from any thread, or a signal's handler."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._alarm_far.send(b"!")
        except OSError:
            return  # it is full of alarms, or the loop has ended

    def soon(self, errand: Callable[[Exchange], None]) -> None:
        """Run this on the loop's thread; from any thread."""
        self._errands.put(errand)
        self._wake()

    def run(self) -> None:
        """Serve until `stop` is called; then hang up on everybody and close everything."""
        try:
            while not self._stopped:
                self._round()
        finally:
            self._end()

    def _round(self) -> None:
        timers, exchange = self._exchange.timers, self._exchange
        acks = exchange.held_acks
        longest_s = LONGEST_WAIT_S if acks.due == math.inf else HOLD_S
        ready = self._readiness.wait(timers.wait_s(time.monotonic(), longest_s))
        self.now = exchange.now = now = time.monotonic()
        for at, events in ready:
            if not isinstance(at, ClientConnection):
                at()  # type: ignore[operator]  # it is a callable
            elif not at.closed:
                self._serve(at, events)
        if now >= acks.due:
            exchange.unflushed.update(dict.fromkeys(acks.released(now)))  # type: ignore[arg-type]  # receivers are clients
        self._flush()
        if timers.run(now):
            self._flush()

    def _serve(self, connection: ClientConnection, events: int) -> None:
        """Write to one client, and read from it. A defect of the broker that its packet brings to light costs this
        client its connection, and nobody else theirs."""
        try:
            if events & WRITE:
                connection.write()
            if events & READ and not connection.closed:
                connection.read()
        except Exception:  # noqa: BLE001  whatever it is: the others are served on
            self._warn(f"a client is let go, because the broker failed at its packet: {traceback.format_exc()}")
            connection.close()

    def _flush(self) -> None:
        """Write what was queued. Repeated, because a write can end a connection, whose will is one more message."""
        exchange, connections = self._exchange, self._connections
        while exchange.unflushed:
            clients, exchange.unflushed = exchange.unflushed, {}
            for client in clients:
                connection = connections.get(client)  # type: ignore[call-overload]  # every receiver is a client
                if connection is not None:
                    connection.flush()

    # -- what connections call

    def watch_writing(self, connection: ClientConnection, on: bool) -> None:
        self._readiness.change(connection.sock, connection, on)

    def after(self, delay_s: float, connection: ClientConnection) -> Timer:
        return self._exchange.timers.at(self.now + delay_s, connection.close)

    def forget(self, connection: ClientConnection) -> None:
        self._connections.pop(connection.client, None)
        self._readiness.forget(connection.sock)

    # -- listeners

    def _watch_listener(self, listener: socket.socket) -> None:
        self._readiness.watch(listener, lambda: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _NO_MORE_FILES:
                    self._rest(listener, error)
                return
            if len(self._connections) >= self._exchange.quotas.clients:
                sock.close()
                self._warn_of_many()
            else:
                self._enter(sock, address, self._listeners[listener])

    def _enter(self, sock: socket.socket, address: object, layers: MakeLayers | None) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # macOS refuses it where the client has hung up already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # A peer that vanished (power, cable) is noticed also where its client asked for no keep-alive.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in PROBES:
                    if hasattr(socket, name):
                        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "the Unix socket"
        client = ClientProtocol(self._exchange, self._terms, peer)
        if layers is None:
            connection = ClientConnection(sock, client, self)
        else:
            connection = LayeredConnection(sock, client, self, layers(client))
        self._connections[client] = connection
        self._readiness.watch(sock, connection)

    def _warn_of_many(self) -> None:
        """At most once a second."""
        if self.now >= self._next_warning:
            self._next_warning = self.now + 1.0
            self._warn(f"more than {self._exchange.quotas.clients} clients: further ones are not let in")

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """A listener that stays readable and cannot be served would keep the loop busy."""
        self._warn(f"no more clients are let in for the moment: {error.strerror}")
        self._readiness.forget(listener)
        self._exchange.timers.at(self.now + REST_S, lambda: self._watch_listener(listener))

    # -- the end

    def _on_alarm(self) -> None:
        self._alarm.recv(4_096)
        while not self._errands.empty():
            try:
                self._errands.get()(self._exchange)
            except Exception:  # noqa: BLE001  as in `_serve`: behind an errand may be what a client has sent
                self._warn(f"the broker failed at an errand, and goes on: {traceback.format_exc()}")

    def _end(self) -> None:
        for listener in self._listeners:
            listener.close()
        for client, connection in list(self._connections.items()):
            client.hang_up()
            connection.flush()
        for connection in list(self._connections.values()):
            connection.close()
        self._readiness.close()
        self._alarm.close()
        self._alarm_far.close()
