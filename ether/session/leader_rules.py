"""Decides whether a session that a broker shows has a leader, from what is seen of that leader. Decisions only.

A broker that keeps its retained messages over a restart (`persistence true`) shows the entry of a leader that died with
it, for ever: the will that would have cleared the entry died with the broker. A leader that lives is asked and answers.
One that does not answer may be dead, slow, frozen, or on its way back to a broker that was just started again.

    seen                                                             the leader is
    its process has ended on this machine                            dead, at once
    the entry is published again (the answer)                        there
    its process lives here, and the broker has a subscriber for it   there, and busy or frozen: after ANSWER_S
    its process lives here and stands still                          there: after ANSWER_S
    the broker says that nobody subscribes to its topic              dead, after RETURN_S: time to come back; twice as
                                                                     long where its process lives here
    the broker refuses the question                                  believed to be there
    the entry was cleared meanwhile (its will, or its own end)       dead, after RETURN_S: time to come back
    no answer, and nothing else is known                             dead, after SILENT_S

A leader of version 1 of the wire does not know the probe. It is asked by the roll call, which every member hears, so
the broker is no witness; and its entry names its machine by the host's name alone, which others may have. So:

    its process has ended on a machine of this name                  dead, after ANSWER_S without an answer
    its process lives here, and does not stand still                 nothing follows: only its answer counts

Promise: a leader whose connection the broker still holds is not called dead, because the broker itself clears the entry
of a client that is silent for longer than `SILENT_S`. The trap: a broker may say "no subscriber" (MQTT 5) or not
(MQTT 3.1.1, and a monitor that subscribes to everything), so its silence about that proves nothing.
"""

from __future__ import annotations

import enum

ASK_EVERY_S = 0.25

ANSWER_S = 2.0
"""A leader that neither stands still nor is busy in C code answers within this time."""

RETURN_S = 3.0
"""Every living process has reconnected and announced itself this long after the broker is back."""

SILENT_S = 13.0
"""By then a broker has published the will of a client that is silent: 1.5 times the keep-alive of 5 s, and mosquitto
looks every 5 s."""


class LeaderVerdict(enum.Enum):
    """What is known of a leader."""

    LEADS = "leads"
    DEAD = "dead"


class LeaderWatch:
    """What was seen of one leader so far. Not locked; `now` is in seconds of any steady clock."""

    def __init__(self, *, ended_here: bool | None, now: float, version_1: bool = False) -> None:
        """`ended_here`: whether its process has ended; None where that cannot be seen from this machine. `version_1`:
        it speaks version 1 of the wire."""
        self._ended_here = ended_here
        self._version_1 = version_1
        self._began = now
        self._absent_since: float | None = None
        self._cleared_at: float | None = None
        self._believed = False

    @property
    def runs_here(self) -> bool:
        """Whether its process is seen to run on this machine."""
        return self._ended_here is False

    def answered(self) -> None:
        """A leader has published the entry now, this one or another."""
        self._believed = True

    def may_not_ask(self) -> None:
        """The broker does not let this program ask."""
        self._believed = not self._ended_here

    def cleared(self, now: float) -> None:
        """The entry was cleared."""
        self._cleared_at = now

    def asked(self, now: float, *, no_subscribers: bool) -> None:
        """The broker has acknowledged a question, which was sent at `now`, and said that nobody subscribes to that, or
        said nothing."""
        if not no_subscribers or self._version_1:
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now

    def verdict(self, now: float, *, stands_still: bool = False) -> LeaderVerdict | None:
        """What is known now; None where one has to go on waiting. `stands_still`: its process, which runs here, is
        stopped by a signal."""
        if self._believed:
            return LeaderVerdict.LEADS
        silent_s = now - self._began
        if self._ended_here:
            return LeaderVerdict.DEAD if not self._version_1 or silent_s >= ANSWER_S else None
        if self.runs_here and stands_still:
            return LeaderVerdict.LEADS if silent_s >= ANSWER_S else None
        if self._cleared_at is not None:
            return LeaderVerdict.DEAD if now - self._cleared_at >= RETURN_S else None
        absent_s = 0.0 if self._absent_since is None else now - self._absent_since
        connected = self.runs_here and self._absent_since is None and not self._version_1
        if connected and silent_s >= ANSWER_S:
            return LeaderVerdict.LEADS
        patience_s = 2 * RETURN_S if self.runs_here else RETURN_S
        return LeaderVerdict.DEAD if absent_s >= patience_s or silent_s >= SILENT_S else None
