"""A failure that comes again and again is told once and counted (H5, PH11), and stands in heartbeats (H6)."""

from __future__ import annotations

import logging

import pytest

from ether import ether_every, ether_get, ether_sub
from ether.cli.lab.heartbeat_texts import failures_text
from ether.instance.failure_rules import QUIET_S, SUM_EVERY_S, Failure, Failures
from ether.protocol.failure_detector import Heartbeat
from ether.testing import Lab


def failure(text: str = "no light", what: str = "Cam.take failed") -> Failure:
    return Failure(what, "ValueError", text, {"topic": "image"}, logging.ERROR)


def test_the_first_is_told_and_the_others_are_summed() -> None:
    failures = Failures()
    told = [failures.note("a", failure(), now, 1000.0 + now) for now in (0.0, 1.0, 2.0, 3.0)]
    assert told == [True, False, False, False]
    assert failures.due(SUM_EVERY_S - 0.1) == []
    (first,) = failures.due(SUM_EVERY_S)
    assert first.text == "the same error 3 times more in 5 s (4 in all)"
    assert failures.due(SUM_EVERY_S) == [], "each is in one sum"
    failures.note("a", failure("other"), 6.0, 1006.0)
    (last,) = failures.due(6.5, last=True)
    assert (last.count, last.total, last.since) == (1, 5, 1000.0)
    assert last.text.startswith("an error of this kind once more")


def test_kinds_are_told_apart_and_a_quiet_one_is_told_anew() -> None:
    failures = Failures()
    assert failures.note("a", failure(), 0.0, 0.0)
    assert failures.note("b", failure(), 0.0, 0.0)
    assert not failures.note("a", failure(), QUIET_S - 1, 0.0)
    assert failures.note("b", failure(), QUIET_S + 1, 0.0)
    assert failures.total == 4


def test_kinds_without_end_take_no_memory_without_end() -> None:
    failures = Failures()
    for number in range(1000):
        assert failures.note(number, failure(), 0.0, 0.0)
    assert len(failures._rows) <= 200
    assert failures.total == 1000


def test_heartbeats_carry_them() -> None:
    failures = Failures()
    assert failures.about() == {}
    for now in (0.0, 5.0):
        failures.note("a", failure("x" * 1000), now, 1000.0 + now)
    about = failures.about()
    assert (about["count"], about["times"], about["at"], about["since"]) == (2, 2, 1005.0, 1000.0)
    assert len(about["last"]) < 320
    beat = Heartbeat("1", 7, failures=about)
    assert Heartbeat.from_value(beat.to_value()) == beat
    assert "failures" not in Heartbeat("1", 7).to_value()
    for wrong in (3, {"count": "many"}, {**about, "at": float("nan")}):
        read = Heartbeat.from_value({**beat.to_value(), "failures": wrong})
        assert read is not None
        assert read.failures == {}


def test_what_ps_and_top_say() -> None:
    about = {"count": 25, "last": "Cam.take failed: ValueError: no light", "at": 0.0, "since": 0.0, "times": 24}
    told = failures_text("cam", about)
    assert told.startswith("cam: 25 errors, the last ")
    assert " ago: Cam.take failed: ValueError: no light (24 times, since " in told


class Fails:
    @ether_sub(topic="in")
    def take(self, number: int) -> None:
        raise ValueError(f"no {number}")

    @ether_every("1s")
    def tick(self) -> None:
        raise RuntimeError("no tick")

    @ether_get
    def ask(self) -> None:
        raise KeyError("no answer")


def test_h5_a_handler_that_fails_each_time_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Lab(objects={"one": Fails()}, collect_failures=True) as lab:
        for number in range(26):
            lab.pub({"number": number}, topic="in")
        lab.pub({"number": "many"}, topic="in")
        assert len(lab.failures) == 27, "none is lost to a test"
    own = [record for record in caplog.records if "Fails.take" in record.getMessage()]
    full = [record for record in own if record.exc_info]
    assert len(full) == 1
    assert len(own) == 3, [record.getMessage() for record in own]
    assert "Fails.take failed: ValidationFailed: " in own[1].getMessage()
    said = own[2].getMessage()
    assert "one: Fails.take failed: an error of this kind 25 times more in " in said
    assert "(26 in all): ValueError: no 25 [topic=in, message_id=" in said
    assert own[2].__dict__["ether"]["repeated"] == 25


def test_with_debug_nothing_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("Ether.one").setLevel(logging.DEBUG)
    try:
        with Lab(objects={"one": Fails()}, collect_failures=True) as lab:
            for number in range(5):
                lab.pub({"number": number}, topic="in")
    finally:
        logging.getLogger("Ether.one").setLevel(logging.NOTSET)
    assert sum("ValueError: no " in record.getMessage() for record in caplog.records) == 5 + 1
