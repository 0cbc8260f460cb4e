"""What has arrived and is not consumed yet: one bounded queue, and the decision when to acknowledge.

QoS 1: acknowledgements go out at once while the queue is short. Above the high-water mark they are withheld: the
broker's in-flight window fills, and the broker holds the rest back. Below the low-water mark they are sent. So what is
acknowledged and not consumed never passes the high-water mark, and the queue holds one window more at most, if the
broker keeps to it (Mosquitto 2.0.11 does not: docs/brokers.md). QoS 0 has no such brake: beyond a hard bound it is
dropped, counted, and logged once for each burst.

The trap: the reader and the network thread decide about acknowledgements at the same time. Each of them first records
its own change (the count, or `_holding`), then looks at the other's. So at least one of the two sees both changes, and
withheld acknowledgements cannot be forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock

from ether.transport.base import ConnectionDown, ConnectionUp, Delivery, Item, Refusal

HIGH_COUNT, LOW_COUNT = 1_000, 500
HIGH_BYTES, LOW_BYTES = 16 << 20, 8 << 20
WIDE_COUNT, WIDE_BYTES = 10, 2
"""How many times as much is taken in while the broker is to get rid of what it has for this client. A message costs
about 3 kB besides its payload, with its headers and its job: 10,000 messages and 32 MiB are 60 MB at most."""
HARD_COUNT, HARD_BYTES = HIGH_COUNT * WIDE_COUNT, HIGH_BYTES * WIDE_BYTES  # QoS 0 only

logger = logging.getLogger("Ether.transport")


class ReceiveQueue:
    """Filled by one network thread, emptied by any number of readers."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._count = self._bytes = 0  # of messages that arrived and are not consumed
        self._topics: dict[str, int] = {}  # the same count for each topic
        self._counting = Lock()
        self._dropping = False
        self.dropped = 0
        self.sink: Callable[[Delivery], bool] | None = None
        self._count_factor = self._bytes_factor = 1
        self.on_long: Callable[[], object] | None = None
        # Acknowledgements: `_withheld` and the right to send them belong to `_ack_lock`.
        self._ack_lock = Lock()
        self._withheld: list[bytes] = []
        self._holding = False
        self._send_acks: Callable[[list[bytes]], None] | None = None

    # the reader's side

    def get(self, timeout_s: float | None) -> Item | None:
        """The oldest item; None after `timeout_s` seconds (None: never), or when closed and empty."""
        try:
            item = self._items.get(timeout_s != 0, timeout_s)
        except Empty:
            return None
        if item is None:
            self._items.put(None)  # the end stays the end, for every reader
        return item

    def consumed(self, delivery: Delivery) -> None:
        """The owner has finished with a message, which makes room for another."""
        topic = delivery.topic
        with self._counting:
            self._count -= 1
            self._bytes -= len(delivery.payload)
            if left := self._topics.get(topic, 1) - 1:
                self._topics[topic] = left
            else:
                self._topics.pop(topic, None)
        if self._holding and self._short:
            self._release()

    @property
    def total(self) -> tuple[int, int]:
        """How many messages arrived and are not consumed, and their bytes; without a lock, so a moment old."""
        return self._count, self._bytes

    def unread(self) -> tuple[dict[str, int], int]:
        """How many messages of each topic arrived and are not consumed, and the bytes of all of them."""
        with self._counting:
            return dict(self._topics), self._bytes

    # the network thread's side

    def put(self, item: ConnectionUp | ConnectionDown | Refusal) -> None:
        """Enqueue a change of the connection, or a refusal; never dropped."""
        self._items.put(item)

    def put_deliveries(self, deliveries: list[Delivery], packet_ids: list[bytes]) -> None:
        """Enqueue messages, in order, and acknowledge the QoS 1 ones among them (`packet_ids`), now or when the reader
        has caught up. QoS 0 beyond the hard bound is dropped.

        The order of the three steps matters. Counting comes first, so that the decision about acknowledgements sees
        these messages. Acknowledging comes before the messages are handed out: handing out wakes the readers, and
        whatever this thread does after that competes with them for the interpreter lock.
        """
        size = sum([len(delivery.payload) for delivery in deliveries])
        with self._counting:
            if self._count >= HARD_COUNT or self._bytes >= HARD_BYTES:
                deliveries = self._without_qos0(deliveries)
                size = sum([len(delivery.payload) for delivery in deliveries])
            elif self._dropping and self._short:
                self._dropping = False
            self._count += len(deliveries)
            self._bytes += size
            topics = self._topics
            for delivery in deliveries:
                topics[delivery.topic] = topics.get(delivery.topic, 0) + 1
        if packet_ids:
            self._acknowledge(packet_ids)
        sink = self.sink
        for delivery in deliveries:
            if sink is None or not sink(delivery):
                self._items.put(delivery)

    def _without_qos0(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """The QoS 1 messages; the others count as dropped."""
        kept = [delivery for delivery in deliveries if delivery.qos]
        self.dropped += len(deliveries) - len(kept)
        if not self._dropping and len(kept) < len(deliveries):
            self._dropping = True
            logger.warning("the reader is %d messages behind: dropping QoS 0 messages", self._count)
        return kept

    @property
    def _short(self) -> bool:
        return self._count < LOW_COUNT * self._count_factor and self._bytes < LOW_BYTES * self._bytes_factor

    @property
    def _long(self) -> bool:
        return self._count >= HIGH_COUNT * self._count_factor or self._bytes >= HIGH_BYTES * self._bytes_factor

    def widen(self, wide: bool) -> None:
        """Take in more before acknowledgements are withheld, or (`wide` False) as much as before."""
        self._count_factor, self._bytes_factor = (WIDE_COUNT, WIDE_BYTES) if wide else (1, 1)
        if self._holding and self._short:
            self._release()

    # acknowledgements

    def begin_acks(self, send: Callable[[list[bytes]], None]) -> None:
        """A new connection begins. Acknowledgements withheld on an earlier one are void: the broker sends those
        messages again."""
        with self._ack_lock:
            self._withheld.clear()
            self._holding, self._send_acks = False, send

    def end_acks(self) -> None:
        """The connection was lost: no acknowledgement can be sent on it any more."""
        with self._ack_lock:
            self._withheld.clear()
            self._holding, self._send_acks = False, None

    def _acknowledge(self, packet_ids: list[bytes]) -> None:
        with self._ack_lock:
            self._withheld += packet_ids
            if not self._holding and self._long:
                self._holding = True
                if self.on_long is not None:
                    self.on_long()
            # The reader may have emptied the queue just now, and read `_holding` before it was set here.
            if self._holding and self._short:
                self._holding = False
            if not self._holding:
                self._flush()

    def _release(self) -> None:
        with self._ack_lock:
            self._holding = False
            self._flush()

    def _flush(self) -> None:
        if self._send_acks is not None and self._withheld:
            packet_ids, self._withheld = self._withheld, []
            self._send_acks(packet_ids)

    def close(self) -> None:
        """End the queue: every reader gets None once it is empty."""
        self._items.put(None)
