"""The state of this machine: load, temperature, memory, disk, uptime, clock.

Promise: reading it never raises. A figure that this system does not tell is None, never a guess.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ether.system.clock import wall_time

Figure = TypeVar("Figure")

_COLDEST_C, _HOTTEST_C = -60.0, 200.0
"""A reading outside of these is that of a sensor that is not connected."""


@dataclass(frozen=True, slots=True)
class Health:
    """One look at the machine. `time` is in seconds of the epoch by its own clock; `load` is the average of the last
    minute, to be compared with `cpus`; `memory_mb` and `disk_mb` are still free; `clock_ahead_s` is its clock minus
    that of the program that leads the session, wrong by at most `clock_error_s`."""

    time: float
    load: float | None
    cpus: int | None
    temperature_c: float | None
    memory_mb: float | None
    memory_total_mb: float | None
    disk_mb: float | None
    disk_total_mb: float | None
    uptime_s: float | None
    clock_ahead_s: float | None
    clock_error_s: float | None

    def to_value(self) -> dict[str, Any]:
        """As it is published."""
        return asdict(self)


def read_health(folder: str, clock: tuple[float, float] | None = None) -> Health:
    """The machine as it is now. `folder` says which disk; it need not exist yet. `clock` is how many seconds this
    machine's clock is ahead of the leader's, and by how much that may be wrong."""
    now = wall_time()
    memory = _told(_memory_mb)
    disk = _disk_mb(folder)
    return Health(
        time=round(now, 3),
        load=_told(_load),
        cpus=os.cpu_count(),
        temperature_c=_told(_hottest_sensor_c),
        memory_mb=None if memory is None else memory[0],
        memory_total_mb=None if memory is None else memory[1],
        disk_mb=disk[0],
        disk_total_mb=disk[1],
        uptime_s=_told(lambda: _uptime_s(now)),
        clock_ahead_s=None if clock is None else round(clock[0], 6),
        clock_error_s=None if clock is None else round(clock[1], 6),
    )


def _told(read: Callable[[], Figure]) -> Figure | None:
    """What a reading gives; None where this system has no such reading, or it fails."""
    import psutil  # only agents read the machine's health

    try:
        return read()
    except (psutil.Error, OSError, AttributeError, RuntimeError, ValueError):
        return None  # AttributeError: psutil has no such function on this system


def _load() -> float | None:
    import psutil

    load = psutil.getloadavg()[0]
    # Windows keeps no load average: psutil samples one from the first call on, and says 0 until it has a sample.
    return None if sys.platform == "win32" and load == 0 else round(load, 2)


def _memory_mb() -> tuple[float, float]:
    """Memory that programs can still get without swapping, and all of it."""
    import psutil

    memory = psutil.virtual_memory()
    return round(memory.available / (1 << 20), 1), round(memory.total / (1 << 20), 1)


def _uptime_s(now: float) -> float:
    import psutil

    return round(now - psutil.boot_time(), 1)


def _hottest_sensor_c() -> float | None:
    import psutil

    return hottest_c(sensor.current for sensors in psutil.sensors_temperatures().values() for sensor in sensors)


def hottest_c(readings: Iterable[float | None]) -> float | None:
    """The highest temperature of connected sensors."""
    return max((each for each in readings if each is not None and _COLDEST_C < each < _HOTTEST_C), default=None)


def _disk_mb(folder: str) -> tuple[float | None, float | None]:
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None, None
    return round(usage.free / (1 << 20), 1), round(usage.total / (1 << 20), 1)
