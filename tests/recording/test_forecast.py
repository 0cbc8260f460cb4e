"""How fast a ledger grows, how long its disk lasts, and when somebody is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from loopback_rig import Rig
from patience import patience
from running_brokers import soon

from ether.recording import recorder as recorder_module
from ether.recording.forecast_rules import (
    LEAST_S,
    SOON_S,
    WINDOW_S,
    Growth,
    forecast_text,
    left_text,
    seconds_left,
    size_text,
    warning_of,
)
from ether.recording.recorder_page import HeardSources, RecorderFacts, RecorderPage, recorders_of


def grown(*points: tuple[float, int]) -> float | None:
    growth = Growth()
    for now, size in points:
        growth.note(now, size)
    return growth.bytes_per_s


def test_the_rate_is_that_of_the_window() -> None:
    assert grown((0.0, 0), (LEAST_S / 2, 5000)) is None
    assert grown((0.0, 0), (LEAST_S, 5000)) == 5000 / LEAST_S
    steady = [(float(now), 100 * now) for now in range(0, 3 * int(WINDOW_S), 7)]
    assert grown(*steady) == pytest.approx(100)
    stopped = [*steady, *((now + 3 * WINDOW_S, steady[-1][1]) for now in range(0, 2 * int(WINDOW_S), 7))]
    assert grown(*stopped) == 0


def test_a_ledger_that_was_made_smaller_begins_anew() -> None:
    assert grown((0.0, 10_000_000), (50.0, 20_000_000), (51.0, 0), (52.0, 10)) is None
    assert grown((0.0, 10_000_000), (50.0, 20_000_000), (51.0, 0), (51.0 + LEAST_S, 100)) == 100 / LEAST_S


def test_the_disk_is_full_by_time_not_by_percent() -> None:
    """A terabyte that is full tomorrow is worth a warning, a gigabyte that lasts for years is not."""
    assert "full in 12 h" in str(warning_of(10**12, 10**12 / (SOON_S / 2)))
    assert warning_of(10**9, 1.0) is None
    assert warning_of(10**9, None) is None
    assert warning_of(10**9, 0.0) is None
    assert seconds_left(100, 10.0) == 10.0


def test_what_is_not_known_is_said() -> None:
    assert forecast_text(10**9, None) == "1 GB free; the rate is not known yet"
    assert forecast_text(10**9, 0.0) == "1 GB free; nothing is written at present"
    assert forecast_text(84 * 10**9, 2.6e6) == "9.36 GB an hour, 84 GB free: full in 9 h"


@pytest.mark.parametrize(("seconds", "text"), [
    (30.0, "30 s"), (90.0, "2 min"), (3700.0, "1 h"), (36_000.0, "10 h"), (4 * 86_400.0, "4 days"),
    (3 * 365 * 86_400.0, "3 years"),
])  # fmt: skip
def test_times_for_people(seconds: float, text: str) -> None:
    assert left_text(seconds) == text


def test_sizes_for_people() -> None:
    assert [size_text(size) for size in (5, 5120, 2.5e6, 1.8e9, 2e12)] == ["5 B", "5.12 kB", "2.5 MB", "1.8 GB", "2 TB"]


def test_a_recorder_warns_in_time_and_says_how_it_stands(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk seems to have room for some seconds at this rate."""
    monkeypatch.setattr(recorder_module, "free_bytes", lambda _: 2_000_000)
    monkeypatch.setattr("ether.recording.forecast_rules.LEAST_S", 0.5)
    recorder, writer = rig.recorder(), rig.record_writer()
    with caplog.at_level(logging.WARNING):
        for n in range(50):
            writer.record("record", f"v{n}", "x" * 20_000, (), {}).wait(patience(5))
        assert soon(lambda: "full in" in caplog.text, 10)
    # It warns first, and says the rate to those who look from outside behind that.
    assert soon(lambda: [each.bytes_per_s is not None for each in recorders_of("bench")] == [True], 10)
    [told] = recorders_of("bench")
    assert (told.recorder, told.folder, told.free_bytes) == ("recorder", str(rig.folder / "recorder"), 2_000_000)
    assert told.bytes_per_s is not None
    assert told.bytes_per_s > 0
    assert f"recorder writes to {rig.folder / 'recorder'}" in caplog.text
    assert caplog.text.count("full in") == 1, "once, not each second"
    recorder.detach()
    assert recorders_of("bench") == []


def test_a_recorder_that_was_killed_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = RecorderPage("gone", "recorder")
    page.say(RecorderFacts("recorder", "gone", str(tmp_path)))
    assert len(recorders_of("gone")) == 1
    monkeypatch.setitem(page._facts, "pid", 2**22 - 3)  # of no process
    page.say(RecorderFacts("recorder", "gone", str(tmp_path)))
    assert recorders_of("gone") == []
    page.close()


def test_a_ledger_that_cannot_be_asked_does_not_look_as_if_it_had_grown_from_nothing() -> None:
    """The gigabytes that are there again after a full disk would be a rate at which every disk is full at once."""
    growth = Growth()
    for now in range(0, 60, 5):
        growth.note(float(now), None if 20 <= now < 40 else 10**10 + 100 * now)
    assert growth.bytes_per_s == pytest.approx(100)


def test_sources_that_were_not_heard_of_for_the_longest_time_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ether.recording.recorder_page._HEARD_MOST", 3)
    heard = HeardSources()
    for outbox in ("a", "b", "c", "a", "d"):
        heard.note(outbox, "camera", 5, 0, 5, 0.0)
    assert [facts.outbox for facts in heard.facts(0.0, "")] == ["c", "a", "d"]
