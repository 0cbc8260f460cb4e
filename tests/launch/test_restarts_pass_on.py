"""Messages to an instance that is being restarted wait for it (PH2): none is lost, in order, none comes twice."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether import Ether
from ether.errors import LifecycleFailed

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    try:
        own.shutdown()
    except LifecycleFailed:
        pass  # what was killed on purpose cannot be asked


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tap(ether: Ether, engine: str, **instances: dict[str, Any]) -> None:
    described = {
        name: {**given, "class_path": f"restarted_parts.{given['class_path']}"} for name, given in instances.items()
    }
    ether.tap({"session": "restarts", "instances": described}, broker={"engine": engine})


class Source(threading.Thread):
    """Publishes 1 to `count` at 50 Hz, from the test's own program."""

    def __init__(self, ether: Ether, count: int, topic: str = "number", hz: float = 50.0) -> None:
        super().__init__(daemon=True)
        self.ether, self.count, self.topic, self.hz = ether, count, topic, hz
        self.sent = 0
        self.stopped = False
        self.start()

    def run(self) -> None:
        for n in range(1, self.count + 1):
            self.ether.pub({"n": n}, topic=self.topic)
            self.sent = n
            if self.stopped:
                return
            time.sleep(1 / self.hz)

    def stop(self) -> int:
        """Publish no more; returns the last number."""
        self.stopped = True
        self.join(patience(5))
        return self.sent

    def reach(self, number: int) -> int:
        """Wait until it has published that number; returns it."""
        assert soon(lambda: self.sent >= number, 20)
        return number


class Heard:
    """What the instance has handled, in its order."""

    def __init__(self, ether: Ether, topic: str = "counted") -> None:
        self._subscription = ether.subscribe(topic)
        self.values: list[dict[str, Any]] = []

    def until(self, last: int, each_s: float = 10.0) -> list[int]:
        """The numbers up to the last one."""
        while not self.values or self.values[-1]["n"] != last:
            value: Any = self._subscription.get(patience(each_s)).value
            self.values.append(value)
        return [value["n"] for value in self.values]

    def first(self, count: int) -> list[dict[str, Any]]:
        """That many of them, in whichever order they come: one handler may overtake another."""
        while len(self.values) < count:
            value: Any = self._subscription.get(patience(10)).value
            self.values.append(value)
        return self.values

    def close(self) -> None:
        self._subscription.close()


def everything(count: int) -> list[int]:
    return list(range(1, count + 1))


def test_ph2_an_orderly_restart_loses_nothing(ether: Ether, engine: str) -> None:
    tap(ether, engine, counter={"class_path": "Counter"})
    heard = Heard(ether)
    source = Source(ether, 1000)
    for _ in range(3):
        heard.until(source.reach(source.sent + 20))  # each process has handled something
        ether.restart("counter")
    source.reach(source.sent + 20)
    last = source.stop()
    assert heard.until(last) == everything(last)
    assert len({value["pid"] for value in heard.values}) == 4


@pytest.mark.in_turn("engine")
def test_ph2_a_restart_that_takes_long_loses_nothing(ether: Ether, engine: str) -> None:
    tap(ether, engine, counter={"class_path": "SlowStart"})
    heard = Heard(ether)
    source = Source(ether, 200)
    source.reach(50)
    began = time.monotonic()
    ether.restart("counter")
    assert time.monotonic() - began > 1.8
    assert heard.until(200) == everything(200)
    source.join()


@pytest.mark.in_turn("engine")
def test_ph2_a_slow_reader_is_restarted_at_once_and_what_waits_is_passed_on(ether: Ether, engine: str) -> None:
    """100 messages wait, 9 s of work: the restart waits for the one in work alone."""
    tap(ether, engine, counter={"class_path": "Counter", "kwargs": {"pause_s": 0.1}})
    heard = Heard(ether)
    for n in everything(100):
        ether.pub({"n": n}, topic="number")
    heard.until(10)
    began = time.monotonic()
    ether.restart("counter")
    assert time.monotonic() - began < patience(4)
    assert heard.until(100) == everything(100)
    assert len({value["pid"] for value in heard.values}) == 2


@pytest.mark.in_turn("engine")
def test_ph2_a_source_that_ends_with_its_last_message(ether: Ether, engine: str) -> None:
    """Nothing comes after the restart that could show a hole: what was missed has to be asked for."""
    tap(ether, engine, counter={"class_path": "SlowStart"}, talker={"class_path": "Talker"})
    heard = Heard(ether)
    ether.pub({"first": 1, "last": 60}, topic="talk")
    heard.until(20)
    ether.restart("counter")
    assert heard.until(60) == everything(60)


