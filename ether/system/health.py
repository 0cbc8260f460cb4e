"""How this machine is: load, temperature, memory, disk, uptime, clock.

Promise: reading it takes no longer than a few small files of the kernel, and never raises. What this system does not
tell is None, never a guess; on systems other than Linux that is most of it.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ether.protocol.clock_offset import ClockOffset

_THERMAL = Path("/sys/class/thermal")
_COLDEST_C, _HOTTEST_C = -60.0, 200.0
"""What a sensor that is not connected says lies outside."""


@dataclass(frozen=True, slots=True)
class Health:
    """One look at the machine. `time` is in seconds of the epoch by its own clock; `load` is the average of the last
    minute, to be compared with `cpus`; `memory_mb` and `disk_mb` are what is still free; `clock_ahead_s` is its clock
    minus that of the program that leads the session, wrong by at most `clock_error_s`."""

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


def read_health(folder: str, clock: ClockOffset | None = None) -> Health:
    """The machine as it is now. `folder` says which disk; it need not exist yet."""
    memory = _memory_mb()
    disk = _disk_mb(folder)
    return Health(
        time=round(time.time(), 3),
        load=_load(),
        cpus=os.cpu_count(),
        temperature_c=hottest_c(_THERMAL),
        memory_mb=memory.get("MemAvailable"),
        memory_total_mb=memory.get("MemTotal"),
        disk_mb=disk[0],
        disk_total_mb=disk[1],
        uptime_s=_uptime_s(),
        clock_ahead_s=None if clock is None else round(clock.ahead_s, 6),
        clock_error_s=None if clock is None else round(clock.error_s, 6),
    )


def hottest_c(folder: Path) -> float | None:
    """The highest temperature of the kernel's thermal zones."""
    readings = [_millidegrees(file) for file in folder.glob("thermal_zone*/temp")]
    told = [reading / 1000 for reading in readings if reading is not None]
    return max((each for each in told if _COLDEST_C < each < _HOTTEST_C), default=None)


def _millidegrees(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None  # a sensor that is switched off


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None  # Windows


def _memory_mb() -> dict[str, float]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return {key: round(int(rest.split()[0]) / 1024, 1) for key, _, rest in (line.partition(":") for line in lines)}
    except (OSError, ValueError, IndexError):
        return {}


def _disk_mb(folder: str) -> tuple[float | None, float | None]:
    place = Path(folder).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None, None
    return round(usage.free / (1 << 20), 1), round(usage.total / (1 << 20), 1)


def _uptime_s() -> float | None:
    try:
        return float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
