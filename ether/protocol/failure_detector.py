"""Heartbeats, and the detector that decides from them which instances are hung.

Each instance's process sends a heartbeat twice a second, from a thread that user code cannot block by waiting. It says
what the worker is doing, so that "busy for 40 s in `expose`" and "hung" are different findings.

Promise: an instance counts as hung when no heartbeat has arrived for `silent_s` seconds, although every message that
the broker accepted in that time has been delivered to this process. The trap that this avoids: when the broker, the
network or the watching process itself stood still, all heartbeats are late, and no instance is hung. Therefore silence
counts only up to the watcher's last echo, a message to itself that was sent after the silence began. When the echo
arrives, everything that the broker had read before it has arrived, too.

How long the echo took matters. A broker that stood still finds on its return one full socket for each client, and reads
them in any order: the watcher's echo may come back before the heartbeats that others sent earlier. So a slow echo
proves nothing, and neither does one that was sent within an interval after a slow one came back. The price: while every
echo is slow, silence hangs nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

INTERVAL_S = 0.5
SLOW_ECHO_S = 0.3
"""An echo that took longer says that the broker, the network or this process stood still. On two busy cores it takes
less than a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One heartbeat. `busy` is the method that runs, for `busy_s` seconds; `queued`: how many messages and calls wait.

    `handled`, `published`: messages so far; `cpu_s`: processor time so far; `rss_mb`: memory, None where unknown.
    `age_s`: the age of the oldest message in work; `behind_s`: its age when its turn came; both None where no message
    of a known age is in work. `skipped`: by method, how many messages were skipped so far, by `keep` and by `age`.
    `failures`: their number so far as `count`; of the last one its text as `last`, when it came as `at` and since when
    its kind comes as `since` (unix seconds), and how often its kind came as `times`; empty without any.
    """

    incarnation: str
    number: int
    busy: str | None = None
    busy_s: float = 0.0
    queued: int = 0
    handled: int = 0
    published: int = 0
    cpu_s: float = 0.0
    rss_mb: float | None = None
    age_s: float | None = None
    behind_s: float | None = None
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failures: Mapping[str, Any] = field(default_factory=dict)
    takes_s: float | None = None
    """How long the method that runs may take, where it says so."""

    def to_value(self) -> dict[str, Any]:
        """The JSON form, in which it is published."""
        value: dict[str, Any] = {
            "birth": self.incarnation,
            "n": self.number,
            "busy": self.busy,
            "busy_s": round(self.busy_s, 3),
            "queued": self.queued,
            "handled": self.handled,
            "published": self.published,
            "cpu_s": round(self.cpu_s, 3),
            "rss_mb": self.rss_mb,
        }
        # Left out where there is nothing to say: what earlier versions of Ether do not know, they do not miss.
        if self.age_s is not None and self.behind_s is not None:
            value |= {"age_s": round(self.age_s, 3), "behind_s": round(self.behind_s, 3)}
        if self.skipped:
            value["skipped"] = self.skipped
        if self.takes_s is not None:
            value["takes_s"] = self.takes_s
        return {**value, "failures": dict(self.failures)} if self.failures else value

    @classmethod
    def from_value(cls, value: object) -> Heartbeat | None:
        """Read a received value; None where it is no heartbeat."""
        match value:
            case {
                "birth": str(incarnation),
                "n": int(number),
                "busy": None | str() as busy,
                "busy_s": int() | float() as busy_s,
                "queued": int(queued),
                "handled": int(handled),
                "published": int(published),
                "cpu_s": int() | float() as cpu_s,
                "rss_mb": None | int() | float() as rss_mb,
                **more,
            }:
                return cls(
                    incarnation, number, busy, float(busy_s), queued, handled, published, float(cpu_s), rss_mb,
                    _seconds(more.get("age_s")), _seconds(more.get("behind_s")), _counts(more.get("skipped")),
                    _failures(more.get("failures")),
                    _seconds(more.get("takes_s")),
                )  # fmt: skip
        return None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _counts(value: object) -> dict[str, dict[str, int]]:
    """Numbers by method and reason; what is none is left out, because any program can publish a heartbeat."""
    methods = value.items() if isinstance(value, dict) else ()
    return {
        method: {reason: count for reason, count in reasons.items() if type(count) is int}
        for method, reasons in methods
        if isinstance(reasons, dict)
    }


def _failures(value: object) -> dict[str, Any]:
    """Facts about failures; nothing where one of them is not what it should be."""
    match value:
        case {
            "count": int(count), "last": str(last), "at": int() | float() as at, "since": int() | float() as since,
            "times": int(times),
        } if isfinite(at) and isfinite(since):  # fmt: skip
            return {"count": count, "last": last, "at": float(at), "since": float(since), "times": times}
    return {}


@dataclass(frozen=True, slots=True)
class Limits:
    """When an instance counts as hung: without a heartbeat for `silent_s`, or with one job for `busy_s` (None:
    never), or for as long as its method says that it takes, where that is more."""

    silent_s: float = 1.5
    busy_s: float | None = None


@dataclass(slots=True)
class _Watched:
    incarnation: str
    limits: Limits
    heard: float
    heartbeat: Heartbeat | None = None
    hung: str = ""


@dataclass(slots=True)
class FailureDetector:
    """Watches instances. Not locked; `now` in seconds of any steady clock."""

    _watched: dict[str, _Watched] = field(default_factory=dict)
    _echo_sent: float = float("-inf")
    _proves_from: float = float("-inf")
    """Echoes that were sent before this time prove nothing."""
    _deaf: bool = False

    def deafen(self) -> None:
        """The watcher has lost its connection: silence means nothing."""
        self._deaf = True

    def hear_again(self, back_by: float) -> None:
        """The watcher is connected again. Silence during the outage does not count, and until `back_by` other processes
        may still be reconnecting."""
        self._deaf = False
        for watched in self._watched.values():
            watched.heard = max(watched.heard, back_by)

    def watch(self, name: str, incarnation: str, limits: Limits, now: float) -> None:
        """Expect heartbeats of this incarnation from now on."""
        self._watched[name] = _Watched(incarnation, limits, now)

    def leave(self, name: str) -> None:
        """Expect no more heartbeats of this instance."""
        self._watched.pop(name, None)

    def hear(self, name: str, heartbeat: Heartbeat, now: float) -> None:
        """A heartbeat arrived."""
        watched = self._watched.get(name)
        if watched is not None and watched.incarnation == heartbeat.incarnation:
            watched.heard, watched.heartbeat = now, heartbeat

    def echo(self, sent: float, now: float) -> None:
        """The watcher's message to itself, sent at this time, has come back now."""
        if now - sent > SLOW_ECHO_S:
            self._proves_from = now + INTERVAL_S
        elif sent >= self._proves_from:
            self._echo_sent = max(self._echo_sent, sent)

    def wants_echo(self, now: float) -> bool:
        """Whether an echo should be sent now: an instance is silent for long enough to be hung, the last echo was sent
        too early to prove it, and one that is sent now can."""
        return (
            not self._deaf
            and now >= self._proves_from
            and any(
                now - watched.heard >= watched.limits.silent_s > self._echo_sent - watched.heard
                for watched in self._watched.values()
            )
        )

    def last_heartbeat(self, name: str) -> Heartbeat | None:
        """The last heartbeat of an instance that is watched."""
        watched = self._watched.get(name)
        return watched.heartbeat if watched is not None else None

    def why_hung(self, name: str) -> str:
        """Why an instance counts as hung; empty where it does not."""
        watched = self._watched.get(name)
        return watched.hung if watched is not None else ""

    def judge(self, now: float) -> Mapping[str, str]:
        """The instances whose verdict has changed: why each is hung, or an empty text where it lives again."""
        changed: dict[str, str] = {}
        for name, watched in () if self._deaf else self._watched.items():
            why = self._verdict(watched, now)
            if bool(why) != bool(watched.hung):
                changed[name] = why
            watched.hung = why
        return changed

    def _verdict(self, watched: _Watched, now: float) -> str:
        limits, heartbeat = watched.limits, watched.heartbeat
        silent_s = min(now, self._echo_sent) - watched.heard
        if silent_s >= limits.silent_s:
            return f"no sign of life for {now - watched.heard:.1f} s"
        if watched.hung and now - watched.heard >= limits.silent_s:
            return watched.hung  # still silent, and the echo proves nothing new: the verdict stays
        if heartbeat is not None and heartbeat.busy and limits.busy_s is not None:
            busy_s, allowed_s = heartbeat.busy_s + now - watched.heard, max(limits.busy_s, heartbeat.takes_s or 0.0)
            if busy_s >= allowed_s:
                return f"busy for {busy_s:.1f} s in {heartbeat.busy}, where {allowed_s:g} s are allowed"
        return ""
