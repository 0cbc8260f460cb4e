"""Who has an instance alone. Decisions only: `now` is an argument, in seconds of a steady clock.

A tenant is a program, known by where its answers go; it may take the same instance several times (in nested blocks, on
several threads), and has it until it has given it back as often. Promise: who is not heard of for `LAST_S` has it no
more. The trap: a tenant that was cut off, not dead, renews a lease that has ended; it must be told so, and is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RENEW_S = 1.0
LAST_S = 4.0
"""Three renewals may be late; a program that is stopped or cut off for longer loses what it has."""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who it is. `key`: where its answers go; `since` in seconds of the epoch; `facts` say how to find out whether its
    process lives."""

    key: str
    program: str
    host: str
    pid: int
    reason: str
    since: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """For everybody."""
        return {
            "program": self.program, "host": self.host, "pid": self.pid, "reason": self.reason, "since": self.since
        }  # fmt: skip


class LeaseTable:
    """Of one instance. Not locked."""

    def __init__(self) -> None:
        self.tenant: LeaseHolder | None = None
        self._tokens: set[str] = set()
        self._heard = 0.0

    def take(self, tenant: LeaseHolder, token: str, now: float) -> LeaseHolder | None:
        """Take it, once more where it is one's own; returns who has it instead, None where that worked."""
        if self.tenant is not None and self.tenant.key != tenant.key:
            return self.tenant
        self.tenant = self.tenant or tenant
        self._tokens.add(token)
        self._heard = now
        return None

    def renew(self, key: str, token: str, now: float) -> bool:
        """Its tenant lives; False where it is not the tenant, or has not taken it so."""
        if self.tenant is None or self.tenant.key != key or token not in self._tokens:
            return False
        self._heard = now
        return True

    def release(self, key: str, token: str) -> bool:
        """Give it back; true where that was the last of it."""
        if self.tenant is None or self.tenant.key != key:
            return False
        self._tokens.discard(token)
        if not self._tokens:
            self.tenant = None
        return self.tenant is None

    def spare(self, now: float) -> None:
        """Nobody could be heard until now: nobody is late."""
        self._heard = now

    def is_late(self, now: float) -> bool:
        """Whether its tenant was not heard of for too long."""
        return self.tenant is not None and now - self._heard > LAST_S

    def end(self) -> LeaseHolder | None:
        """Its tenant has it no more; returns who that was."""
        tenant, self.tenant = self.tenant, None
        self._tokens.clear()
        return tenant
