"""The state of this machine: what it tells, and that a missing figure is None."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from ether.system.health import hottest_c, read_health


def test_a_machine_tells_what_it_can(tmp_path: Path) -> None:
    health = read_health(str(tmp_path / "not" / "yet"))
    assert health.disk_mb is not None
    assert health.disk_total_mb is not None
    assert 0 < health.disk_mb <= health.disk_total_mb
    assert health.memory_mb is not None
    assert health.memory_total_mb is not None
    assert 0 < health.memory_mb <= health.memory_total_mb
    assert health.uptime_s is not None
    assert health.uptime_s > 0
    assert health.cpus == os.cpu_count()
    assert abs(health.time - time.time()) < 60
    assert (health.clock_ahead_s, health.clock_error_s) == (None, None)


def test_the_clock_is_a_value_of_the_caller(tmp_path: Path) -> None:
    health = read_health(str(tmp_path), (0.123456789, 0.01))
    assert (health.clock_ahead_s, health.clock_error_s) == (0.123457, 0.01)


def test_a_figure_that_the_system_does_not_tell_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", denied)
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    health = read_health(str(tmp_path))
    assert (health.memory_mb, health.memory_total_mb, health.temperature_c) == (None, None, None)
    assert health.uptime_s is not None


def test_sensors_that_are_not_connected_do_not_count() -> None:
    assert hottest_c([48.3, 51.0, -274.0, 255.0, None]) == 51.0
    assert hottest_c([]) is None
