"""When a volume is closed. Pure: `now` is an argument."""

from __future__ import annotations

from datetime import datetime

from ether.config.volumes import Every, Rotation


def is_due(rotation: Rotation, size_bytes: int, begun: float | None, now: float) -> bool:
    """Whether a volume of this size is to be closed. `begun`: when its first row came, None where it is empty. Times in
    unix seconds."""
    if begun is None:
        return False
    if rotation.size_bytes is not None and size_bytes >= rotation.size_bytes:
        return True
    return rotation.every is not None and _period(rotation.every, begun) != _period(rotation.every, now)


def _period(every: Every, time: float) -> tuple[int, ...]:
    """The hour, day, week or month that a time is in."""
    local = datetime.fromtimestamp(time)
    match every:
        case "hour":
            return local.year, local.month, local.day, local.hour
        case "day":
            return local.year, local.month, local.day
        case "week":
            return tuple(local.isocalendar())[:2]
        case "month":
            return local.year, local.month
