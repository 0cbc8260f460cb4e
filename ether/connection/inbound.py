"""A message between the transport and its receivers.

Decoding is left to who needs it, and done once. The trap: each receiver has to say that it is done, or the broker sends
no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ether.errors import DecodeError, PayloadError
from ether.transport.base import Delivery
from ether.wire.envelope import Headers, Unpacked, unpack, unpack_headers

if TYPE_CHECKING:
    from ether.connection.link import Link

Done = Callable[[Delivery], object]

_SMALL = 65_536
"""Bytes up to which a message is decoded at once, instead of its headers first and its value on another thread."""


class Inbound:
    """A message on its way to its receivers. Each of them calls `done()` once, when it needs it no more: until
    then the message counts as unread, which is what slows a sender down to the pace of its slowest receiver."""

    __slots__ = ("_claims", "_done", "_link", "_unpacked", "delivery")

    def __init__(self, link: Link, delivery: Delivery, claims: int, done: Done | None = None) -> None:
        """`done` is called in place of what makes room for more, where it was made before."""
        self.delivery = delivery
        self._done = done
        self._link = link
        self._claims = claims
        self._unpacked: Unpacked | None = None

    def unpack(self) -> Unpacked:
        """Value and headers; raises `DecodeError`."""
        if self._unpacked is None:
            self._unpacked = unpack(self.delivery.payload, self.delivery.properties)
        return self._unpacked

    def headers(self) -> Headers | None:
        """The headers alone, where the value is large; None for a stranger's message. Never raises."""
        if self._unpacked is None and len(self.delivery.payload) > _SMALL:
            return unpack_headers(self.delivery.payload, self.delivery.properties)
        try:
            return self.unpack().headers
        except DecodeError:
            return unpack_headers(self.delivery.payload, self.delivery.properties)

    def take(self) -> object:
        """The value, for a receiver that needs nothing else of it, and is done; None for what cannot be read."""
        try:
            return self.unpack().value
        except PayloadError:
            return None
        finally:
            self.done()

    def done(self) -> None:
        """This receiver is finished with it."""
        if self._claims > 1:
            with self._link.claims_lock:
                self._claims -= 1
                if self._claims:
                    return
        (self._done or self._link.transport.consumed)(self.delivery)

    def drop(self) -> None:
        """Nobody gets it."""
        self._claims = 0
        self.done()
