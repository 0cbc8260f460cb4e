"""Misspelt topics: said once, with the nearest one, where instances become ready and where a program uses a topic."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from engine_params import EMBEDDED
from mistake_parts import Camera, Logger, Thermometer
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.errors import ConditionNotMet


@pytest.fixture(scope="module")
def lab() -> Iterator[Ether]:
    """A session with a camera that hears `image`, and a thermometer that publishes `temperature`."""
    with Ether() as own:
        own.tap()
        own.host(Camera(), "cam")
        own.host(Thermometer(), "thermometer")
        yield own


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_h1_a_class_that_hears_what_nobody_publishes(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    lab.host(Logger(), "sink")
    try:
        assert said(caplog) == [
            "sink hears 'temprature', which nobody publishes. Did you mean 'temperature'? thermometer publishes it"
            " (Logger.take, Thermometer.measure)."
        ]
    finally:
        lab.unhost("sink")
    lab.host(Logger(), "sink")
    lab.unhost("sink")
    assert len(said(caplog)) == 1, "it is said once"


def test_h1_a_program_that_publishes_where_nobody_hears(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        lab.pub({"pixels": [1]}, topic="imgae")
    assert said(caplog) == ["nobody hears 'imgae'. Did you mean 'image'? cam hears it (Camera.keep_image)."]


def test_h1_a_program_that_listens_where_nobody_publishes(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with lab.subscribe("temperatur"):
            pass
    assert said(caplog) == [
        "nobody publishes 'temperatur'. Did you mean 'temperature'? thermometer publishes it (Thermometer.measure)."
    ]


def test_h1_a_program_that_waits_where_nobody_publishes(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConditionNotMet) as error:
        lab.wait_for("temperture", timeout_s=0.05)
    assert error.value.nearest == "temperature"
    assert str(error.value).endswith(
        "within 0.05 s: none came at all, and nobody publishes it. Did you mean 'temperature'?"
    )
    assert len(said(caplog)) == 1, "already while it waits"


def test_topics_of_programs_are_no_mistakes(lab: Ether, caplog: pytest.LogCaptureFixture) -> None:
    with lab.subscribe("images") as own, lab.subscribe("doses"), lab.subscribe("#"), lab.subscribe("+/x"):
        lab.pub([1], topic="images")
        assert own.get(timeout_s=patience(5)).value == [1]
        lab.pub(7, topic="dose")
        lab.pub(7, topic="mqtt:imgae")
        lab.pub({"pixels": [1]}, topic="image")
        lab.start()
    assert said(caplog) == []


def test_h1_two_classes_of_a_configuration(caplog: pytest.LogCaptureFixture) -> None:
    """From the announcements of processes of their own, when the session is ready; and of one that is added."""
    thermometer = {"class_path": "mistake_parts.Thermometer"}
    with Ether() as own:
        own.tap({"instances": {"source": thermometer, "sink": {"class_path": "mistake_parts.Logger"}}})
        (line,) = said(caplog)
        assert line.startswith("sink hears 'temprature', which nobody publishes. Did you mean 'temperature'? source")
        own.add("late", {"class_path": "mistake_parts.Logger"})
        assert said(caplog) == [line]


@pytest.mark.parametrize("engine", EMBEDDED)
def test_h1_code_of_an_instance_that_calls_nobody(engine: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its process knows no other members: what it uses is announced, and the program that started it compares."""
    parts = {"careless": "Careless", "source": "Thermometer", "cam": "Camera"}
    instances = {name: {"class_path": f"mistake_parts.{cls}"} for name, cls in parts.items()}
    with Ether() as own:
        own.tap({"broker": {"engine": engine}, "instances": instances}, timeout_s=patience(30))
        assert said(caplog) == []
        own.pub({"times": 3}, topic="go")
        assert soon(lambda: len(said(caplog)) == 2, 10), said(caplog)
        assert sorted(said(caplog)) == [
            "cam hears 'image', which nobody publishes. Did you mean 'imgae'? careless publishes it"
            " (Camera.keep_image).",
            "careless hears 'temperatur', which nobody publishes. Did you mean 'temperature'? source publishes it"
            " (Thermometer.measure).",
        ]

        def used() -> object:
            return next(member["used"] for member in own.instances() if member["name"] == "careless")

        wanted = {"publishes": ["imgae", "finished"], "subscribes": ["temperatur"]}
        assert soon(lambda: used() == wanted, 10), used()
