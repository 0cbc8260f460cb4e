"""An instance that somebody has alone: the instance's side of `ether.lease`.

Calls and syncs of everybody else are refused at once, with who has it and why, also those that were queued before; what
belongs to a chain of calls that the tenant began runs. Messages on topics, ticks and the lifecycle go on: a lease is
about who asks, and does not stop what the instance does by itself.

The trap: to be told "it is yours" while another one's call still runs would be no lease. So the answer comes from the
worker, when that is over.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ether.calls.lease_rules import LeaseHolder, LeaseTable
from ether.errors import EtherError, InstanceLeased

if TYPE_CHECKING:
    from ether.connection.link import Link
    from ether.instance.hosted import HostedInstance

LEASE = "ether.lease"
"""In place of a method's name, which cannot contain a dot."""

_ALONE_S = 3600.0
"""Whoever waits gives up long before."""

Granted = Callable[[object, EtherError | None], None]
"""Called once, with what is told to the tenant, or why it is refused."""


class LeaseServer:
    """To whom one instance is let, if to anybody."""

    def __init__(self, instance: HostedInstance, link: Link) -> None:
        self._instance, self._link = instance, link
        self._tenancy = LeaseTable()
        self._lock = threading.RLock()
        self._chains: Counter[str] = Counter()
        self.is_dead: Callable[[Mapping[str, Any]], bool | None] = lambda facts: None
        """Whether the process of these facts has ended; None where that cannot be said from here."""

    def refusal(self, method: str, key: str, trace: str | None) -> InstanceLeased | None:
        """Why this asker may not call now; None where it may. Without a lease it costs nothing."""
        tenant = self._tenancy.tenant
        if tenant is None or tenant.key == key:
            return None
        with self._lock:
            self._end_where_dead()
            tenant = self._tenancy.tenant
            if tenant is None or tenant.key == key or (trace is not None and self._chains[trace]):
                return None
        return InstanceLeased(self._instance.name, method, tenant.told())

    def enter(self, trace: str | None) -> str | None:
        """A call that is admitted begins; returns what `leave` is given."""
        if trace is None or self._tenancy.tenant is None:
            return None
        with self._lock:
            self._chains[trace] += 1
        return trace

    def leave(self, chain: str | None) -> None:
        """It is over."""
        if chain is not None:
            with self._lock:
                self._chains[chain] -= 1
                if self._chains[chain] <= 0:
                    del self._chains[chain]

    # -- what tenants ask

    def ask(self, key: str, asked: object, trace: str | None, granted: Granted) -> None:
        """Take, renew or give back, as `asked` says; on the dispatch thread, or the asker's own."""
        match asked:
            case {"do": "take", "token": str(token), "facts": dict(facts), "reason": str(reason)}:
                self._take(key, token, reason, facts, trace, granted)
            case {"do": "renew", "token": str(token)}:
                with self._lock:
                    held = self._tenancy.renew(key, token, time.monotonic())
                granted({"held": held}, None)
            case {"do": "release", "token": str(token)}:
                with self._lock:
                    is_over = self._tenancy.release(key, token)
                if is_over:
                    self._instance.announcer.changed()
                granted({"held": False}, None)
            case _:
                granted({"held": False}, None)

    def _take(
        self, key: str, token: str, reason: str, facts: Mapping[str, Any], trace: str | None, granted: Granted
    ) -> None:
        program, host, pid = str(facts.get("program", "")), str(facts.get("host", "")), facts.get("pid")
        tenant = LeaseHolder(key, program, host, pid if isinstance(pid, int) else 0, reason, time.time(), facts)
        with self._lock:
            self._end_where_dead()
            other = self._tenancy.take(tenant, token, time.monotonic())
        if other is not None:
            granted(None, InstanceLeased(self._instance.name, "ether.lease", other.told()))
            return
        self._instance.announcer.changed()
        job = _WhenAlone(self._instance, lambda: granted({"held": True}, None))
        worker = self._instance.worker
        if worker.running:
            worker.submit(job, trace)
        else:  # in a lab, where nobody else can be calling
            job.run()

    # -- who is gone

    def look(self) -> None:
        """End the lease of a tenant that is gone; with each sign of life of the instance."""
        if self._tenancy.tenant is not None:
            with self._lock:
                if self._link.offline_since is not None:
                    self._tenancy.spare(time.monotonic())
                self._end_where_dead()

    def _end_where_dead(self) -> None:
        tenant = self._tenancy.tenant
        if tenant is None:
            return
        late = self._tenancy.is_late(time.monotonic())
        if late or self.is_dead(tenant.facts):
            self._tenancy.end()
            why = "was not heard of any more" if late else "has died"
            self._instance.logger.warning(
                "%s: its lease ends: %s on %s (pid %d) %s", self._instance.name, tenant.program, tenant.host,
                tenant.pid, why,
            )  # fmt: skip
            self._instance.announcer.changed()

    def about(self) -> dict[str, object]:
        """What is announced."""
        tenant = self._tenancy.tenant
        return {} if tenant is None else {"lease": {**tenant.told(), "of": mark_of(tenant.key)}}


def mark_of(key: str) -> str:
    """By which a tenant finds itself in an announcement, without its reply topic being told to everybody."""
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()


class _WhenAlone:
    """A job that comes behind all that was begun before, on every worker of the instance."""

    def __init__(self, instance: HostedInstance, done: Callable[[], None]) -> None:
        self._instance, self._done = instance, done

    def run(self) -> None:
        self._instance.wait_alone(_ALONE_S)
        self._done()

    def failed(self, error: BaseException) -> None:
        self._instance.report("a lease could not be given", error, {})
