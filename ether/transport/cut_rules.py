"""Which message makes the broker close the connection each time it is sent.

A broker of MQTT 3.1.1 cannot refuse a message in words, so it closes the connection. QoS 1 sends the message again on
the next one, and nothing else gets through. A message that has ended `STRIKES` connections is therefore given up.

The danger is the opposite mistake. A broker that is restarted, and a network that fails, end connections, too, and no
message may be given up for that. A strike counts only where all of this holds:

- The broker has closed the connection. Silence says nothing about a message.
- The message was the only one under way. After the first cut, messages are sent one at a time; the number grows again
  with every acknowledgement. (The first strike may also go to the one among several that is larger than any before.)
- The connection ended within `SOON_S` of the message's last byte.
- Before the last strike another message was acknowledged on the same connection. Only where no other waits, it is
  enough that the connection has held for `HOLD_S` without this one.

So a broker that closes every connection, or that happens to be restarted three times, is never blamed on a message. An
acknowledgement clears a message's strikes, and so does a connection that held for longer with the message under way.

Not locked; `now` is in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

STRIKES = 3
SOON_S = 1.0
HOLD_S = 1.0
BAN_S = 300.0
"""So long a topic, or a size, at which the broker closes the connection is not tried again."""

SMALL_BYTES = 16_000
"""No broker is known that takes less (rumqttd: 20 kB): below it, the size of a message is no reason for a cut."""

Message = TypeVar("Message", bound=Hashable)


class Bans:
    """What is not sent for a while, because the broker has closed connections at it: some topics, and messages from a
    size on. Whether the topic or the size of a message was the reason shows when another one passes, or does not."""

    def __init__(self) -> None:
        self._topics: dict[str, tuple[int, float]] = {}
        """For each topic the size from which on messages are not sent there, and until when."""
        self._limit: tuple[int, float] | None = None
        """The same for all topics."""

    def condemn(self, topic: str, size: int, largest: int, now: float) -> None:
        """A message was given up. `largest` is the size of the largest message that has ever passed."""
        if not self.limit(now):
            self._limit = None
        until = now + BAN_S
        if size <= max(largest, SMALL_BYTES):
            self._topics[topic] = 0, until
            return
        self._topics[topic] = min(size, self._topics.get(topic, (size, 0.0))[0]), until
        sizes = sorted(known for known, end in self._topics.values() if known and end > now)
        if len(sizes) > 1:  # large ones on several topics: it is the size, unless one of the topics is bad besides
            self._lower_limit(sizes[1], until)

    def passed(self, topic: str, size: int, now: float) -> None:
        """The broker has taken a message."""
        for name, (known, until) in list(self._topics.items()):
            if known and name == topic and size < known:
                self._lower_limit(known, until)
            elif known and name != topic and size >= known:
                self._topics[name] = 0, until

    def _lower_limit(self, size: int, until: float) -> None:
        self._limit = (size if self._limit is None else min(size, self._limit[0])), until

    def has(self, topic: str, size: int, now: float) -> int | None:
        """Whether such a message is not sent at present: the size from which on that is so, 0 where it is the topic;
        None for one that is sent."""
        known, until = self._topics.get(topic, (0, 0.0))
        if until > now and size >= known:
            return known
        limit = self.limit(now)
        return limit if limit and size >= limit else None

    def limit(self, now: float) -> int:
        """The size at which the broker closes the connection, on every topic; 0 where none is known."""
        return self._limit[0] if self._limit is not None and self._limit[1] > now else 0

    def expire(self, now: float) -> bool:
        """Forget what was long ago, as it may have been mended; returns whether anything is left."""
        if self._topics:
            self._topics = {name: ban for name, ban in self._topics.items() if ban[1] > now}
        return bool(self._topics) or bool(self.limit(now))


class Suspicion(Generic[Message]):
    """What is known since the broker has closed a connection with messages under way."""

    def __init__(self) -> None:
        self.window = 1
        """How many messages may be under way."""
        self.written_at = 0.0
        """When messages were last written."""
        self.bans = Bans()
        self._strikes: dict[Message, int] = {}
        self._began = 0.0
        self._proven = False
        self._trials = 0

    def begin(self, now: float) -> None:
        """A new connection is up."""
        self._began, self._proven, self.window = now, False, 1

    @property
    def has_suspects(self) -> bool:
        """Whether a message has a strike."""
        return bool(self._strikes)

    def is_suspect(self, message: Message) -> bool:
        """Whether this message has a strike."""
        return message in self._strikes

    def may_try(self, message: Message) -> bool:
        """Whether a message may be sent now, alone. One that the next strike condemns waits for its control: another
        message that is acknowledged."""
        return self._proven or self._strikes.get(message, 0) < STRIKES - 1

    def has_held(self, now: float) -> bool:
        """Whether the connection has held for long enough to be a control, where no other message waits."""
        return now - self._began >= HOLD_S

    def passed(self, message: Message) -> None:
        """The broker has answered a message, in whatever words."""
        self._strikes.pop(message, None)
        self._proven = True
        if not self._strikes:
            self.window = min(self.window * 2, 65_535)

    def ended(
        self, under_way: Sequence[Message], *, soon: bool, likely: Message | None = None, alone: bool = False
    ) -> Message | None:
        """The broker has closed the connection, with these messages under way; `soon` after the last one was written.
        `likely` is the one among several that may be the reason; `alone`: no other message waits. Returns the message
        that is to be given up."""
        self.window = 1
        if len(under_way) != 1:
            if soon and likely is not None:
                self._strikes.setdefault(likely, 1)
            return None
        [message] = under_way
        if not soon:
            self._strikes.pop(message, None)
            return None
        self._trials += 1
        controlled = self._proven or (alone and self.has_held(self.written_at))
        self._strikes[message] = min(self._strikes.get(message, 0) + 1, STRIKES if controlled else STRIKES - 1)
        if self._strikes[message] < STRIKES:
            return None
        del self._strikes[message]
        return message

    def turn(self, count: int) -> int:
        """Which of so many suspects is tried next, where there is no control."""
        return self._trials % count

    def forget(self, message: Message) -> None:
        """A message is not sent any more."""
        self._strikes.pop(message, None)

    def is_over(self, full_window: int, now: float) -> bool:
        """Whether everything is as it was before."""
        return not self._strikes and self.window >= full_window and not self.bans.expire(now)


class LargeWrites:
    """The same for large messages at QoS 0, of which no acknowledgement tells that they have passed. Only their size
    can be blamed."""

    def __init__(self) -> None:
        self._last: tuple[str, int, float] | None = None
        self._strikes: list[tuple[int, str]] = []

    def wrote(self, topic: str, size: int, now: float) -> int:
        """A large message was written. Returns the size of the one before, if the connection has held since; else 0."""
        before, self._last = self._last, (topic, size, now)
        if before is None or now - before[2] <= SOON_S:
            return 0
        self._strikes = [strike for strike in self._strikes if strike[0] > before[1]]
        return before[1]

    def ended(self, now: float, *, cut: bool, proven: bool, above: int) -> bool:
        """The connection has ended; True where the last of these messages is the likely reason: the broker has closed
        it soon after that message, which was larger than `above`. `proven`: another message was acknowledged before."""
        last, self._last = self._last, None
        if not cut or last is None or now - last[2] > SOON_S or last[1] <= above:
            return False
        if proven:
            self._strikes.append((last[1], last[0]))
        return True

    def condemned(self) -> tuple[int, str] | None:
        """Size and topic of the smallest of these messages, once there are enough strikes; then they begin anew."""
        if len(self._strikes) < STRIKES:
            return None
        smallest, self._strikes = min(self._strikes), []
        return smallest
