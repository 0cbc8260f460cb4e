"""The wall clock of a test's programs: set by the test, at any moment, for all of them; never the machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ether.system.clock import TEST_CLOCK

HOUR_S, DAY_S = 3600.0, 86_400.0


class SetClock:
    """Programs that start while it exists go by it; the test's own process and its broker keep the true time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "clock"
        monkeypatch.setenv(TEST_CLOCK, str(self._file))

    def set(self, offset_s: float) -> None:
        """Let the clock be off by so many seconds from now on."""
        beside = self._file.with_suffix(".new")
        beside.write_text(repr(offset_s))
        os.replace(beside, self._file)
