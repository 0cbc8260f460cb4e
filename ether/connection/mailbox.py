"""The messages that wait for a subscriber that does not want all of them (`keep`, `max_age`).

`ether.connection.keep_rules` decides which are handled. Promise: a message that is skipped is done with at once, so it
never counts as unread and slows nobody down; it is counted, and never logged by itself.

The trap: messages arrive on the transport's thread, where code may only enqueue. What is skipped there is told to the
transport after the lock was dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence

from ether.config.keep import Keep
from ether.connection.inbound import Inbound
from ether.connection.keep_rules import Skipped, WaitingMessages
from ether.protocol.message_age import MessageAges

Key = Hashable
"""The row that a message waits in."""


class Mailbox:
    """What waits of one subscription. Every method may be called from any thread."""

    def __init__(
        self, keep: Keep, ages: MessageAges, on_skip: Callable[[Inbound], object] = lambda inbound: None
    ) -> None:
        """`ages` may be shared by several. `on_skip` is called with each message that is skipped; like `put`, on any
        thread, so it may only note it."""
        self._by_source = keep.newest is not None
        self._ages, self._on_skip = ages, on_skip
        self._lock = threading.Lock()
        self._waiting: WaitingMessages[Inbound] = WaitingMessages(keep)

    @property
    def keep(self) -> Keep:
        """What the subscriber wants."""
        return self._waiting.keep

    @property
    def skipped(self) -> Skipped:
        """How many messages were skipped so far."""
        return self._waiting.skipped

    @property
    def idle_turns(self) -> int:
        """Turns in the worker's queue that will find nothing."""
        with self._lock:
            return self._waiting.idle_turns

    def put(self, inbound: Inbound) -> tuple[Key] | None:
        """Take a message in. Returns the row, in a tuple, where one more turn is to be queued for it; else None."""
        now = time.monotonic()
        headers, topic = inbound.headers(), inbound.delivery.topic
        if headers is None:  # a foreign message has no time: it is as old as its arrival
            source, sent = "", now
        else:
            source, sent = headers.source, now - self._ages.note(topic, headers, now)
        key = (topic, source) if self._by_source else None
        with self._lock:
            skipped, ask = self._waiting.put(key, inbound, sent, now)
        self._skip(skipped)
        return (key,) if ask else None

    def take(self, key: Key) -> Inbound | None:
        """The turn of a row has come: the message to handle, None where none is left."""
        with self._lock:
            inbound, skipped = self._waiting.take(key, time.monotonic())
        self._skip(skipped)
        return inbound

    def close(self) -> None:
        """Drop what waits."""
        with self._lock:
            left = self._waiting.clear()
        for inbound in left:
            inbound.done()

    def _skip(self, skipped: Sequence[Inbound]) -> None:
        for inbound in skipped:
            self._on_skip(inbound)
            inbound.done()
