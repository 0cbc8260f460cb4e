"""A stage that says nothing, several things, or only changes: PH1 of the faults that users found."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether import Ether, ether, ether_get, ether_pub, ether_save, ether_sub, ether_sync
from ether.config import load_config
from ether.errors import ConfigError, EncodeError
from ether.spec.nothing import NOTHING
from ether.testing import Lab

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("engine")


class Mean:
    """Twelve reads make one fit: before the twelfth there is nothing to say."""

    def __init__(self, of: int = 12) -> None:
        self.of, self.reads = of, list[float]()

    @ether_sub(topic="read")
    @ether_pub(topic="fit")
    def add(self, value: float) -> Any:
        self.reads.append(value)
        if len(self.reads) < self.of:
            return NOTHING
        mean, self.reads = sum(self.reads) / self.of, []
        return {"mean": mean}


class Alarm:
    @ether_sub(topic="level")
    @ether_pub(topic="alarm", on="change")
    def watch(self, level: float) -> dict[str, bool]:
        return {"high": level > 80}

    @ether_sub(topic="level")
    @ether_pub(topic="trend", dead_band={"level": 5})
    def trend(self, level: float) -> dict[str, float]:
        return {"level": level}


class Tank:
    """Knows nothing of Ether; the registry says what is published."""

    def __init__(self) -> None:
        self.level = 0.0

    def warn(self, level: float) -> bool:
        self.level = level
        return level > 80


class Splitter:
    @ether_sub(topic="spectrum")
    @ether_pub(topic="peak")
    def peaks(self, values: list[float]) -> Iterator[dict[str, float]]:
        for at, value in enumerate(values):
            if value > 1:
                yield {"at": at, "height": value}

    @ether_sub(topic="later")
    @ether_pub(topic="tick")
    async def ticks(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @ether_get
    @ether_pub(topic="piece")
    def pieces(self, n: int) -> Iterator[int]:
        yield from range(n)

    @ether_get
    def listed(self, n: int) -> Iterator[int]:
        yield from range(n)

    @ether_get
    async def listed_later(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @ether_get
    @ether_pub(topic="quiet")
    def quiet(self) -> dict[str, int] | type(NOTHING):  # type: ignore[valid-type]  as a user may write it
        return NOTHING

    @ether_save
    def kept(self, n: int) -> Any:
        return NOTHING if n == 0 else n

    @ether_sync(topic="round")
    def round(self) -> Any:
        return NOTHING

    @ether_sub(topic="half")
    @ether_pub(topic="part")
    def breaks(self, n: int) -> Iterator[int]:
        yield n
        raise RuntimeError("the second part is broken")

    def own_use(self) -> list[int]:
        return [value for value in self.pieces(3) if value]


def test_a_stage_that_has_nothing_to_say_publishes_nothing() -> None:
    with Lab(objects={"mean": Mean(3)}) as lab:
        for value in (1, 2, 6, 7):
            lab.pub({"value": value}, topic="read")
        assert lab.values("fit") == [{"mean": 3.0}]


def test_none_stays_a_message() -> None:
    class Collector:
        @ether_sub(topic="a")
        @ether_pub(topic="b")
        def none(self, n: int) -> None:
            return None

    with Lab(objects={"collector": Collector()}) as lab:
        lab.pub({"n": 1}, topic="a")
        assert lab.values("b") == [None]


def test_only_changes_are_published() -> None:
    with Lab(objects={"alarm": Alarm()}) as lab:
        for level in (10, 20, 90, 95, 88, 70, 71):
            lab.pub({"level": level}, topic="level")
        assert lab.values("alarm") == [{"high": False}, {"high": True}, {"high": False}]
        assert lab.values("trend") == [{"level": float(n)} for n in (10, 20, 90, 70)]


def test_what_is_yielded_is_published_one_by_one() -> None:
    with Lab(objects={"splitter": Splitter()}) as lab:
        lab.pub({"values": [0, 3, 0.5, 7]}, topic="spectrum")
        lab.pub({"values": [0]}, topic="spectrum")
        lab.pub({"n": 3}, topic="later")
        assert lab.values("peak") == [{"at": 1, "height": 3.0}, {"at": 3, "height": 7.0}]
        assert lab.values("tick") == [0, 1, 2]


def test_what_was_yielded_before_a_failure_is_published(caplog: pytest.LogCaptureFixture) -> None:
    with Lab(objects={"splitter": Splitter()}, collect_failures=True) as lab, caplog.at_level(logging.ERROR):
        lab.pub({"n": 1}, topic="half")
        assert lab.values("part") == [1]
    assert "the second part is broken" in caplog.text


def test_the_objects_own_use_of_a_yielding_method_publishes_what_it_takes() -> None:
    splitter = Splitter()
    assert splitter.own_use() == [1, 2]
    with Lab(objects={"splitter": splitter}) as lab:
        assert splitter.own_use() == [1, 2]
        taken = splitter.pieces(9)
        assert next(taken) == 0
        taken.close()  # type: ignore[attr-defined]  a generator has it
        lab.settle()
        assert lab.values("piece") == [0, 1, 2, 0]


def test_what_could_not_be_published_does_not_hold_back_the_next() -> None:
    class Odd:
        def __init__(self) -> None:
            self.value: Any = object()

        @ether_pub(topic="odd", on="change")
        def say(self) -> Any:
            return self.value

    odd = Odd()
    with Lab(objects={"odd": odd}) as lab:
        with pytest.raises(EncodeError):
            odd.say()
        odd.value = 1
        odd.say()
        odd.say()
        lab.settle()
        assert lab.values("odd") == [1]


def test_nothing_is_one_object() -> None:
    assert ether.NOTHING is NOTHING
    assert pickle.loads(pickle.dumps(NOTHING)) is copy.deepcopy(NOTHING) is NOTHING
    assert repr(NOTHING) == "ether.NOTHING"
    assert not NOTHING


@pytest.mark.parametrize("engine", ENGINES)
def test_ph1_a_stage_in_a_session(engine: str) -> None:
    """Over a broker: recorded values, callers' answers, and a publication of nothing by the program."""
    own = Ether()
    session = f"ph1-{engine}"
    own.tap({"session": session, "record": ["fit", "peak"]}, broker={"engine": engine})
    try:
        own.host(Mean(12), name="mean")
        own.host(Splitter(), name="splitter")
        fits, peaks = own.subscribe("fit"), own.subscribe("peak")
        for value in range(24):
            own.pub({"value": value}, topic="read")
        own.pub({"values": [2, 3]}, topic="spectrum")
        assert [fits.get(patience(5)).value for _ in range(2)] == [{"mean": 5.5}, {"mean": 17.5}]
        assert [peaks.get(patience(5)).value["at"] for _ in range(2)] == [0, 1]
        assert own.get("splitter", "pieces", {"n": 3}) == [0, 1, 2]
        assert own.get("splitter", "listed", {"n": 2}) == [0, 1]
        assert own.get("splitter", "listed_later", {"n": 2}) == [0, 1]
        assert own.get("splitter", "quiet") is None
        assert own.save("splitter", "kept", {"n": 0})["result"] is None
        assert own.sync("round") == {"splitter": None}
        assert own.pub(NOTHING, topic="fit") is None
        assert soon(lambda: len(own.data(session, "fit")) == len(own.data(session, "peak")) == 2, 5)
    finally:
        own.shutdown()


def test_the_registry_says_it_too() -> None:
    """`on` is a boolean to a YAML 1.1 reader; here it is the word that was written."""
    text = """
    instances: {tank: {class_path: test_nothing_and_several.Tank}}
    registry:
      test_nothing_and_several.Tank:
        methods:
          warn: {ether_sub: {topic: level}, ether_pub: {topic: warning, on: change}}
        properties:
          level: {get: {topic: tank/level, every: 1s, dead_band: 0.5}}
    """
    with Lab(yaml.safe_load(text.replace("on:", "'on':"))) as lab:
        for level in (1, 1.4, 99, 98.7):
            lab.pub({"level": level}, topic="level")
            lab.advance(1)
        assert lab.values("warning") == [False, True]
        assert lab.values("tank/level") == [1.0, 99.0]


def test_the_word_on_is_a_key_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "registry:\n  a.Tank:\n    methods:\n"
        "      warn: {ether_pub: {on: change}}\n      low: {ether_pub: {on: chnge}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:5: " in str(caught.value)
    assert "'chnge'" in str(caught.value)
    assert "expected change" in str(caught.value)
