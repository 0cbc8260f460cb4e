"""A message between the transport and its receivers.

Decoding is left to the receiver that needs it, on the receiver's own thread, and is done once for all receivers.
The trap: each receiver has to call `done()`, or the broker stops sending.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ether.errors import DecodeError, PayloadError
from ether.transport.base import Delivery
from ether.wire.envelope import Headers, Unpacked, unpack, unpack_headers

Done = Callable[[Delivery], object]
"""Called with a message when its last receiver has finished with it."""

_SMALL = 65_536
"""Bytes up to which a message is decoded whole for its headers. Of a larger one only the headers are read, and its
value is decoded on the thread that needs it."""


class Inbound:
    """A message on its way to its receivers. Each receiver calls `done()` once, when it needs the message no more.
    Until then the message counts as unread, and unread messages slow a sender down to its slowest receiver."""

    __slots__ = ("_claims", "_claims_lock", "_done", "_headers", "_unpacked", "delivery")

    def __init__(self, delivery: Delivery, claims: int, claims_lock: threading.Lock, done: Done) -> None:
        """`claims` is the number of receivers. `claims_lock` guards the countdown where there are several; one lock
        serves all messages of a link."""
        self.delivery = delivery
        self._claims = claims
        self._claims_lock = claims_lock
        self._done = done
        self._unpacked: Unpacked | None = None
        self._headers: Headers | None = None

    def unpack(self) -> Unpacked:
        """Value and headers; raises `DecodeError`."""
        if self._unpacked is None:
            self._unpacked = unpack(self.delivery.payload, self.delivery.properties)
        return self._unpacked

    def headers(self) -> Headers | None:
        """The headers, without decoding a large value; None for a foreign message. Never raises."""
        if self._unpacked is None and len(self.delivery.payload) > _SMALL:
            if self._headers is None:
                self._headers = unpack_headers(self.delivery.payload, self.delivery.properties)
            return self._headers
        try:
            return self.unpack().headers
        except DecodeError:
            return unpack_headers(self.delivery.payload, self.delivery.properties)

    def take(self) -> object:
        """The value, for a receiver that needs nothing else; calls `done()`. None for a value that cannot be read."""
        try:
            return self.unpack().value
        except PayloadError:
            return None
        finally:
            self.done()

    def done(self) -> None:
        """The calling receiver is finished with the message. Once nobody needs it any more, further calls do nothing:
        the transport must be told once."""
        if self._claims > 1:
            with self._claims_lock:
                self._claims -= 1
                if self._claims:
                    return
        elif self._claims:
            self._claims = 0
        else:
            return
        self._done(self.delivery)

    def drop(self) -> None:
        """The message goes to no receiver."""
        self._claims = 1
        self.done()
