"""What a connection to a broker promises, whichever engine provides it.

A `Transport` moves bytes: topics, bodies and (MQTT 5) packed property sections. It knows nothing of Ether's messages.
Messages and changes of the connection are put into one queue, in the order of their arrival, and the owner takes them
out with `receive()` on a thread of its own. With `offer_to()` it can take messages earlier, by only enqueueing them. So
no user code runs on an engine's network thread, where an exception would end the thread silently and a wait for an
answer would never end.

Promises, checked for every engine by one contract suite:
- `connect()` returns connected, or raises; `subscribe()` returns when the broker has confirmed.
- After a lost connection the transport reconnects by itself with capped, jittered back-off, restores every
  subscription, waits for the confirmations, and only then reports `ConnectionUp`. A confirmation that does not come
  means that the connection is deaf: it is dropped, and another one is made.
- A QoS 1 message that `publish()` accepted is sent again after a reconnect until the broker acknowledges it,
  for as long as this process lives. It may then arrive twice; it is never dropped silently.
- A message that the broker will never take is told twice: by its receipt, and as a `Refusal` from `receive()`. That is
  one that it refuses (MQTT 5), and one at which it closes the connection each time.
- Queues are bounded in both directions: `publish()` waits for room, then raises. An owner that falls behind
  (`consumed()`) delays the acknowledgements of QoS 1 messages, so that the broker holds the rest back.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ether.errors import PayloadTooLarge, PublishRefused


class ProtocolVersion(enum.Enum):
    """The two versions of MQTT that Ether speaks."""

    V311 = "3.1.1"
    V5 = "5"


@dataclass(frozen=True, slots=True)
class Will:
    """The message that the broker publishes when this connection breaks. QoS 1, retained or not."""

    topic: str
    payload: bytes
    retain: bool = True
    properties: bytes = b""


class Delivery(NamedTuple):
    """A message as it came from the broker.

    `properties` is the MQTT 5 property section without its length prefix (see `ether.wire.head`), empty
    over 3.1.1. `retained` is true only for a message that the broker had stored before the subscription, and where
    `Transport.subscribe` was called with `as_published`.
    """

    topic: str
    payload: bytes
    qos: int
    retained: bool
    properties: bytes = b""


@dataclass(frozen=True, slots=True)
class ConnectionUp:
    """Connected again after a loss, every subscription confirmed."""


@dataclass(frozen=True, slots=True)
class ConnectionDown:
    """The connection was lost; the transport is already trying again. `reason` is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of this side that the broker will never take. Body and properties are as it was published, both empty
    for one of QoS 0."""

    topic: str
    payload: bytes
    properties: bytes
    error: PublishRefused | PayloadTooLarge
    receipt: Receipt


class Receipt(ABC):
    """The outcome of one publish."""

    __slots__ = ()

    @property
    @abstractmethod
    def done(self) -> bool:
        """True once the broker has acknowledged (QoS 1), or the bytes were written to the socket (QoS 0)."""

    @property
    @abstractmethod
    def no_subscribers(self) -> bool:
        """True where the broker acknowledged and said that the topic has no subscriber (MQTT 5 reason code 0x10)."""

    @property
    @abstractmethod
    def error(self) -> Exception | None:
        """Why the broker will not have the message; None while that is open, and where it has it."""

    @property
    @abstractmethod
    def watched(self) -> bool:
        """Whether somebody has asked to be called (`when_done`), and so knows of a refusal."""

    @abstractmethod
    def when_done(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the outcome is known, good or bad; at once where it is known already. One callback for
        each receipt. It runs on the network thread or the calling one, with no lock held, and must return at once
        without raising."""

    def when_settled(self, callback: Callable[[], object]) -> None:
        """As `when_done`, beside it, for whoever needs to know that it is over and not how: a refusal is reported as if
        nobody had asked."""
        self.when_done(callback)

    @abstractmethod
    def wait(self, timeout_s: float) -> None:
        """Return when done; raise `PublishTimeout` after `timeout_s` seconds, `TransportError` where the
        broker refused the message, `TransportClosed` where the transport was closed before."""


Item = Delivery | ConnectionUp | ConnectionDown | Refusal
"""What comes out of `Transport.receive()`."""


class Room(ABC):
    """A place in the outgoing queue for one message, made by `Transport.room()`. It is empty until `wait()` returns.

    It lets a publisher wait before it takes a lock of its own, and publish under that lock without waiting."""

    __slots__ = ()

    @abstractmethod
    def wait(self, timeout_s: float) -> None:
        """Return when the place is reserved. Publishers that wait get their places in the order of their waits. Raises
        `PublishTimeout` after `timeout_s` seconds, and `TransportClosed`."""

    @abstractmethod
    def release(self) -> None:
        """Give the place back, unless a message has taken it. May be called in any state, and more than once."""


