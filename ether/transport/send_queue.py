"""What was published and is not settled yet: order, packet ids, the broker's window, and a bound.

QoS 1: a message stays here from `publish()` until the broker's acknowledgement, across reconnects. After each of them
everything unacknowledged is sent again, in order. At most `window` messages are under way at a time. QoS 0: a message
is here only while the socket does not take it. Count and bytes of both are bounded; a publisher waits for room.

There are two lanes, and what waits in the urgent one goes first: calls, answers and control messages do not wait behind
data (docs/decisions/0041-stock-brokers.md). Order is kept within a lane. Each lane has a bound of its own, so that an
urgent message finds room where data has filled the other lane.

A publisher writes to the socket itself, which saves a change of threads. In a burst, when several messages are under
way already, it leaves the writing to the network thread. Everything that was published until that thread runs goes out
in one write and arrives in one read. With three processes that stream through each other on two cores this makes a
fifth of the throughput, because each write also gives the interpreter lock away (docs/decisions/0028-bursts.md).

One lock guards all of this and the writing to the socket, so that packets of two threads can neither interleave nor
overtake each other. No thread blocks on the network while it holds the lock. The trap: methods whose name ends in
`_locked` must be called with the lock held, all others without.

A message that the broker refuses, or at which it closes the connection each time (`cut_rules`), is given up, and handed
to `on_refusal`. While nothing of that kind happens, it costs nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Condition, Event, Lock
from time import monotonic
from typing import Protocol

from ether.errors import (
    PayloadTooLarge,
    PublishRefused,
    PublishTimeout,
    TooLargeForBroker,
    TransportClosed,
    TransportError,
    publish_refused,
)
from ether.transport.base import Receipt, Refusal, Room
from ether.transport.cut_rules import SMALL_BYTES, SOON_S, STRIKES, LargeWrites, Suspicion
from ether.transport.packets import LARGE_BYTES, marked_duplicate, read_length

MAX_COUNT, LOW_COUNT = 10_000, 7_500
MAX_BYTES, LOW_BYTES = 32 << 20, 24 << 20

_BURST = 4
"""This many unacknowledged messages are a burst. Single messages, and calls one after the other, never reach it."""

_HELD_S = 1.0
"""A broker that closes a connection because of a message does so sooner."""

_STILL_S = 1.0
"""A broker that acknowledges nothing for so long is not waited for at the end."""

_INTERRUPTED = "a publisher was interrupted while it wrote"
_NO_SUBSCRIBERS, _FIRST_FAILURE = 0x10, 0x80

logger = logging.getLogger("Ether.transport")


_SAID = "the broker said: "


class LinkDown(Exception):
    """The connection was lost while a packet was being written."""


class SendLink(Protocol):
    """The writing half of a connection."""

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        """Write, or keep what the socket does not take now. True where everything was written; raises `LinkDown`.
        `owner` is told by `written_locked` or `lost_locked` what became of its bytes."""

    def fail(self, reason: str) -> None:
        """Give the connection up; another one is made."""

    def wake_locked(self) -> None:
        """Have the network thread call `SendQueue.send_left()` as soon as it gets its turn."""

    @property
    def congested(self) -> bool:
        """True while the socket does not take everything."""

    @property
    def last_written(self) -> float:
        """When the socket last took bytes, on the monotonic clock."""


class Settled(Receipt):
    """The receipt of a publish whose outcome is known at once."""

    __slots__ = ("_error",)

    def __init__(self, error: TransportError | None = None) -> None:
        self._error = error

    @property
    def done(self) -> bool:
        return self._error is None

    @property
    def no_subscribers(self) -> bool:
        return False

    @property
    def error(self) -> Exception | None:
        return self._error

    @property
    def watched(self) -> bool:
        return False

    def when_done(self, callback: Callable[[], object]) -> None:
        callback()

    def wait(self, timeout_s: float) -> None:
        if self._error is not None:
            raise self._error


SENT = Settled()


class Publication(Receipt):
    """A message on its way, and its receipt."""

    __slots__ = (
        "_event", "_lock", "_outcome", "afterwards", "callback", "head", "lane", "payload", "section", "size", "topic",
        "watched",
    )  # fmt: skip

    watched: bool

    def __init__(self, lock: Lock, lane: Lane, topic: str, head: bytes, section: bytes, payload: bytes) -> None:
        self.lane, self.topic, self.head, self.section, self.payload = lane, topic, head, section, payload
        self.size = len(head) + len(section) + len(payload) + 2
        self._lock = lock
        self._event: Event | None = None
        self._outcome: int | Exception | None = None
        self.callback: Callable[[], object] | None = None
        self.afterwards: Callable[[], object] | None = None
        self.watched = False

    @property
    def done(self) -> bool:
        return isinstance(self._outcome, int)

    @property
    def no_subscribers(self) -> bool:
        return self._outcome == _NO_SUBSCRIBERS

    @property
    def error(self) -> Exception | None:
        return self._outcome if isinstance(self._outcome, Exception) else None

    def when_done(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if self._outcome is None:
                self.callback, self.watched = callback, True
                return
        callback()

    def when_settled(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if self._outcome is None:
                self.afterwards = callback
                return
        callback()

    def wait(self, timeout_s: float) -> None:
        if self._outcome is None and not self._signal().wait(timeout_s):
            raise PublishTimeout(self.topic, timeout_s, "the broker has not acknowledged it")
        if isinstance(self._outcome, Exception):
            raise self._outcome

    def _signal(self) -> Event:
        with self._lock:
            if self._event is None:
                self._event = Event()
                if self._outcome is not None:
                    self._event.set()
            return self._event

    def settle_locked(self, outcome: int | Exception) -> None:
        """Set the outcome: the reason code of a broker that has taken the message, or the error."""
        self._outcome = outcome
        self.section = self.payload = b""  # a caller that keeps the receipt does not keep the message in memory
        if self._event is not None:
            self._event.set()


class Lane:
    """Messages that wait, in their order, and the bound of the lane. `count` and `size` are those of all its messages
    that are not settled, and of reserved room. Not locked."""

    __slots__ = ("count", "line", "size", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Publication] = deque()
        self.line: deque[QueueRoom] = deque()
        """The publishers that wait for room, in the order of their arrival."""
        self.count = self.size = 0

    def full(self, size: int) -> bool:
        """Whether a message of this size has no room."""
        return self.count >= MAX_COUNT or (self.count > 0 and self.size + size > MAX_BYTES)

    @property
    def has_much_room(self) -> bool:
        """Whether it is time to give room to who waits for it."""
        return self.count <= LOW_COUNT and (self.size <= LOW_BYTES or not self.count)

    def add(self, size: int) -> None:
        """A message of this size, or room for it, counts from now on."""
        self.count += 1
        self.size += size

    def remove(self, size: int) -> None:
        """The opposite of `add`."""
        self.count -= 1
        self.size -= size

    def admit(self) -> None:
        """Reserve room for those at the head of the line."""
        while self.line and not self.full(self.line[0].size):
            room = self.line.popleft()
            room.reserved = True
            self.add(room.size)


class QueueRoom(Room):
    """A place in a lane of a `SendQueue`. While it is reserved it counts like a message of its size."""

    __slots__ = ("_queue", "lane", "reserved", "size", "topic")

    def __init__(self, queue: SendQueue, lane: Lane, topic: str, size: int) -> None:
        self._queue, self.lane, self.topic, self.size = queue, lane, topic, size
        self.reserved = False

    def wait(self, timeout_s: float) -> None:
        with self._queue.lock:
            self._queue.reserve_locked(self, timeout_s)

    def release(self) -> None:
        if self.reserved:
            with self._queue.lock:
                self._queue.take_back_locked(self)
                self._queue.tell_locked()


class SendQueue:
    """The bounded queue between publishers and one connection at a time."""

    def __init__(self, on_refusal: Callable[[Refusal], object] = lambda refusal: None) -> None:
        """`on_refusal` is called with each message that the broker will never take, without the lock."""
        self.lock = Lock()
        self.dropped = 0
        self.largest = 0
        """The largest message that the broker has taken, in bytes."""
        self._on_refusal = on_refusal
        self._suspicion: Suspicion[Publication] | None = None
        self._taken_at = 0  # where in its lane the message under way had waited, while one goes at a time
        self._large_writes = LargeWrites()
        self._proven = False  # something was acknowledged on this connection
        self._changed = Condition(self.lock)
        self._urgent, self._ordinary = Lane(), Lane()
        self._draining = False
        self._inflight: dict[int, Publication] = {}
        self._link: SendLink | None = None
        self._window = 1
        self._last_id = 0
        self._reserved: set[int] = set()
        self._due: list[Callable[[], object]] = []  # callbacks of settled receipts, and refusals
        self._closed = False
        self.left = False
        """True while publishers have left messages to the network thread."""

    # publishers

    def publish(
        self, topic: str, head: bytes, section: bytes, payload: bytes, timeout_s: float,
        room: QueueRoom | None = None, *, urgent: bool = False,
    ) -> Receipt:  # fmt: skip
        """Accept a QoS 1 message; the broker settles the receipt."""
        lane = self._urgent if urgent else self._ordinary
        publication = Publication(self.lock, lane, topic, head, section, payload)
        with self.lock:
            size = publication.size
            if lane.size + size > LOW_BYTES or lane.count > LOW_COUNT or lane.line or room is not None or self._closed:
                self._enter_locked(lane, topic, size, timeout_s, room)
            link, under_way = self._link, len(self._inflight)
            waits = self._urgent.waiting or self._ordinary.waiting or self._suspicion is not None or size >= LARGE_BYTES
            if link is not None and not waits and under_way < min(_BURST, self._window) and not link.congested:
                self._send_alone_locked(link, publication)
                return publication
            lane.count += 1
            lane.size += size
            if self._suspicion is not None and self._is_banned_locked(publication):
                return publication
            lane.waiting.append(publication)
            if link is not None and under_way < self._window:
                if under_way < _BURST:
                    self._fill_locked(link)
                elif not self.left:
                    self.left = True
                    link.wake_locked()
        return publication

    def _send_alone_locked(self, link: SendLink, publication: Publication) -> None:
        """What `_fill_locked` does with a small message where no other one waits: most messages."""
        packet_id, lane = self._next_id_locked(), publication.lane
        packet = b"%b%b%b%b" % (
            publication.head, packet_id.to_bytes(2, "big"), publication.section, publication.payload
        )  # fmt: skip
        try:  # from here on it is counted and under way: where a signal handler raises, the next connection sends it
            self._inflight[packet_id] = publication
            lane.count += 1
            lane.size += publication.size
            link.send_locked(packet)
        except LinkDown:
            pass  # the network thread notices the loss itself
        except BaseException:
            link.fail(_INTERRUPTED)
            raise

    def publish_unconfirmed(
        self, topic: str, head: bytes, tail: bytes, payload: bytes, timeout_s: float,
        room: QueueRoom | None = None, *, urgent: bool = False,
    ) -> Receipt:  # fmt: skip
        """Write a QoS 0 message, or keep it while the socket is full; it is dropped where there is no connection. It
        never waits for the broker's window, so the lane decides about its room only."""
        lane = self._urgent if urgent else self._ordinary
        with self.lock:
            if room is not None or self._closed or (self._link is not None and self._link.congested):
                self._enter_locked(lane, topic, len(payload), timeout_s, room)
            if self._suspicion is not None:
                banned = self._ban_of_locked(topic, len(head) + len(tail) + len(payload))
                if banned is not None:
                    return self._drop_locked(topic, banned)
            link = self._link
            if link is None:
                return self._drop_locked(topic)
            if self.left:  # earlier messages leave first
                self._fill_locked(link, ahead=lane)
            try:
                if len(payload) < SMALL_BYTES:
                    written = link.send_locked(head + tail + payload)
                else:
                    written = self._write_large_locked(link, topic, head + tail, payload)
                return SENT if written else self._keep_locked(link, lane, topic, len(payload))
            except LinkDown:
                return self._drop_locked(topic)
            except BaseException:
                link.fail(_INTERRUPTED)
                raise

    def _write_large_locked(self, link: SendLink, topic: str, start: bytes, payload: bytes) -> bool:
        size = len(start) + len(payload)
        self.largest = max(self.largest, self._large_writes.wrote(topic, size, monotonic()))
        if len(payload) < LARGE_BYTES:
            return link.send_locked(start + payload)
        link.send_locked(start)
        return link.send_locked(payload)

    def _drop_locked(self, topic: str, error: TransportError | None = None) -> Receipt:
        self.dropped += 1
        why = f"the QoS 0 message to {topic!r} was dropped: no connection to the broker"
        return Settled(error or TransportError(why))

    def _enter_locked(self, lane: Lane, topic: str, size: int, timeout_s: float, room: QueueRoom | None) -> None:
        """Return when a message may be added: at once where it has reserved room, or where there is room now."""
        if room is None or not room.reserved:
            # A publisher may overtake those in line only while the first of them would have room, too: otherwise
            # small messages would keep a large one waiting for ever.
            if lane.full(size) or (lane.line and lane.full(lane.line[0].size)):
                room = QueueRoom(self, lane, topic, size)
                self.reserve_locked(room, timeout_s)
            elif self._closed:
                raise TransportClosed("publish() on a connection that was closed")
            else:
                return
        self.take_back_locked(room)
        if self._closed:
            self.tell_locked()
            raise TransportClosed("publish() on a connection that was closed")

    def room(self, topic: str, size: int, *, urgent: bool = False) -> QueueRoom:
        """Room for a message, not reserved yet."""
        return QueueRoom(self, self._urgent if urgent else self._ordinary, topic, size)

    def reserve_locked(self, room: QueueRoom, timeout_s: float) -> None:
        """Wait in line until the room is reserved."""
        lane, deadline = room.lane, monotonic() + timeout_s
        lane.line.append(room)
        try:
            if len(lane.line) == 1:
                lane.admit()
            while not room.reserved and not self._closed:
                remaining = deadline - monotonic()
                if remaining <= 0:
                    why = f"{lane.count:,} messages wait for the broker"
                    raise PublishTimeout(room.topic, timeout_s, why if self._link else why + ", which is not connected")
                self._changed.wait(remaining)
        finally:
            if not room.reserved:
                lane.line.remove(room)
                self.tell_locked()  # behind a large message that has given up, smaller ones may have room
        if self._closed:
            self.take_back_locked(room)
            self.tell_locked()
            raise TransportClosed("publish() on a connection that was closed")

    def take_back_locked(self, room: QueueRoom) -> None:
        """Reserved room counts no more: a message takes it, or it is given back."""
        if room.reserved:
            room.reserved = False
            room.lane.remove(room.size)

    def tell_locked(self) -> None:
        """Give room to waiting publishers and wake them, but only once there is much of it: a wake-up for each
        acknowledgement would cost two changes of threads each."""
        if not (self._draining or self._ordinary.line or self._urgent.line):
            return
        served = [lane for lane in (self._urgent, self._ordinary) if lane.line and lane.has_much_room]
        for lane in served:
            lane.admit()
        if served or self._draining:
            self._changed.notify_all()

    # the connection

    def attach(self, link: SendLink, window: int, max_packet_bytes: int) -> None:
        """A connection is up: send everything unacknowledged again, in order, then what waited. Messages of more than
        `max_packet_bytes` are given up."""
        with self.lock:
            for publication in self._inflight.values():
                publication.head = marked_duplicate(publication.head)
            for publication in self._take_all_locked():
                if publication.size > max_packet_bytes:
                    error = PayloadTooLarge(publication.topic, publication.size, max_packet_bytes)
                    self._refuse_locked(publication, error)
                else:
                    publication.lane.waiting.append(publication)
            self._link, self._window, self._proven = link, window, False
            if self._suspicion is not None:
                self._suspicion.begin(monotonic())
            self._fill_locked(link)
        self.run_callbacks()

    def _take_all_locked(self) -> list[Publication]:
        """Take out everything unsettled: what is urgent first, each lane in its order."""
        under_way = list(self._inflight.values())
        self._inflight.clear()
        if self._taken_at:  # one that was tried before its turn goes back to its place
            publication = under_way.pop(0)
            publication.lane.waiting.insert(self._taken_at, publication)
            self._taken_at = 0
        for publication in reversed(under_way):
            publication.lane.waiting.appendleft(publication)
        unsettled = [*self._urgent.waiting, *self._ordinary.waiting]
        self._urgent.waiting.clear()
        self._ordinary.waiting.clear()
        return unsettled

    def detach(self, cut: str = "") -> None:
        """The connection was lost: from now on QoS 1 waits, and QoS 0 is dropped. `cut`: the broker closed it, and
        what it said."""
        with self.lock:
            link, self._link = self._link, None
            self._reserved.clear()
            if link is not None:
                self._judge_locked(link, cut)
            self._changed.notify_all()
        self.run_callbacks()

    def acknowledged(self, acknowledgements: Sequence[tuple[int, int]]) -> None:
        """The broker's PUBACKs: packet id and reason code of each."""
        with self.lock:
            self._proven = True
            suspicion = self._suspicion
            for packet_id, reason in acknowledgements:
                publication = self._inflight.pop(packet_id, None)
                if publication is None:
                    continue
                if suspicion is not None:
                    suspicion.passed(publication)
                    suspicion.bans.passed(publication.topic, publication.size, monotonic())
                    self._taken_at = 0
                if reason < _FIRST_FAILURE:
                    if publication.size > self.largest:
                        self.largest = publication.size
                    self._settled_locked(publication, reason)
                else:
                    self._refuse_locked(publication, publish_refused(publication.topic, publication.size, reason))
            if suspicion is not None and suspicion.is_over(self._window, monotonic()):
                self._suspicion = None
            if self._link is not None and (self._ordinary.waiting or self._urgent.waiting):
                self._fill_locked(self._link)
            self.tell_locked()
        self.run_callbacks()

    # what the broker will not take

    def _refuse_locked(self, publication: Publication, error: PublishRefused | PayloadTooLarge) -> None:
        """Give a message up, and tell of it."""
        section = publication.section
        length, start = read_length(section, 0) if section else (0, 0)
        properties = section[start : start + length]
        refusal = Refusal(publication.topic, publication.payload, properties, error, publication)
        self._settled_locked(publication, error)
        self._due.append(partial(self._on_refusal, refusal))

    def _ban_of_locked(self, topic: str, size: int) -> PublishRefused | None:
        """Why such a message is not even sent, where the broker has closed connections at others like it. Raises
        `PayloadTooLarge` where they were too large."""
        assert self._suspicion is not None
        limit = self._suspicion.bans.has(topic, size, monotonic())
        if limit:
            raise PayloadTooLarge(topic, size, limit - 1, f"this broker closes the connection at {limit:,} bytes")
        if limit is None:
            return None
        return PublishRefused(
            topic, size, f"it has closed the connection {STRIKES} times when something was sent there"
        )

    def _is_banned_locked(self, publication: Publication) -> bool:
        """Refuse a message that is not even sent. Where its topic is the reason, the network thread tells of it,
        because a publisher may hold locks."""
        try:
            error = self._ban_of_locked(publication.topic, publication.size)
        except PayloadTooLarge:
            publication.lane.remove(publication.size)
            raise
        if error is None:
            return False
        self._refuse_locked(publication, error)
        if self._link is not None and not self.left:
            self.left = True
            self._link.wake_locked()
        return True

    def _judge_locked(self, link: SendLink, cut: str) -> None:
        """The connection has ended: was a message the reason?"""
        now, under_way = monotonic(), list(self._inflight.values())
        largest = max((publication.size for publication in under_way), default=0)
        if self._large_writes.ended(now, cut=bool(cut), proven=self._proven, above=max(largest, self.largest)):
            if (condemned := self._large_writes.condemned()) is not None:
                size, topic = condemned
                error = self._condemn_locked(topic, size, cut, now)
                self._due.append(partial(self._on_refusal, Refusal(topic, b"", b"", error, Settled(error))))
                self._refuse_banned_locked(cut, now)
            return
        if not cut or not under_way:
            return
        written_at, suspicion = link.last_written, self._suspicion
        if suspicion is None:
            suspicion = self._suspicion = Suspicion()
        elif not link.congested:  # heartbeats are written, too
            written_at = suspicion.written_at
        unheard_of = [publication for publication in under_way if publication.size > max(self.largest, SMALL_BYTES)]
        likely = max(unheard_of, key=lambda publication: publication.size, default=None)
        soon, alone = now - written_at <= SOON_S, not (self._urgent.waiting or self._ordinary.waiting)
        guilty = suspicion.ended(under_way, soon=soon, likely=likely, alone=alone)
        if guilty is not None:
            self._inflight.clear()
            self._taken_at = 0
            self._refuse_locked(guilty, self._condemn_locked(guilty.topic, guilty.size, cut, now))
            self._refuse_banned_locked(cut, now)

    def _condemn_locked(self, topic: str, size: int, cut: str, now: float) -> PublishRefused:
        """A message is given up because of its size, or else its topic; returns the error that says so."""
        self._suspicion = self._suspicion or Suspicion()
        self._suspicion.bans.condemn(topic, size, self.largest, now)
        return self._error_of_cut(topic, size, cut, by_size=size > max(self.largest, SMALL_BYTES))

    def _refuse_banned_locked(self, cut: str, now: float) -> None:
        """Those that wait and are like one that was given up are not tried."""
        suspicion = self._suspicion
        if suspicion is None:
            return
        for publication in (*self._urgent.waiting, *self._ordinary.waiting):
            limit = suspicion.bans.has(publication.topic, publication.size, now)
            if limit is not None:
                publication.lane.waiting.remove(publication)
                suspicion.forget(publication)
                error = self._error_of_cut(publication.topic, publication.size, cut, by_size=bool(limit))
                self._refuse_locked(publication, error)

    def _error_of_cut(self, topic: str, size: int, cut: str, *, by_size: bool) -> PublishRefused:
        said = f" and says {cut.removeprefix(_SAID)!r}" if cut.startswith(_SAID) else ""
        why = f"it closes the connection{said} each time this is sent ({STRIKES} times)"
        if not by_size:
            return PublishRefused(topic, size, f"{why}, and takes others")
        advice = (
            f"The largest that has passed had {self.largest:,} bytes. Send it in parts, or raise the broker's limit."
        )
        return TooLargeForBroker(topic, size, why, advice=advice)

    @property
    def cut_bytes(self) -> int:
        """The broker closes the connection at messages of this size and above, as far as is known; 0: at none."""
        suspicion = self._suspicion
        return 0 if suspicion is None else suspicion.bans.limit(monotonic())

    def look(self) -> None:
        """Twice a second: a message that was held back may be tried now."""
        if self._suspicion is not None:
            self.send_left()

    def send_left(self) -> None:
        """Write what publishers have left; called by the network thread."""
        with self.lock:
            if self._link is not None:
                self._fill_locked(self._link)
        if self._due:
            self.run_callbacks()

    def _settled_locked(self, publication: Publication, outcome: int | Exception) -> None:
        lane = publication.lane
        lane.count -= 1
        lane.size -= publication.size
        publication.settle_locked(outcome)
        # Called once, and forgotten: they hold who waits for the receipt, who holds the receipt.
        if publication.callback is not None:
            self._due.append(publication.callback)
            publication.callback = None
        if publication.afterwards is not None:
            self._due.append(publication.afterwards)
            publication.afterwards = None

    def run_callbacks(self) -> None:
        """Call the callbacks of settled receipts, without the lock. Called after everything that may settle one."""
        while self._due:
            with self.lock:
                due, self._due = self._due, []
            for callback in due:
                callback()

    def _fill_locked(self, link: SendLink, ahead: Lane | None = None) -> None:
        """Send waiting messages as far as the window allows.

        Small packets are collected and written together, because each write costs a system call and gives the
        interpreter lock away; a bundle ends after 64 packets. A large payload (`LARGE_BYTES`) is written by itself,
        after the bundle before it, so that it is not copied. A message counts as in flight before its bytes are
        written: where the connection breaks in between, `attach` sends it again. Nothing is added to what the socket
        has not taken: a message that waits here is not copied, and an urgent one still goes before it. (Except for
        `ahead`, a lane whose messages have to leave before one at QoS 0 does.)
        """
        self.left = False
        window = self._window
        if self._suspicion is not None:
            if self._suspicion.has_suspects:
                self._fill_carefully_locked(link, self._suspicion)
                return
            window = self._careful_window_locked(self._suspicion)
        small: list[bytes] = []
        first, then = self._urgent.waiting, self._ordinary.waiting
        try:
            while (first or then) and len(self._inflight) < window:
                if link.congested and not (ahead is not None and ahead.waiting):
                    self.left = True  # the network thread goes on when the socket has taken the rest
                    break
                publication = (first or then).popleft()
                packet_id = self._next_id_locked()
                self._inflight[packet_id] = publication
                start = publication.head + packet_id.to_bytes(2, "big") + publication.section
                if len(publication.payload) < LARGE_BYTES:
                    small.append(start + publication.payload)
                    if len(small) < 64 and (first or then):
                        continue  # the bundle grows; where the window ends the loop, it is written below
                if small:
                    link.send_locked(b"".join(small) if len(small) > 1 else small[0])
                    small.clear()
                if len(publication.payload) >= LARGE_BYTES:
                    link.send_locked(start)
                    link.send_locked(publication.payload)
            if small:
                link.send_locked(b"".join(small))
        except LinkDown:
            pass  # the network thread notices the loss itself
        except BaseException:
            # An exception of a signal handler (Ctrl-C) may come between two writes, or between a write and its
            # bookkeeping. What has left is then unknown; the next connection sends everything again.
            link.fail(_INTERRUPTED)
            raise

    def _careful_window_locked(self, suspicion: Suspicion[Publication]) -> int:
        """How many messages may be under way now. What the broker has not answered within `_HELD_S` is no reason for a
        cut, and holds nothing back: its answer may be lost."""
        now, under_way = monotonic(), len(self._inflight)
        window = min(self._window, suspicion.window)
        if under_way >= window and now - suspicion.written_at >= _HELD_S:
            window = min(self._window, under_way + 1)
        if under_way < window:
            suspicion.written_at = now
        else:
            self.left = True  # the network thread looks again, at its next tick at the latest
        return window

    def _fill_carefully_locked(self, link: SendLink, suspicion: Suspicion[Publication]) -> None:
        """Send one message, where none is under way: then an end of the connection says something about it. One that
        the broker has not answered within `_HELD_S` is no reason for a cut, and the others go on without its answer."""
        now = monotonic()
        waits = bool(self._inflight) and now - suspicion.written_at < _HELD_S
        if waits or (place := self._next_locked(suspicion, now)) is None:
            self.left = True  # the network thread looks again, at its next tick at the latest
            return
        urgent = self._urgent.waiting
        waiting, at = (urgent, place) if place < len(urgent) else (self._ordinary.waiting, place - len(urgent))
        publication = waiting[at]
        del waiting[at]
        self._taken_at = at
        packet_id = self._next_id_locked()
        self._inflight[packet_id] = publication
        suspicion.written_at = now
        try:
            link.send_locked(publication.head + packet_id.to_bytes(2, "big") + publication.section)
            if publication.payload:
                link.send_locked(publication.payload)
        except LinkDown:
            pass
        except BaseException:
            link.fail(_INTERRUPTED)
            raise

    def _next_locked(self, suspicion: Suspicion[Publication], now: float) -> int | None:
        """The place of the next message to be sent, in the urgent lane followed by the other one. One that the next cut
        would condemn lets others go first, which show whether the broker takes anything; those of its own topic stay
        behind it, and so do larger ones, which may be condemned for the same reason."""
        suspects: dict[int, Publication] = {}
        behind: list[tuple[bool, int, int]] = []
        for place, publication in enumerate((*self._urgent.waiting, *self._ordinary.waiting)):
            of_same_topic = any(publication.topic == other.topic for other in suspects.values())
            if of_same_topic or any(publication.size >= other.size for other in suspects.values()):
                if not suspicion.is_suspect(publication):
                    behind.append((of_same_topic, publication.size, place))
            elif suspicion.may_try(publication):
                return place
            else:
                suspects[place] = publication
        if not suspects or not suspicion.has_held(now):
            return None
        # Nobody may go first. Then one of those behind has to, or else the suspects, in turn.
        return min(behind)[-1] if behind else list(suspects)[suspicion.turn(len(suspects))]

    def _next_id_locked(self) -> int:
        """The next packet id, from 1 to 65,535 and round again, that is not in use."""
        while True:
            self._last_id = self._last_id % 65535 + 1
            if self._last_id not in self._inflight and self._last_id not in self._reserved:
                return self._last_id

    def reserve_id(self) -> int:
        """A packet id for a SUBSCRIBE or UNSUBSCRIBE, distinct from all in use."""
        with self.lock:
            packet_id = self._next_id_locked()
            self._reserved.add(packet_id)
            return packet_id

    def release_id(self, packet_id: int) -> None:
        """The SUBSCRIBE or UNSUBSCRIBE was answered."""
        with self.lock:
            self._reserved.discard(packet_id)

    def _keep_locked(self, link: SendLink, lane: Lane, topic: str, payload_bytes: int) -> Publication:
        """The receipt of a QoS 0 message that the socket did not take whole. The connection keeps the rest of its
        bytes; an empty packet behind them, whose owner is the receipt, tells when they are written."""
        publication = Publication(self.lock, lane, topic, b"", b"", b"")
        publication.size += payload_bytes
        lane.add(publication.size)
        link.send_locked(b"", publication)
        return publication

    def written_locked(self, publication: Publication) -> None:
        """A QoS 0 message that had to wait was written to the socket."""
        self._settled_locked(publication, 0)
        self.tell_locked()

    def lost_locked(self, publication: Publication) -> None:
        """A QoS 0 message was still unwritten when the connection was lost."""
        self.dropped += 1
        error = TransportError(f"the QoS 0 message to {publication.topic!r} was dropped: connection lost")
        self._settled_locked(publication, error)

    # the end

    def close(self) -> None:
        """Accept no more messages."""
        with self.lock:
            self._closed = True
            self._changed.notify_all()

    @property
    def unsettled(self) -> int:
        """How many messages the broker has not acknowledged, and how many places are reserved."""
        return self._urgent.count + self._ordinary.count

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is settled; False where the connection ended before, or the time, or where the broker
        settles nothing for `_STILL_S` seconds."""
        deadline = monotonic() + timeout_s
        with self.lock:
            self._draining = True
            left, still_until = self.unsettled, monotonic() + _STILL_S
            while left and self._link is not None:
                remaining = min(deadline, still_until) - monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
                if self.unsettled < left:
                    still_until = monotonic() + _STILL_S
                left = self.unsettled
            self._draining = False
            return not left

    def drop_waiting(self) -> int:
        """Settle with an error what is not urgent and was not sent yet; returns how many messages that were. What is
        published after this finds an empty queue."""
        with self.lock:
            waiting = self._ordinary.waiting
            dropped = list(waiting)
            waiting.clear()
            for publication in dropped:
                if self._suspicion is not None:
                    self._suspicion.forget(publication)
                why = f"the message to {publication.topic!r} was dropped: the broker did not take it in time"
                self._settled_locked(publication, TransportError(why))
            self.tell_locked()
        self.run_callbacks()
        return len(dropped)

    def give_up(self) -> int:
        """Settle everything that is left with `TransportClosed`; returns how many messages that were."""
        with self.lock:
            unsettled = self._take_all_locked()
            for publication in unsettled:
                error = TransportClosed(f"closed before the broker acknowledged the message to {publication.topic!r}")
                self._settled_locked(publication, error)
        self.run_callbacks()
        return len(unsettled)
