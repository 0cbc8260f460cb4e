"""The first value counts (V5): what a source publishes from its first moment on reaches those that are started with it.

With ETHER_LONG=1 the receiver is built for 5 s, over all engines, and a source publishes more than it keeps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from engine_params import EVERY, On
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.cli.data.status import status
from ether.errors import StartFailed
from ether.launch.opening_rules import OpeningRules

LONG = os.environ.get("ETHER_LONG") == "1"
BUILD_S = 5.0 if LONG else 1.5


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def lab(source: str, build_s: float = BUILD_S, **kwargs: Any) -> dict[str, Any]:
    return {
        "camera": {"class_path": f"first_parts.{source}", "kwargs": kwargs},
        "analysis": {"class_path": "first_parts.Analysis", "kwargs": {"build_s": build_s}},
    }


def numbers(ether: Ether, least: int) -> list[int]:
    """What the analysis has seen, once it has seen so many."""
    seen: list[int] = []

    def enough() -> bool:
        seen[:] = ether.get("analysis", "numbers")
        return len(seen) >= least

    assert soon(enough, patience(10)), seen
    return seen


@pytest.mark.parametrize("engine", EVERY if LONG else EVERY[1:2])
def test_the_first_image_of_a_camera_is_analysed(ether: Ether, engine: str, on: On) -> None:
    """The reproducer of V5: `analysis` began with image 8."""
    ether.tap({"instances": lab("Camera")}, broker=on(engine))
    seen = numbers(ether, 3)
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("engine", EVERY if LONG else EVERY[:1])
def test_a_thread_that_publishes_from_init_is_heard_from_its_first_value_on(ether: Ether, engine: str, on: On) -> None:
    """100 images in 1 s, all of them gone before the analysis listens; and a calibration that is published once."""
    ether.tap({"instances": lab("Streamer", 1.5)}, broker=on(engine))
    assert numbers(ether, 100) == list(range(1, 101))
    assert ether.get("analysis", "calibrations") == [3]


def test_it_is_waited_for_no_longer_than_the_setting_says(
    ether: Ether, on: On, caplog: pytest.LogCaptureFixture
) -> None:
    """The camera begins 0.5 s after it is ready. The analysis, which is ready later, gets the first image all the same:
    from the camera, which keeps it."""
    ether.tap({"begin_within_s": 0.5, "instances": lab("Camera", 2.0)}, broker=on("amqtt"))
    seen = numbers(ether, 8)
    assert seen == list(range(1, len(seen) + 1))
    assert "camera: ticks begin without analysis, not ready after 0.5 s (begin_within_s)" in caplog.text


def test_an_instance_that_is_added_later_waits_for_nobody(ether: Ether, on: On) -> None:
    ether.tap({"instances": {"slow": {"class_path": "first_parts.Analysis", "kwargs": {"build_s": 0.0}}}})
    with ether.subscribe("image") as images:
        ether.add("camera", {"class_path": "first_parts.Camera"})
        assert images.get(timeout_s=patience(4)).value == {"n": 1}


def test_a_camera_records_although_the_machine_beside_it_is_off(ether: Ether, on: On) -> None:
    """The PC is off and the Pi boots: an agent is missing, and the camera waits for it no longer than it says."""
    instances = lab("Camera", 0.0) | {"far": {"class_path": "first_parts.Analysis", "host": "pc"}}
    broker = on("amqtt")
    with pytest.raises(StartFailed, match="no agent 'pc'"):
        ether.tap({"session": "off", "record": "all", "begin_within_s": 1.0, "instances": instances}, broker=broker,
                  timeout_s=patience(16))  # fmt: skip
    values = [record.value["n"] for record in ether.data("off", "image")]
    assert values[:3] == [1, 2, 3]


@pytest.mark.skipif(not LONG, reason="12,000 messages: ETHER_LONG=1")
def test_what_a_declared_receiver_has_missed_is_named_by_the_proof(
    ether: Ether, on: On, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than a source keeps for those that come later: 10,000 messages. What is missing is named, by its numbers."""
    instances = lab("Streamer", 3.5, images=12_000, pause_s=0.0)
    ether.tap({"session": "proof", "record": ["brightness"], "instances": instances}, broker=on("mosquitto"))
    assert soon(lambda: ether.get("analysis", "last") == 12_000, patience(20))
    seen = ether.get("analysis", "numbers")
    ether.shutdown()
    capsys.readouterr()
    status("proof", json=True)
    told = json.loads(capsys.readouterr().out)
    missed = [note for note in told["missed"] if note["topic"] == "image"]
    assert {(note["by"], note["source"]) for note in missed} == {("analysis", "camera")}
    lost = [number for note in missed for number in range(note["first"], note["last"] + 1)]
    assert seen == sorted(seen)
    assert sorted([*seen, *lost]) == list(range(1, 12_001))  # what was handled and what was missed, nothing twice
    status("proof")
    assert f"analysis never got image of camera, number {missed[0]['first']:,} to" in capsys.readouterr().out


def test_who_begins_when() -> None:
    rules = OpeningRules(("camera", "analysis", "recorder"), ("camera", "analysis"), 10.0)
    assert rules.look({"camera"}, 100.0) == ([], ["analysis", "recorder"])
    assert rules.next_s(104.0) == 6.0
    assert rules.look({"camera"}, 110.0) == (["camera"], ["analysis", "recorder"])
    assert rules.look({"camera"}, 111.0).names == []  # each is told once
    assert rules.look({"camera", "recorder"}, 112.0).names == []
    assert rules.look({"camera", "recorder", "analysis"}, 113.0) == (["analysis"], [])
    assert rules.over