class Transport(ABC):
    """One connection to one broker. Every method may be called from any thread, but not from a signal
    handler, which may have interrupted the very thread that holds a lock."""

    @property
    @abstractmethod
    def version(self) -> ProtocolVersion:
        """The version that was agreed on; valid after `connect()`."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """True while connected with every subscription confirmed."""

    @property
    @abstractmethod
    def max_packet_bytes(self) -> int:
        """The largest message (topic, properties and payload together) that the broker takes, as it has announced."""

    @property
    def passing_bytes(self) -> int:
        """The same, or less where the broker has closed the connection at smaller ones."""
        return self.max_packet_bytes

    @property
    def tells_size(self) -> bool:
        """Whether a message that is too large is refused in words. False over 3.1.1, where the limit was not given:
        such a message then ends the connection, or vanishes."""
        return True

    @abstractmethod
    def connect(self, timeout_s: float) -> None:
        """Connect, once. Raises `BrokerUnreachable` or `NotAuthorized`."""

    @abstractmethod
    def close(self, timeout_s: float = 1.0) -> None:
        """Wait up to `timeout_s` for outstanding acknowledgements, but not longer than a second for a broker that gives
        none; send DISCONNECT (so that no will is published), end every thread. What was not acknowledged is counted in
        a warning. Wakes `receive()`. May be called twice."""

    @abstractmethod
    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: bytes = b"",
        timeout_s: float = 10.0,
        room: Room | None = None,
        urgent: bool = False,
    ) -> Receipt:
        """Accept a message into the bounded outgoing queue. Raises `PublishTimeout` if there is no room for
        `timeout_s` seconds, `PayloadTooLarge`, `TransportClosed`, and `UnsupportedFeature` for properties over 3.1.1.
        While disconnected, QoS 1 waits in the queue, and QoS 0 is dropped and counted in `dropped`.

        With `timeout_s=0` it never waits: where there is no room it raises at once. A message that is given a reserved
        `room` takes that place, and does not wait either.

        Where messages have to wait for the broker, `urgent` ones go first. Order is kept among them, and among the
        others; each kind has room of its own."""

    @abstractmethod
    def room(self, topic: str, size: int, *, urgent: bool = False) -> Room:
        """Room for a message of about `size` bytes, not reserved yet. `topic` is for the errors."""

    @abstractmethod
    def subscribe(
        self, topic_filters: Sequence[str], *, qos: int = 1, timeout_s: float = 5.0, as_published: bool = False,
        counted: bool = False,
    ) -> None:  # fmt: skip
        """Subscribe and wait for the broker's confirmation; raises `SubscribeRefused`. Remembered: it is
        restored after every reconnect. Repeating a filter is allowed (retained messages come again). With
        `as_published`, `Delivery.retained` is true also for a message that is being published with the retain flag
        (MQTT 5 Retain As Published; over 3.1.1 no broker says so). `counted`: of the copies that the broker sends for
        several filters with that option, one counts (`is_surplus`)."""

    def is_surplus(self, delivery: Delivery) -> bool:
        """Whether this is one of several copies of a message, and another one counts. The owner says `consumed`, and
        ignores it."""
        return False

    @abstractmethod
    def unsubscribe(self, topic_filters: Sequence[str], *, timeout_s: float = 5.0) -> None:
        """Unsubscribe and wait for the confirmation."""

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> Item | None:
        """The next item that arrived, in order. None after `timeout_s` seconds without one (0: do not wait; None: wait
        for ever), and, once everything was taken out, when the transport was closed."""

    @abstractmethod
    def offer_to(self, sink: Callable[[Delivery], bool]) -> None:
        """Offer each delivery to `sink` first, on the network thread; one that it takes (True) does not come out of
        `receive()`. This saves a change of threads, which is most of what a small message costs.

        The sink may only enqueue: it must not wait, publish, or run user code. An engine without a network thread
        ignores it. Set it before subscribing, or earlier deliveries may be overtaken.
        """

    @abstractmethod
    def consumed(self, delivery: Delivery) -> None:
        """The owner has finished with a delivery. Until then it counts as unread, wherever in this process it is
        queued, and unread messages delay the acknowledgements. Every delivery has to be consumed once, on any thread;
        too many that never are, and the broker stops sending."""

    @abstractmethod
    def finish(self, timeout_s: float) -> int:
        """Wait for outstanding acknowledgements as `close` does, then drop what is not urgent and could not be sent.
        Returns how many messages were dropped. The connection stays, and what is published next leaves at once. Without
        a connection nothing happens."""

    @property
    @abstractmethod
    def unsettled(self) -> int:
        """How many messages were accepted that the broker has not acknowledged."""

    @property
    @abstractmethod
    def window(self) -> int:
        """How many QoS 1 messages the broker lets a client have under way at a time; valid after `connect()`."""

    @abstractmethod
    def when_long(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time when so many messages are unread that acknowledgements are held back from then on.
        On the network thread: it may only enqueue. An engine without a network thread ignores it."""

    @abstractmethod
    def widen(self, wide: bool) -> None:
        """Let the broker deliver more before acknowledgements are held back, or (`wide` False) as much as at first: so
        that what it has queued is out of the way of other messages. For an owner whose subscriptions have ended."""

    @abstractmethod
    def unread_total(self) -> tuple[int, int]:
        """How many messages were received and are not consumed, and their bytes. Cheap: it may be asked for each
        message."""

    @abstractmethod
    def unread(self) -> tuple[dict[str, int], int]:
        """How many messages of each topic were received and are not consumed, and the bytes of all of them."""

    @property
    @abstractmethod
    def dropped(self) -> int:
        """QoS 0 messages that this side dropped so far, in either direction (no connection, or no room)."""
