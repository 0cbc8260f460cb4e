"""Which of the watched instances have been silent for too long. Decisions only: `now` is an argument.

Promise: an instance counts as gone `after_s` seconds after its last heartbeat, neither sooner nor later; nothing else
counts. The trap: for an instance that was never heard of, the time runs from the start. So a name that is misspelt
counts as gone, and the device is made safe.
"""

from __future__ import annotations

from collections.abc import Iterable


class SilenceTimers:
    """The last heartbeats of some instances, in seconds of a steady clock. Not locked: each change writes one entry of
    a dict."""

    def __init__(self, after_s: float, names: Iterable[str], now: float) -> None:
        self.after_s = after_s
        self._last = dict.fromkeys(names, now)

    def hear(self, name: str, now: float) -> None:
        """Note a heartbeat of an instance."""
        if name in self._last:
            self._last[name] = now

    def gone(self, now: float) -> tuple[str, ...]:
        """The instances that have been silent for `after_s`."""
        return tuple(name for name, last in self._last.items() if now - last >= self.after_s)

    def next_timeout_s(self, now: float) -> float:
        """Seconds until the next instance may count as gone."""
        left = [last + self.after_s - now for last in self._last.values() if now - last < self.after_s]
        return min(left, default=self.after_s)
