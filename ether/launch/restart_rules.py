"""When an instance, or the session's broker, that ended is started again.

Promises: the first restart comes at once, later ones after pauses that double up to a limit. What ran for a while
begins anew with the pauses. After `limit` restarts within `window_s` an instance is given up; the broker never is,
because without it the whole session is lost (`EndlessRestarts`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from ether.system.backoff import pause_before

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
STABLE_S = 30.0
"""An instance that ran for so long, or for longer than `window_s`, begins anew with the pauses."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What the configuration says: when to start again, and at most how often within which time."""

    when: Literal["never", "on-failure", "always"] = "never"
    limit: int = 5
    window_s: float = 60.0

    def wants(self, *, failed: bool) -> bool:
        """Whether an instance that ended (`failed`: with an error) is to be started again."""
        return self.when == "always" or (self.when == "on-failure" and failed)


@dataclass(slots=True)
class Restarts:
    """The restarts of one instance so far. Not locked; times in seconds of any steady clock."""

    policy: RestartPolicy
    _begun: deque[float] = field(default_factory=deque)
    _in_a_row: int = 0
    """Restarts since the last start that held."""

    def pause_s(self, now: float, ran_s: float) -> float | None:
        """How long to wait before the next start; None where there were too many restarts. `ran_s`: how long the
        instance ran before it ended. Counts as a restart."""
        while self._begun and now - self._begun[0] > self.policy.window_s:
            self._begun.popleft()
        if len(self._begun) >= self.policy.limit:
            return None
        if ran_s >= min(STABLE_S, self.policy.window_s):
            self._in_a_row = 0
        pause_s = pause_before(self._in_a_row, FIRST_PAUSE_S, LONGEST_PAUSE_S) if self._in_a_row else 0.0
        self._in_a_row += 1
        self._begun.append(now + pause_s)
        return pause_s


@dataclass(slots=True)
class EndlessRestarts:
    """The restarts of the session's broker so far: as often as it takes. Not locked; times as for `Restarts`."""

    in_a_row: int = 0
    """Restarts since the last start that held."""

    def pause_s(self, ran_s: float) -> float:
        """How long to wait before the next start. `ran_s`: how long it ran before it ended. Counts as a restart."""
        if ran_s >= STABLE_S:
            self.in_a_row = 0
        pause_s = pause_before(self.in_a_row, FIRST_PAUSE_S, LONGEST_PAUSE_S) if self.in_a_row else 0.0
        self.in_a_row += 1
        return pause_s
