"""The instance's side of `ether.lease`: one program has the instance to itself for a while.

Calls and syncs of every other program are refused at once, with the holder and its reason, also those that were queued
before. A call that belongs to a chain of calls of the holder runs. Messages on topics, ticks and the lifecycle go on: a
lease is about who may ask, and does not stop what the instance does by itself.

The trap: a lease that is granted while another program's call still runs would be no lease. So the grant comes from the
worker, when every job that was begun before is over.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from logging import Logger
from typing import Any, Protocol

from ether.calls.lease_rules import LeaseHolder, LeaseTable
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.errors import EtherError, InstanceLeased
from ether.system.clock import wall_time

LEASE = "ether-lease"
"""Stands where a request names its method, as `ether.calls.server.STATUS` does."""

_ALONE_S = 3600.0
"""Limits the wait for the instance to be idle; the asking program gives up long before."""

Granted = Callable[[object, EtherError | None], None]
"""Called once, with the answer to a lease request, or with the reason of its refusal."""


class LeaseHost(Protocol):
    """What a lease needs of its instance."""

    @property
    def name(self) -> str:
        """The instance's name."""

    @property
    def logger(self) -> Logger:
        """The instance's logger."""

    @property
    def worker(self) -> Worker:
        """Runs the instance's jobs."""

    def wait_alone(self, timeout_s: float) -> bool:
        """Inside of a job: wait until no other job of the instance runs."""

    def report(self, what: str, error: BaseException, details: Mapping[str, object], *, answered: bool = False) -> None:
        """Log a failure."""

    def announce_changed(self) -> None:
        """Announce the instance again, because what is announced has changed."""


class LeaseServer:
    """The lease of one instance."""

    def __init__(self, host: LeaseHost, link: Link) -> None:
        self._host, self._link = host, link
        self._table = LeaseTable()
        self._lock = threading.Lock()
        """Guards `_table` and `_chains`. The end of a lease is logged and announced after it was dropped."""
        self._chains: Counter[str] = Counter()
        """The traces of the holder's calls that run now, with their number."""
        self.is_dead: Callable[[Mapping[str, Any]], bool | None] = lambda facts: None
        """Whether the process of these facts has ended; None where this machine cannot tell."""

    def refusal(self, method: str, key: str, trace: str | None) -> InstanceLeased | None:
        """Why this program may not call now; None where it may. `key` is its reply topic, `trace` its chain of calls.
        A lease whose holder is gone ends here, which is announced; so not on the transport's thread (`admits`)."""
        if self.admits(key, trace):
            return None
        self._end_where_dead()
        holder = self._table.holder
        if holder is None or holder.key == key:
            return None
        return InstanceLeased(self._host.name, method, holder.public())

    def admits(self, key: str, trace: str | None) -> bool:
        """Whether this program may call now, as far as that can be told without a lock, a look at the holder's process
        or an announcement. Every call passes here, on the transport's thread."""
        holder = self._table.holder
        return holder is None or holder.key == key or (trace is not None and self._chains.get(trace, 0) > 0)

    def enter(self, trace: str | None) -> str | None:
        """An admitted call begins; returns what `leave` has to be given."""
        if trace is None or self._table.holder is None:
            return None
        with self._lock:
            self._chains[trace] += 1
        return trace

    def leave(self, chain: str | None) -> None:
        """An admitted call is over."""
        if chain is not None:
            with self._lock:
                self._chains[chain] -= 1
                if self._chains[chain] <= 0:
                    del self._chains[chain]

    # -- lease requests

    def ask(self, key: str, asked: object, trace: str | None, granted: Granted) -> None:
        """Take, renew or release the lease, as `asked` says; on the dispatch thread, or on the local caller's."""
        match asked:
            case {"do": "take", "token": str(token), "facts": dict(facts), "reason": str(reason)}:
                self._take(key, token, reason, facts, trace, granted)
            case {"do": "renew", "token": str(token)}:
                with self._lock:
                    held = self._table.renew(key, token, time.monotonic())
                granted({"held": held}, None)
            case {"do": "release", "token": str(token)}:
                with self._lock:
                    is_over = self._table.release(key, token)
                if is_over:
                    self._host.announce_changed()
                granted({"held": False}, None)
            case _:
                granted({"held": False}, None)

    def _take(
        self, key: str, token: str, reason: str, facts: Mapping[str, Any], trace: str | None, granted: Granted
    ) -> None:
        program, host, pid = str(facts.get("program", "")), str(facts.get("host", "")), facts.get("pid")
        asking = LeaseHolder(key, program, host, pid if isinstance(pid, int) else 0, reason, wall_time(), facts)
        self._end_where_dead()
        with self._lock:
            other = self._table.take(asking, token, time.monotonic())
        if other is not None:
            granted(None, InstanceLeased(self._host.name, "ether.lease", other.public()))
            return
        self._host.announce_changed()
        job = _GrantWhenIdle(self._host, lambda: granted({"held": True}, None))
        worker = self._host.worker
        if worker.running:
            worker.submit(job, trace)
        else:  # in a lab, where no other program can be calling
            job.run()

    # -- holders that are gone

    def look(self) -> None:
        """End the lease of a holder that is gone; called with each heartbeat of the instance."""
        if self._table.holder is not None:
            if self._link.offline_since is not None:
                with self._lock:
                    self._table.extend(time.monotonic())
            self._end_where_dead()

    def _end_where_dead(self) -> None:
        """End the lease of a holder that is gone; log and announce it. Called without the lock."""
        holder = self._table.holder
        dead = holder is not None and self.is_dead(holder.facts)
        with self._lock:
            late = self._table.is_late(time.monotonic())
            if holder is None or self._table.holder is not holder or not (late or dead):
                return  # it is alive, or another thread has just ended its lease
            self._table.end()
        why = "was not heard of any more" if late else "has died"
        self._host.logger.warning(
            "%s: its lease ends: %s on %s (pid %d) %s", self._host.name, holder.program, holder.host,
            holder.pid, why,
        )  # fmt: skip
        self._host.announce_changed()

    def about(self) -> dict[str, object]:
        """What is announced of the lease; empty where there is none."""
        holder = self._table.holder
        return {} if holder is None else {"lease": {**holder.public(), "of": mark_of(holder.key)}}


def mark_of(key: str) -> str:
    """A digest of a holder's reply topic: the holder recognises itself in an announcement, and no other program learns
    the topic."""
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()


class _GrantWhenIdle:
    """A job that ends when all jobs that were begun before it are over, on every worker of the instance."""

    def __init__(self, host: LeaseHost, done: Callable[[], None]) -> None:
        self._host, self._done = host, done

    def run(self) -> None:
        self._host.wait_alone(_ALONE_S)
        self._done()

    def failed(self, error: BaseException) -> None:
        self._host.report("a lease could not be given", error, {})
