"""Which topic filters are wanted, which are confirmed, and which callers wait for a confirmation.

A filter is remembered from `subscribe()` on and subscribed to again on every connection. So a request that was lost
with its connection is answered on the next one, and the waiting caller does not notice. The trap: the broker may answer
before the asking thread has recorded the packet id of its request. Therefore asking and taking an answer happen under
one lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event, Lock
from typing import NamedTuple, Protocol

from ether.errors.reason_codes import QOS_ADVICE

_FIRST_FAILURE = 0x80
_REASONS = {
    0x80: "the broker refused it",
    0x83: "implementation specific error",
    0x87: "not authorized",
    0x8F: "the filter is not valid for this broker",
    0x97: "quota exceeded",
    0x9E: "shared subscriptions are not supported",
    0xA2: "wildcard subscriptions are not supported",
}


class FilterOptions(NamedTuple):
    """How a filter is subscribed to; `as_published` as in `Transport.subscribe`."""

    qos: int
    as_published: bool = False


class Asker(Protocol):
    """The part of a connection that subscribes; each method returns the packet id of the request."""

    def ask_subscribe(self, filters: Sequence[tuple[str, FilterOptions]]) -> int: ...
    def ask_unsubscribe(self, filters: Sequence[str]) -> int: ...


class SubscribeRequest:
    """One waiting call of `subscribe()` or `unsubscribe()`. Once it is answered, `refused` maps filters to reasons."""

    def __init__(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        self.answered = Event()
        self.refused: dict[str, str] = {}

    def answer(self, refused: Mapping[str, str]) -> None:
        """The broker has answered; `refused` has the reasons for those filters that it does not grant as asked."""
        self.refused = {name: refused[name] for name in self.filters if name in refused}
        self.answered.set()


def _why_refused(granted: int, asked: int) -> str:
    """Why an answer to a subscription is none: its code says why, or a lower QoS than was asked for; else ""."""
    if granted >= _FIRST_FAILURE:
        return _REASONS.get(granted, f"reason code 0x{granted:02x}")
    return f"it grants QoS {granted} only. {QOS_ADVICE}" if granted < asked else ""


class Subscriptions:
    """The filters of one transport, over all its connections."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted: dict[str, FilterOptions] = {}
        self._confirmed: set[str] = set()
        self._asker: Asker | None = None
        self._open: dict[SubscribeRequest, int | None] = {}
        """Each unanswered subscribe request, with the id of the packet that carries it; None where it is not sent."""
        self._leaving: dict[int, SubscribeRequest] = {}
        """Each unanswered unsubscribe request, by its packet id."""
        self._asked: dict[int, dict[str, FilterOptions]] = {}
        """The filters, with their options, in each SUBSCRIBE packet that is not answered."""
        self._revoked: list[str] = []
        """Filters that were confirmed once and that the latest answer refuses."""
        self._closed = False

    # callers

    def ask(self, filters: Sequence[str], wanted: FilterOptions) -> SubscribeRequest:
        """Subscribe to these filters; the request is answered on this connection or a later one."""
        request = SubscribeRequest(filters)
        with self._lock:
            for topic_filter in request.filters:
                self._wanted[topic_filter] = wanted
            self._open[request] = None
            if self._closed:
                request.answered.set()
            elif self._asker is not None:
                self._send(self._asker, request)
        return request

    def _send(self, asker: Asker, request: SubscribeRequest) -> None:
        filters = {name: self._wanted[name] for name in request.filters}
        packet_id = asker.ask_subscribe(list(filters.items()))
        self._open[request] = packet_id
        self._asked[packet_id] = filters

    def withdraw(self, request: SubscribeRequest, filters: Sequence[str]) -> None:
        """The request failed: forget those of its filters that were never confirmed."""
        with self._lock:
            self._open.pop(request, None)
            for topic_filter in filters:
                if topic_filter not in self._confirmed:
                    self._wanted.pop(topic_filter, None)

    def ask_to_leave(self, filters: Sequence[str]) -> SubscribeRequest:
        """Unsubscribe from these filters; the request is answered at once where there is no connection."""
        request = SubscribeRequest(filters)
        with self._lock:
            for topic_filter in request.filters:
                self._wanted.pop(topic_filter, None)
                self._confirmed.discard(topic_filter)
            if self._asker is None:
                request.answered.set()
            else:
                self._leaving[self._asker.ask_unsubscribe(request.filters)] = request
        return request

    # the network thread

    def begin(self, asker: Asker) -> int | None:
        """A new connection: subscribe to every wanted filter. Returns the packet id to wait for; None where there is no
        filter."""
        with self._lock:
            self._asked.clear()
            self._revoked = []
            if not self._wanted:
                return None
            packet_id = asker.ask_subscribe(list(self._wanted.items()))
            self._asked[packet_id] = dict(self._wanted)
            for request in self._open:
                self._open[request] = packet_id
            return packet_id

    def outstanding(self, packet_id: int | None) -> bool:
        """Whether this packet still waits for its answer."""
        return packet_id in self._asked

    def end_restore(self, asker: Asker) -> list[str]:
        """The packet of `begin()` is answered. From now on requests are sent at once, first those that came meanwhile.
        Returns the filters that had been confirmed on an earlier connection and are refused now."""
        with self._lock:
            self._asker = asker
            for request, packet_id in self._open.items():
                if packet_id is None:
                    self._send(asker, request)
            return self._revoked

    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None:
        """The broker's answer: a reason code for each filter of the request, in its order."""
        with self._lock:
            asked = self._asked.pop(packet_id, {})
            answer = {name: _why_refused(code, asked[name].qos) for name, code in zip(asked, reasons, strict=False)}
            refused = {name: why for name, why in answer.items() if why}
            self._revoked = sorted(refused.keys() & self._confirmed)
            self._confirmed |= answer.keys() - refused.keys()
            for request in [request for request, carrier in self._open.items() if carrier == packet_id]:
                del self._open[request]
                request.answer(refused)

    def on_unsuback(self, packet_id: int) -> None:
        """The broker has confirmed the end of subscriptions."""
        with self._lock:
            request = self._leaving.pop(packet_id, None)
            if request is not None:
                request.answered.set()

    def end(self) -> None:
        """The connection was lost. The broker forgets this client's filters with it, so every unsubscribe request is
        fulfilled."""
        with self._lock:
            self._asker = None
            self._asked.clear()
            for request in self._open:
                self._open[request] = None
            for leaving in self._leaving.values():
                leaving.answered.set()
            self._leaving.clear()

    def close(self) -> None:
        """Wake every waiting caller; the requests count as answered, with nothing refused or granted."""
        with self._lock:
            self._closed = True
            for request in [*self._open, *self._leaving.values()]:
                request.answered.set()
