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
from ether.transport.copies import Copies, Numbered

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
    """How a filter is subscribed to; `as_published` and `counted` as in `Transport.subscribe`. `number` is that of the
    subscription, 0 where it has none."""

    qos: int
    as_published: bool = False
    counted: bool = False
    number: int = 0


class Asker(Protocol):
    """The part of a connection that subscribes; each method returns the packet id of the request. Of filters with a
    number, each needs a request of its own."""

    def ask_subscribe(self, filters: Sequence[tuple[str, FilterOptions]]) -> int: ...
    def ask_unsubscribe(self, filters: Sequence[str]) -> int: ...


class SubscribeRequest:
    """One waiting call of `subscribe()` or `unsubscribe()`. Once it is answered, `refused` maps filters to reasons."""

    def __init__(self, filters: Sequence[str]) -> None:
        self.filters = tuple(filters)
        self.answered = Event()
        self.refused: dict[str, str] = {}

    def note(self, refused: Mapping[str, str]) -> None:
        """A part of the broker's answer; `refused` has the reasons for those filters that it does not grant as
        asked."""
        self.refused |= {name: refused[name] for name in self.filters if name in refused}


def _why_refused(granted: int, asked: int) -> str:
    """Why an answer to a subscription is none: its code says why, or a lower QoS than was asked for; else ""."""
    if granted >= _FIRST_FAILURE:
        return _REASONS.get(granted, f"reason code 0x{granted:02x}")
    return f"it grants QoS {granted} only. {QOS_ADVICE}" if granted < asked else ""


class Subscriptions:
    """The filters of one transport, over all its connections."""

    def __init__(self, copies: Copies) -> None:
        self.numbered = False
        """Whether the broker takes numbers; to be set before `begin` and `end_restore`."""
        self._copies = copies
        self._numbers: dict[str, int] = {}
        """The numbers that were given, of filters that are not wanted at present, too."""
        self._lock = Lock()
        self._wanted: dict[str, FilterOptions] = {}
        self._confirmed: set[str] = set()
        self._asker: Asker | None = None
        self._open: dict[SubscribeRequest, set[int] | None] = {}
        """Each unanswered subscribe request, with the ids of the packets that carry it and are not answered; None where
        it is not sent."""
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
                self._wanted[topic_filter] = self._numbered_options(topic_filter, wanted)
            self._tell_copies()
            self._open[request] = None
            if self._closed:
                request.answered.set()
            elif self._asker is not None:
                self._send(self._asker, request)
        return request

    def _send(self, asker: Asker, request: SubscribeRequest) -> None:
        filters = {name: self._wanted[name] for name in request.filters if name in self._wanted}
        self._open[request] = set(self._ask(asker, filters))

    def _ask(self, asker: Asker, filters: Mapping[str, FilterOptions]) -> list[int]:
        """Send SUBSCRIBE packets for these filters; returns their ids."""
        together = {name: options for name, options in filters.items() if not options.number}
        groups = [{name: options} for name, options in filters.items() if options.number]
        asked = []
        for group in ([together] if together else []) + groups:
            packet_id = asker.ask_subscribe(list(group.items()))
            self._asked[packet_id] = group
            asked.append(packet_id)
        return asked

    def _numbered_options(self, topic_filter: str, wanted: FilterOptions) -> FilterOptions:
        if not (wanted.counted or topic_filter in self._numbers):
            return wanted
        number = self._numbers.setdefault(topic_filter, len(self._numbers) + 1)
        return wanted._replace(counted=True, number=number if self.numbered else 0)

    def _tell_copies(self) -> None:
        self._copies.set({
            name: Numbered(options.number, options.qos, name in self._confirmed)
            for name, options in self._wanted.items() if options.number
        })  # fmt: skip

    def withdraw(self, request: SubscribeRequest, filters: Sequence[str]) -> None:
        """The request failed: forget those of its filters that were never confirmed."""
        with self._lock:
            self._open.pop(request, None)
            for topic_filter in filters:
                if topic_filter not in self._confirmed:
                    self._wanted.pop(topic_filter, None)
            self._tell_copies()

    def ask_to_leave(self, filters: Sequence[str]) -> SubscribeRequest:
        """Unsubscribe from these filters; the request is answered at once where there is no connection."""
        request = SubscribeRequest(filters)
        with self._lock:
            for topic_filter in request.filters:
                self._wanted.pop(topic_filter, None)
                self._confirmed.discard(topic_filter)
            self._tell_copies()
            if self._asker is None:
                request.answered.set()
            else:
                self._leaving[self._asker.ask_unsubscribe(request.filters)] = request
        return request

    # the network thread

    def begin(self, asker: Asker) -> frozenset[int]:
        """A new connection: subscribe to every wanted filter. Returns the ids of the packets to wait for."""
        with self._lock:
            self._asked.clear()
            self._revoked = []
            self._wanted = {name: self._numbered_options(name, options) for name, options in self._wanted.items()}
            self._tell_copies()
            packet_ids = frozenset(self._ask(asker, self._wanted))
            for request in self._open:
                self._open[request] = set(packet_ids)
            return packet_ids

    def outstanding(self, packet_ids: frozenset[int]) -> bool:
        """Whether one of these packets still waits for its answer."""
        return not packet_ids.isdisjoint(self._asked)

    def end_restore(self, asker: Asker) -> list[str]:
        """The packet of `begin()` is answered. From now on requests are sent at once, first those that came meanwhile.
        Returns the filters that had been confirmed on an earlier connection and are refused now."""
        with self._lock:
            self._asker = asker
            for request, packet_ids in self._open.items():
                if packet_ids is None:
                    self._send(asker, request)
            return self._revoked

    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None:
        """The broker's answer: a reason code for each filter of the request, in its order."""
        with self._lock:
            asked = self._asked.pop(packet_id, {})
            answer = {name: _why_refused(code, asked[name].qos) for name, code in zip(asked, reasons, strict=False)}
            refused = {name: why for name, why in answer.items() if why}
            self._revoked = sorted({*self._revoked, *(refused.keys() & self._confirmed)})
            self._confirmed |= answer.keys() - refused.keys()
            self._tell_copies()
            for request, carriers in list(self._open.items()):
                if carriers is not None and packet_id in carriers:
                    carriers.discard(packet_id)
                    request.note(refused)
                    if not carriers:
                        del self._open[request]
                        request.answered.set()

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
