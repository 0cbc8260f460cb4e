"""What commands say of an instance's heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ether.cli.output import ago
from ether.protocol.failure_detector import Heartbeat
from ether.session.watching.heartbeats import BEHIND_S


def state_text(state: str, behind_s: float | None) -> str:
    """The state of an instance, and how far behind it is (`ready, behind: 25 s`)."""
    return state if behind_s is None or behind_s < BEHIND_S else f"{state}, behind: {behind_s:.0f} s"


def failures_text(name: str, failures: Mapping[str, Any]) -> str:
    """`cam: 25 errors, the last 2 s ago: Cam.take failed: ValueError: … (24 times since 1 min ago)`."""
    count, times = failures["count"], failures["times"]
    told = f"{name}: {count:,} error{'s' * (count != 1)}, the last {ago(failures['at'])} ago: {failures['last']}"
    return told + (f" ({times:,} times, since {ago(failures['since'])} ago)" if times > 1 else "")


def busy_text(heartbeat: Heartbeat | None) -> str | None:
    """The method that runs and for how long (`expose 40 s`), or `idle`; None where no heartbeat is known."""
    if heartbeat is None:
        return None
    return f"{heartbeat.busy} {heartbeat.busy_s:.0f} s" if heartbeat.busy else "idle"
