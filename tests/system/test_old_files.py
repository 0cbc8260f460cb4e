"""What only seems to be old, because a clock was wrong, is not removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ether.system.folders import KEPT_DAYS, remove_old
from ether.system.old_files import CONFIRMED_DAYS, still_old

DAY_S = 86_400.0
NOW = 1.8e9


def test_what_looks_old_for_days_is_old(tmp_path: Path) -> None:
    note = tmp_path / "old.json"
    assert still_old(note, set(), NOW) == set()
    assert not note.exists()
    assert still_old(note, {"a"}, NOW) == set()
    assert still_old(note, {"a", "b"}, NOW + (CONFIRMED_DAYS - 1) * DAY_S) == set()
    assert still_old(note, {"a", "b"}, NOW + CONFIRMED_DAYS * DAY_S) == {"a"}
    assert still_old(note, {"b"}, NOW + (CONFIRMED_DAYS + 2) * DAY_S) == set()
    assert still_old(note, {"a", "b"}, NOW + (2 * CONFIRMED_DAYS) * DAY_S) == {"b"}  # "a" was young again meanwhile


def test_a_note_from_the_future_or_from_another_program_counts_from_now(tmp_path: Path) -> None:
    note = tmp_path / "old.json"
    still_old(note, {"a"}, NOW + 365 * DAY_S)  # the clock was wrong by a year
    assert still_old(note, {"a"}, NOW) == set()
    assert still_old(note, {"a"}, NOW + CONFIRMED_DAYS * DAY_S) == {"a"}
    note.write_text("not JSON")
    assert still_old(note, {"a"}, NOW) == set()


@pytest.mark.parametrize("wrong_s", [-1.79e9, -200 * DAY_S, 400 * DAY_S])
def test_values_that_wait_survive_a_clock_that_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    """Recorded in 1970 or last year, or looked at by a clock of next year; and the session runs again the next day."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    outbox = tmp_path / "ether" / "sessions" / "bench" / "outbox" / "cam~1.outbox"
    outbox.parent.mkdir(parents=True)
    outbox.write_bytes(b"values")

    def date(unix_s: float) -> None:
        for path in (outbox, *outbox.parents[:3]):
            os.utime(path, (unix_s, unix_s))

    date(NOW + min(0.0, wrong_s))
    remove_old(NOW + max(0.0, wrong_s))
    remove_old(NOW + 60.0)
    assert outbox.exists()
    date(NOW + DAY_S)
    remove_old(NOW + DAY_S)
    remove_old(NOW + 30 * DAY_S)
    assert outbox.exists()
    remove_old(NOW + (KEPT_DAYS + 2) * DAY_S)
    assert outbox.exists()
    remove_old(NOW + (KEPT_DAYS + 3 + CONFIRMED_DAYS) * DAY_S)
    assert outbox.exists(), "values that are on no recorder's disk are never too old"
    outbox.unlink()
    for path in outbox.parents[:3]:
        os.utime(path, (NOW, NOW))
    remove_old(NOW + 2 * (KEPT_DAYS + 3 + CONFIRMED_DAYS) * DAY_S)
    remove_old(NOW + 2 * (KEPT_DAYS + 8 + CONFIRMED_DAYS) * DAY_S)
    assert not outbox.parent.exists()
