"""One client's socket: reading, writing, and the end.

How it works. The loop calls `read` and `write` when the socket is ready, and `flush` at the end of a round in which
something was queued for this client. A client that is `over` gets what is still queued for it, then its half of the
connection is closed, and what it still sends is read and thrown away for a moment: a socket that is closed with unread
bytes would be reset, and the client would never see the reason why.

Promise: no call blocks, and none raises `OSError`. What the socket does not take stays queued.
"""

import socket
from typing import Protocol

from broker.core.client import ClientProtocol
from broker.core.timers import Timer
from broker.listeners.layers import Layer, LayerFailed

READ_BYTES = 65_536
"""More would cost the memory a system call of its own for each read."""
SMALL_READ_BYTES = 2_048
"""Where a read gives no more, the next one asks for twice as many: memory for 65,536 is found less quickly."""
LARGEST_READ_BYTES = 1_048_576
LINGER_S = 1.0
LINGER_BYTES = 4_194_304
UNREAD_BYTES = 1_048_576
"""Answers of a layer (pongs) that a client does not read."""


class Watcher(Protocol):
    """What a connection needs of the loop."""

    now: float

    def watch_writing(self, connection: "ClientConnection", on: bool) -> None:
        """From now on, call `write` when the socket takes bytes again; or no more."""

    def after(self, delay_s: float, connection: "ClientConnection") -> Timer:
        """Close this connection after a while."""

    def forget(self, connection: "ClientConnection") -> None:
        """The connection is closed."""


class ClientConnection:
    """One accepted socket, which does not block, and its client."""

    __slots__ = ("_lingered_bytes", "_lingers", "_usual_bytes", "_watcher", "_writing", "client", "closed", "sock")

    def __init__(self, sock: socket.socket, client: ClientProtocol, watcher: Watcher) -> None:
        self.sock, self.client, self._watcher = sock, client, watcher
        self.closed = self._writing = False
        self._usual_bytes = 2 * SMALL_READ_BYTES
        self._lingers: Timer | None = None
        self._lingered_bytes = 0

    def read(self) -> None:
        """The socket is readable."""
        client = self.client
        if client.large_packet is not None and (space := self._space()) is not None:
            self._read_into(space)
            return
        wanted = client.wanted_bytes
        size = self._usual_bytes if wanted <= READ_BYTES else min(wanted, LARGEST_READ_BYTES)
        try:
            data = self.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        if not data:
            self._ended()
        elif client.over:
            self._throw_away(len(data))
        else:
            self._usual_bytes = READ_BYTES if len(data) > SMALL_READ_BYTES else 2 * SMALL_READ_BYTES
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        self.client.receive(data)
        if self.client.large_packet is not None and (space := self._space()) is not None:
            self._read_into(space)  # the rest of a large packet is often there already

    def _space(self) -> memoryview | None:
        """Where the next bytes of a large packet belong."""
        return None if self.client.over else self.client.space()

    def _read_into(self, space: memoryview) -> None:
        """Read on in a packet whose length is known."""
        try:
            count = self.sock.recv_into(space)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        if count:
            self.client.filled(count)
        else:
            self._ended()

    def _ended(self) -> None:
        """The other side sends no more. It may still read: what it is owed is written first, as far as it is taken."""
        if self.client.outlet.bytes:
            self.flush()
        if not self.closed:
            self._lost()

    def _lost(self) -> None:
        self.client.lost()
        self.close()

    def flush(self) -> None:
        """Write what is queued, unless the socket is known to be full."""
        if not self._writing:
            self.write()

    def write(self) -> None:
        """The socket takes bytes."""
        if self.closed:
            return
        try:
            waiting = self._write_all()
        except OSError:
            self._lost()
            return
        if waiting is not self._writing:
            self._writing = waiting
            self._watcher.watch_writing(self, waiting)
        if self.client.over:
            self._leave(waiting)

    def _write_all(self) -> bool:
        """Write until nothing waits or the socket is full; whether something still waits."""
        outlet, now = self.client.outlet, self._watcher.now
        try:
            while outlet.bytes and (data := outlet.batch(now)):
                sent = self.sock.send(data)
                if sent < len(data):
                    outlet.put_back(memoryview(data)[sent:])
                    break
        except (BlockingIOError, InterruptedError):
            outlet.put_back(memoryview(data))
        return outlet.bytes > 0

    def close(self) -> None:
        """Close the socket at once; twice is fine."""
        if self.closed:
            return
        self.closed = True
        if self._lingers is not None:
            self._lingers.cancel()
        self._watcher.forget(self)
        self.sock.close()

    def _leave(self, waiting: bool) -> None:
        """The client is over: end our half of the connection once everything is written."""
        if self._lingers is None:
            self._lingers = self._watcher.after(LINGER_S, self)
        if waiting:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def _throw_away(self, size: int) -> None:
        self._lingered_bytes += size
        if self._lingered_bytes > LINGER_BYTES:
            self.close()


class LayeredConnection(ClientConnection):
    """One whose bytes pass through layers, the one at the socket first."""

    __slots__ = ("_goodbye", "_layers", "_unsent")

    def __init__(self, sock: socket.socket, client: ClientProtocol, watcher: Watcher, layers: list[Layer]) -> None:
        super().__init__(sock, client, watcher)
        client.may_hold_acks = False
        self._layers = layers
        self._unsent: bytes | memoryview = b""
        self._goodbye = False

    def _receive(self, data: bytes) -> None:
        try:
            for layer in self._layers:
                data = layer.receive(data)
        except LayerFailed as failed:
            self.client.lost(str(failed))
        else:
            if data:
                self.client.receive(data)
        if not self._writing:
            self.write()  # the layers may have something to say though the client has not
        elif more := self._through(b""):
            self._unsent = bytes(self._unsent) + bytes(more)
            if len(self._unsent) > UNREAD_BYTES:
                self.client.lost()
                self.close()

    def _space(self) -> None:
        """What the socket gives is not yet what the client gets."""

    def _write_all(self) -> bool:
        outlet, now = self.client.outlet, self._watcher.now
        try:
            while self._unsent or self._fetch(now):
                sent = self.sock.send(self._unsent)
                self._unsent = memoryview(self._unsent)[sent:]
                if self._unsent:
                    break
        except (BlockingIOError, InterruptedError):
            pass
        return bool(self._unsent) or len(outlet) > 0

    def _fetch(self, now: float) -> bool:
        """Take the next bytes for the socket; whether there are any."""
        self._unsent = self._through(self.client.outlet.batch(now))
        return len(self._unsent) > 0

    def _through(self, data: bytes | memoryview) -> bytes | memoryview:
        """What these bytes of the client become at the socket; the goodbye of the layers after its last ones."""
        for layer in reversed(self._layers):
            data = layer.send(data)
            if self.client.over and not self._goodbye and not len(self.client.outlet):
                layer.close()
                data += layer.send(b"")
        self._goodbye = self._goodbye or (self.client.over and not len(self.client.outlet))
        return data
