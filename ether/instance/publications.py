"""What an instance publishes: the topics of a method, and which of its values are worth a message.

Promises: `NOTHING` is never published. Where a method publishes only changes, a value is compared with the one that was
published last on the same topic, and one whose publication failed does not count as published. The first value after a
start is always published.

The trap: with a concurrency above 1 a method returns on several threads. The comparison and the note of the new value
are one step under a lock; the publishing itself happens outside of it.
"""

from __future__ import annotations

import threading

from ether.config.change import DeadBand
from ether.spec.change_rules import has_changed, snapshot
from ether.spec.marks import Mark
from ether.spec.nothing import NOTHING

_NEVER = object()
"""Stands for the value published last while there is none."""


class PublishedTopic:
    """One topic on which a method publishes."""

    __slots__ = ("_band", "_last", "_lock", "mark", "mqtt_topic")

    def __init__(self, mqtt_topic: str, mark: Mark) -> None:
        self.mqtt_topic, self.mark = mqtt_topic, mark
        self._band: DeadBand | None = mark.only_changes
        self._last: object = _NEVER
        self._lock = threading.Lock()

    def wants(self, value: object) -> bool:
        """Whether a value is worth a message. It counts as published from then on, until `forget()`."""
        return value is not NOTHING and (self._band is None or self._take(value, self._band))

    def forget(self) -> None:
        """The value could not be published: the next one is, whatever it is."""
        self._last = _NEVER

    def _take(self, value: object, band: DeadBand) -> bool:
        with self._lock:
            if self._last is not _NEVER and not has_changed(self._last, value, band):
                return False
            self._last = snapshot(value)
            return True