@pytest.mark.in_turn("engine")
def test_ph2_sources_that_begin_meanwhile(ether: Ether, engine: str) -> None:
    tap(ether, engine, counter={"class_path": "SlowStart"}, talker={"class_path": "Talker"})
    heard = Heard(ether)
    ether.pub({"n": 1}, topic="number")
    heard.until(1)
    restart = threading.Thread(target=lambda: ether.restart("counter"))
    restart.start()
    assert soon(lambda: state_of(ether, "counter") in ("restarting", "starting"), 5)
    ether.pub({"first": 101, "last": 110}, topic="talk")
    restart.join()
    assert heard.until(110) == [1, *range(101, 111)]


@pytest.mark.in_turn("engine")
def test_ph2_topics_of_a_wildcard(ether: Ether, engine: str) -> None:
    tap(ether, engine, counter={"class_path": "Wild"})
    heard = Heard(ether)
    for round_ in range(3):
        for n in range(1, 31):
            ether.pub({"n": 100 * round_ + n, "topic": f"{n % 3}"}, topic=f"numbers/{n % 3}")
        if round_ < 2:
            ether.restart("counter")
    heard.first(90)  # each topic has an order of its own, and the last number of all need not come last
    for topic in "012":
        numbers = [value["n"] for value in heard.values if value["topic"] == topic]
        assert numbers == [100 * round_ + n for round_ in range(3) for n in range(1, 31) if str(n % 3) == topic]


@pytest.mark.in_turn("engine")
def test_ph2_each_method_goes_on_where_it_was(ether: Ether, engine: str) -> None:
    """Two methods on one topic. One lags behind, and handles two messages at a time."""
    tap(ether, engine, pair={"class_path": "Pair"})
    quick, lagging = Heard(ether, "quick"), Heard(ether, "lagging")
    for n in everything(60):
        ether.pub({"n": n}, topic="number")
    quick.until(60)
    ether.restart("pair")
    ether.pub({"n": 61}, topic="number")
    assert quick.until(61) == everything(61)
    assert sorted(value["n"] for value in lagging.first(61)) == everything(61)


class LeftOut:
    """The numbers that the log names as in work when the process died. A process's log reaches the terminal through its
    launcher, and so may come later than what the process publishes."""

    _PATTERN = re.compile(r"on 'number', number (\d+)(?: to (\d+))?, were in work in count when the process died")

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd, self._said = capfd, ""

    def numbers(self) -> set[int]:
        self._said += self._capfd.readouterr().err
        found = (range(int(first), int(last or first) + 1) for first, last in self._PATTERN.findall(self._said))
        return {number for numbers in found for number in numbers}

    def soon(self, wanted: set[int]) -> set[int]:
        """What is named, once that is."""
        soon(lambda: wanted <= self.numbers(), 5)
        return self.numbers()


@pytest.mark.in_turn("engine")
def test_ph2_a_crash_loses_only_what_was_in_work_and_names_it(
    ether: Ether, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tap(ether, engine, counter={"class_path": "Counter", "kwargs": {"pause_s": 0.01}, "restart": "on-failure"})
    heard = Heard(ether)
    source = Source(ether, 200)
    for at in (50, 120):
        source.reach(at)
        os.kill(ether.get("counter", "pid"), signal.SIGKILL)
    numbers = heard.until(200, each_s=20)
    source.join()
    named = LeftOut(capfd).soon(set(everything(200)) - set(numbers))
    assert len(named) <= 2, "one for each kill"
    assert set(numbers) | named == set(everything(200))
    assert list(dict.fromkeys(numbers)) == sorted(set(numbers)), "in order"
    twice = [n for n, times in Counter(numbers).items() if times > 1]
    assert len(twice) <= 2, "what was just done may come again, because its result may not have left"


@pytest.mark.in_turn("engine")
def test_ph2_a_message_that_ends_the_process_is_left_out_and_the_others_are_handled(
    ether: Ether, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tap(ether, engine, counter={"class_path": "Fragile", "kwargs": {"ends_at": [10, 20]}, "restart": "on-failure"})
    heard = Heard(ether)
    source = Source(ether, 60)
    numbers = heard.until(60, each_s=20)
    source.join()
    assert list(dict.fromkeys(numbers)) == [n for n in everything(60) if n not in (10, 20)]
    assert LeftOut(capfd).soon({10, 20}) == {10, 20}


@pytest.mark.in_turn("engine")
def test_ph2_an_instance_that_is_removed_and_added_begins_anew(ether: Ether, engine: str) -> None:
    tap(ether, engine, counter={"class_path": "Counter"})
    heard = Heard(ether)
    ether.pub({"n": 1}, topic="number")
    heard.until(1)
    ether.remove("counter")
    ether.pub({"n": 2}, topic="number")
    ether.add("counter", {"class_path": "restarted_parts.Counter"})
    ether.pub({"n": 3}, topic="number")
    assert heard.until(3) == [1, 3]


def state_of(ether: Ether, name: str) -> str:
    return next((str(member["state"]) for member in ether.instances() if member["name"] == name), "")
