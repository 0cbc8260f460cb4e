"""Which filters are wanted, which are confirmed, and who waits for a confirmation.

A filter is remembered from `subscribe()` on and asked for again on every connection; so a request that a
connection lost is answered by the next one, and the caller who waits need not know. The trap: the broker may
answer before the caller has written down what it asked; both therefore happen under one lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, Lock
from typing import Protocol

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


class Asker(Protocol):
    """The part of a connection that asks; each returns the packet id."""

    def ask_subscribe(self, filters: Sequence[tuple[str, int]]) -> int: ...
    def ask_unsubscribe(self, filters: Sequence[str]) -> int: ...


class SubscribeRequest:
    """One call of `subscribe()` or `unsubscribe()` that waits; `refused` maps filters to reasons once it is
    answered."""

    def __init__(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        self.answered = Event()
        self.refused: dict[str, str] = {}

    def answer(self, reasons: dict[str, int]) -> None:
        for topic_filter in self.filters:
            code = reasons.get(topic_filter, 0)
            if code >= _FIRST_FAILURE:
                self.refused[topic_filter] = _REASONS.get(code, f"reason code 0x{code:02x}")
        self.answered.set()


class Subscriptions:
    """The filters of one transport, over all its connections."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted: dict[str, int] = {}
        self._confirmed: set[str] = set()
        self._asker: Asker | None = None
        self._open: dict[SubscribeRequest, int | None] = {}  # subscribe requests and the packet that carries each
        self._leaving: dict[int, SubscribeRequest] = {}
        self._asked: dict[int, tuple[str, ...]] = {}
        self._revoked: list[str] = []
        self._closed = False

    # callers

    def ask(self, filters: Sequence[str], qos: int) -> SubscribeRequest:
        """Want these filters; the request is answered by this connection or a later one."""
        request = SubscribeRequest(filters)
        with self._lock:
            for topic_filter in request.filters:
                self._wanted[topic_filter] = qos
            self._open[request] = None
            if self._closed:
                request.answered.set()
            elif self._asker is not None:
                self._send(self._asker, request)
        return request

    def _send(self, asker: Asker, request: SubscribeRequest) -> None:
        packet_id = asker.ask_subscribe([(name, self._wanted[name]) for name in request.filters])
        self._open[request] = packet_id
        self._asked[packet_id] = request.filters

    def withdraw(self, request: SubscribeRequest, filters: Sequence[str]) -> None:
        """The request failed: forget those of its filters that were never confirmed."""
        with self._lock:
            self._open.pop(request, None)
            for topic_filter in filters:
                if topic_filter not in self._confirmed:
                    self._wanted.pop(topic_filter, None)

    def ask_to_leave(self, filters: Sequence[str]) -> SubscribeRequest:
        """Want these filters no more; answered at once where there is no connection to tell."""
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
        """A new connection: ask for everything wanted. The packet id to await, None where nothing is
        wanted."""
        with self._lock:
            self._asked.clear()
            self._revoked = []
            if not self._wanted:
                return None
            packet_id = asker.ask_subscribe(list(self._wanted.items()))
            self._asked[packet_id] = tuple(self._wanted)
            for request in self._open:
                self._open[request] = packet_id
            return packet_id

    def outstanding(self, packet_id: int | None) -> bool:
        """Whether this packet still waits for its answer."""
        return packet_id in self._asked

    def end_restore(self, asker: Asker) -> list[str]:
        """Everything of `begin()` is answered: from now on requests go out at once, first those that came
        meanwhile. Returns the filters that had been confirmed on an earlier connection and are refused
        now."""
        with self._lock:
            self._asker = asker
            for request, packet_id in self._open.items():
                if packet_id is None:
                    self._send(asker, request)
            return self._revoked

    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None:
        """The broker's answer, in the order of the filters that were asked for."""
        with self._lock:
            asked = self._asked.pop(packet_id, ())
            answer = dict(zip(asked, reasons, strict=False))
            refused = {name for name, code in answer.items() if code >= _FIRST_FAILURE}
            self._revoked = sorted(refused & self._confirmed)
            self._confirmed |= set(answer) - refused
            for request in [request for request, carrier in self._open.items() if carrier == packet_id]:
                del self._open[request]
                request.answer(answer)

    def on_unsuback(self, packet_id: int) -> None:
        """The broker has forgotten the filters."""
        with self._lock:
            request = self._leaving.pop(packet_id, None)
            if request is not None:
                request.answered.set()

    def end(self) -> None:
        """The connection is lost. A broker forgets our filters with it, so whoever wanted to leave has
        left."""
        with self._lock:
            self._asker = None
            self._asked.clear()
            for request in self._open:
                self._open[request] = None
            for leaving in self._leaving.values():
                leaving.answered.set()
            self._leaving.clear()

    def close(self) -> None:
        """Wake everyone who waits; their requests stay unanswered."""
        with self._lock:
            self._closed = True
            for request in [*self._open, *self._leaving.values()]:
                request.answered.set()
