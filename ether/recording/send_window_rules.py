"""The send window of one outbox towards one recorder: what is sent next, and when it is sent again.

As in TCP, entries leave in order, and a receipt acknowledges every number up to the highest one that the recorder has
on disk. Two numbers describe the window:

    acknowledged ≤ sent       entries up to `acknowledged` are on disk; those up to `sent` have left

At most `BATCHES` batches are between the two: enough to keep a recorder busy, few enough that a slow recorder slows its
sources down to its pace. Whatever may have been lost (the connection, the recorder's process, a message) has one
answer, the rewind (go-back-N): `sent` goes back to `acknowledged`, and everything after it is sent again. That is
harmless, because a recorder ignores numbers that it has.

Not locked; `now` is in seconds of a monotonic clock.
"""

from __future__ import annotations

BATCHES = 4
"""The most batches under way: one is being written, one waits, two are in the network."""

RESEND_S = 2.0
"""After so long without a receipt everything that is not acknowledged is sent again. A recorder's commit takes 1 to
20 ms, and a recorder that cannot write answers at once, so silence means loss."""


class SendWindow:
    """One outbox, one recorder."""

    def __init__(self, acknowledged: int = 0, given: int = 0) -> None:
        self.acknowledged = acknowledged
        """The highest number up to which the recorder has everything on disk, or does not need it."""
        self.given = given
        """The highest number that it has acknowledged, whatever has become of its ledger since."""
        self._sent = acknowledged
        self._under_way: list[int] = []
        """The last number of each batch that has left and is not acknowledged."""
        self._recorder: str | None = None
        """The incarnation of the recorder."""
        self._is_new = False
        """No receipt of this incarnation has come yet."""
        self._connected = False
        self._silent_since = 0.0
        """When a receipt last came, or the first batch left after all others had been acknowledged."""
        self.attempt = 0
        """Counts the rewinds: batches of an earlier attempt do not matter any more."""
        self.silences = 0
        """Counts those because of a silence."""

    def recorder(self, incarnation: str | None, now: float) -> None:
        """The recorder runs as this incarnation (None: it has died). A new incarnation has not received what its
        predecessor did not acknowledge."""
        if incarnation != self._recorder:
            self._recorder, self._is_new = incarnation, True
            self._rewind(now)

    def connection(self, up: bool, now: float) -> None:
        """The connection came or went; batches under way may be lost."""
        if up != self._connected:
            self._connected = up
            self._rewind(now)

    def next(self, head: int) -> int | None:
        """The first number of the next batch; None where there is nothing to send up to `head`, the last number given
        out, or the window is full or closed."""
        ready = self._connected and self._recorder is not None and len(self._under_way) < BATCHES
        return self._sent + 1 if ready and self._sent < head else None

    def sent(self, last: int, now: float) -> None:
        """A batch that ends with this number has left."""
        if not self._under_way:  # the time before, in which nothing was asked, is no silence
            self._silent_since = now
        self._under_way.append(last)
        self._sent = last

    def receive(self, incarnation: str, upto: int, now: float) -> bool:
        """A receipt; True where it acknowledges more than before. A receipt of an earlier incarnation is ignored: its
        successor may have another ledger."""
        if incarnation != self._recorder:
            return False
        self._silent_since = (
            now  # also a receipt that repeats the last number: the recorder lives, and its disk is full
        )
        news = upto > self.acknowledged
        # The first receipt of a new incarnation says what its ledger has. That is less than before where the ledger was
        # put back from a copy; what the outbox still holds is sent again.
        if self._is_new and upto < self.acknowledged:
            self.acknowledged = upto
            self._rewind(now)
        self.acknowledged = max(self.acknowledged, upto)
        self.given, self._is_new = max(self.given, upto), False
        # After a rewind a late receipt may be ahead of `sent`; what it covers need not be sent again.
        self._sent = max(self._sent, self.acknowledged)
        self._under_way = [last for last in self._under_way if last > self.acknowledged]
        return news

    def look(self, now: float) -> float | None:
        """Rewind after a silence of `RESEND_S`. Returns the seconds until the next look is due; None where no batch is
        under way."""
        if not self._under_way:
            return None
        left = self._silent_since + RESEND_S - now
        if left > 0:
            return left
        self.silences += 1
        self._rewind(now)
        return None

    def taken(self, now: float) -> None:
        """The broker has taken a batch, or a part of one: the silence of the recorder begins now."""
        self._silent_since = now

    def refused(self, now: float) -> None:
        """The broker does not take a batch: it is sent again, in another form, with everything behind it."""
        self._rewind(now)

    def _rewind(self, now: float) -> None:
        self.attempt += 1
        self._sent = self.acknowledged
        self._under_way = []
        self._silent_since = now
