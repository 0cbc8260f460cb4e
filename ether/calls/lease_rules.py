"""Which program has leased an instance. Decisions only: `now` is an argument, in seconds of a steady clock.

The holder of a lease is a program, identified by the reply topic that its answers go to. A program may take the same
lease several times (in nested blocks, on several threads), and holds it until it has released it as often. Promise: a
holder that has not renewed for `LEASE_TIMEOUT_S` loses the lease. The trap: a holder that was cut off, not dead, renews
a lease that has ended; `renew` returns False, so that it learns this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RENEW_S = 1.0
LEASE_TIMEOUT_S = 4.0
"""Three renewals may be late. A program that is stopped or cut off for longer loses its leases."""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """A program that holds a lease. `key`: the reply topic of its calls; `since` in seconds of the epoch; `facts` tell
    how to find out whether its process lives."""

    key: str
    program: str
    host: str
    pid: int
    reason: str
    since: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """What every program may know of the holder."""
        return {
            "program": self.program, "host": self.host, "pid": self.pid, "reason": self.reason, "since": self.since
        }  # fmt: skip


class LeaseTable:
    """The lease of one instance: its holder, and the tokens with which the holder has taken it. Not locked."""

    def __init__(self) -> None:
        self.holder: LeaseHolder | None = None
        self._tokens: set[str] = set()
        self._renewed = 0.0

    def take(self, holder: LeaseHolder, token: str, now: float) -> LeaseHolder | None:
        """Take the lease, or take it once more; returns the other holder where that is refused, None on success."""
        if self.holder is not None and self.holder.key != holder.key:
            return self.holder
        self.holder = self.holder or holder
        self._tokens.add(token)
        self._renewed = now
        return None

    def renew(self, key: str, token: str, now: float) -> bool:
        """Note that the holder lives; False where `key` is not the holder, or has not taken the lease with `token`."""
        if self.holder is None or self.holder.key != key or token not in self._tokens:
            return False
        self._renewed = now
        return True

    def release(self, key: str, token: str) -> bool:
        """Give back what was taken with `token`; True where the lease has ended with it."""
        if self.holder is None or self.holder.key != key:
            return False
        self._tokens.discard(token)
        if not self._tokens:
            self.holder = None
        return self.holder is None

    def extend(self, now: float) -> None:
        """Count the holder as alive now, because no renewal could have arrived until now."""
        self._renewed = now

    def is_late(self, now: float) -> bool:
        """Whether the holder has not renewed for too long."""
        return self.holder is not None and now - self._renewed > LEASE_TIMEOUT_S

    def end(self) -> LeaseHolder | None:
        """End the lease; returns its former holder."""
        holder, self.holder = self.holder, None
        self._tokens.clear()
        return holder
