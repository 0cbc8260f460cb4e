"""What a source sends next to one recorder, and when it sends it again.

Entries leave in order and are acknowledged by the highest number that the recorder has on disk, as TCP does it. A few
batches may be under way at a time: enough to keep a recorder busy, few enough that a slow one slows its sources down
to its pace. Whatever may have been lost (a connection, the recorder's process, a message) leads to the same thing:
sending goes on behind the last acknowledgement. Repetition is harmless, because entries are numbered.

Not locked; `now` in seconds of any steady clock.
"""

from __future__ import annotations

BATCHES = 4
"""Batches under way: one is being written, one waits, two are on their way."""

RESEND_S = 2.0
"""Silence after which all that is not acknowledged is sent again; a group commit takes 1 to 20 ms, a full disk is told
at once."""


class SendWindow:
    """One outbox, one recorder."""

    def __init__(self, acknowledged: int = 0) -> None:
        self.acknowledged = acknowledged
        """The highest number that the recorder has on disk, or does not need."""
        self._sent = acknowledged
        self._under_way: list[int] = []
        self._recorder: str | None = None
        self._connected = False
        self._heard = 0.0

    def recorder(self, incarnation: str | None, now: float) -> None:
        """A recorder of this birth is there (None: it has died). Another one has not seen what the last one did not
        acknowledge."""
        if incarnation != self._recorder:
            self._recorder = incarnation
            self._rewind(now)

    def connection(self, up: bool, now: float) -> None:
        """The connection came or went; what was under way may be lost."""
        if up != self._connected:
            self._connected = up
            self._rewind(now)

    def next(self, head: int) -> int | None:
        """The number from which to send now, up to `head`, the highest there is; None: nothing, or not now."""
        ready = self._connected and self._recorder is not None and len(self._under_way) < BATCHES
        return self._sent + 1 if ready and self._sent < head else None

    def sent(self, last: int, now: float) -> None:
        """A batch that ends with this number has left."""
        if not self._under_way:
            self._heard = now
        self._under_way.append(last)
        self._sent = last

    def receive(self, incarnation: str, upto: int, now: float) -> bool:
        """An acknowledgement. True where it is news. One from another birth than the recorder's is nothing."""
        if incarnation != self._recorder:
            return False
        self._heard = now
        news = upto > self.acknowledged
        self.acknowledged = max(self.acknowledged, upto)
        self._sent = max(self._sent, self.acknowledged)
        self._under_way = [last for last in self._under_way if last > self.acknowledged]
        return news

    def look(self, now: float) -> float | None:
        """Send again what was under way for too long. Seconds until the next look is due, None where none is."""
        if not self._under_way:
            return None
        left = self._heard + RESEND_S - now
        if left > 0:
            return left
        self._rewind(now)
        return None

    def _rewind(self, now: float) -> None:
        self._sent = self.acknowledged
        self._under_way = []
        self._heard = now
