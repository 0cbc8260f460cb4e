"""How large a message to a recorder may be: smaller than what this broker has refused.

Some brokers announce a limit (MQTT 5). Some refuse a message in words: then one that is too large costs nothing, and
the size is halved until it passes. A broker of MQTT 3.1.1 ends the connection at such a message, or drops it: there no
message is larger than `CAUTIOUS_BYTES`, which all brokers take.

Sizes are bytes of a message's body. Not locked; `now` is in seconds of a monotonic clock.
"""

from __future__ import annotations

SMALLEST_BYTES = 1_024
CAUTIOUS_BYTES = 16_000
"""rumqttd takes 20 kB."""

AROUND_BYTES = 2_048
"""What a message has beside its body: topic and headers."""

FORGET_S = 300.0
"""After so long a size that was refused is tried again: the broker's limit may have been raised."""


class MessageSize:
    """What is known of one broker."""

    def __init__(self) -> None:
        self._limit, self._tells = 1 << 62, True
        self._passed = self._refused = 0
        self._refused_at = 0.0

    def broker(self, limit: int, *, tells: bool) -> None:
        """What the broker takes in one message, as far as it is known. `tells`: it refuses larger ones in words."""
        self._limit, self._tells = limit, tells

    def largest(self, now: float) -> int:
        """The largest body to be sent."""
        largest = self._limit - AROUND_BYTES
        if not self._tells:
            largest = min(largest, CAUTIOUS_BYTES)
        if self._refused and now - self._refused_at < FORGET_S:
            largest = min(largest, max(self._refused // 2, self._passed))
        return max(SMALLEST_BYTES, largest)

    def passed(self, size: int) -> None:
        """The broker has acknowledged a message. That proves nothing where it may have dropped it all the same."""
        if self._tells and (size < self._refused or not self._refused):
            self._passed = max(self._passed, size)

    def refused(self, size: int, now: float) -> bool:
        """The broker has refused a message for its size; False where none is sent that is smaller."""
        if now - self._refused_at >= FORGET_S:
            self._refused = 0
        self._refused, self._refused_at = min(self._refused or size, size), now
        if self._passed >= size or not self._tells:
            self._passed = 0
        return size > SMALLEST_BYTES

    def forget_refusals(self) -> None:
        """It was not the size."""
        self._refused = 0
