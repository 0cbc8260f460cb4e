"""A reader that is slower than its source (P2): 640 x 480 x 3 bytes, 15 times a second, and a model that takes 150 ms.

With ETHER_LONG=1 the camera runs for five minutes. The short form is 4 s, which the model needs 9 s for.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether import Ether
from ether.cli.lab.heartbeat_texts import state_text
from ether.cli.lab.top import row_of
from ether.errors import LifecycleFailed
from ether.session.watching.heartbeats import Heartbeats

LONG = os.environ.get("ETHER_LONG") == "1"
FRAMES = 15 * (300 if LONG else 4)
HANDLED_HZ = 1 / 0.15
pytestmark = [pytest.mark.timeout(1200 if LONG else 120), pytest.mark.in_turn("engine")]

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    try:
        own.shutdown()
    except LifecycleFailed:
        if not LONG:
            raise


def tap(ether: Ether, engine: str, **wishes: Any) -> None:
    """The camera, and the model with what it wants of waiting frames."""
    model = {"class_path": "reader_parts.Model", **wishes}
    camera = {"class_path": "reader_parts.Camera", "kwargs": {"frames": FRAMES}, "after": "model"}
    ether.tap({"session": "slow-reader", "instances": {"model": model, "cam": camera}}, broker={"engine": engine})


class Boxes:
    """What the model made, in its order."""

    def __init__(self, ether: Ether) -> None:
        self._subscription = ether.subscribe("boxes")
        self.numbers: list[int] = []
        self.ages_s: list[float] = []

    def take(self, timeout_s: float) -> bool:
        """Take the next one; False where none comes in time."""
        try:
            value: Any = self._subscription.get(timeout_s).value
        except TimeoutError:
            return False
        self.numbers.append(value["n"])
        self.ages_s.append(value["age_s"])
        return True

    def take_until(self, last: int, each_s: float) -> None:
        """Take up to that number, or until none comes for so long."""
        while (not self.numbers or self.numbers[-1] < last) and self.take(each_s):
            pass

    def newest(self) -> int:
        """The number of the newest that is here."""
        while self.take(0.01):
            pass
        return self.numbers[-1]

    def close(self) -> None:
        self._subscription.close()


def top_row(ether: Ether, name: str) -> dict[str, Any]:
    """An instance's row in `ether top`."""
    client = ether._joined("the test")
    heartbeats = Heartbeats(client)
    try:
        heartbeats.collect(2.3)
        return next(row_of(member, heartbeats) for member in client.session.announcements() if member.name == name)
    finally:
        heartbeats.close()


def missed_numbers(err: str) -> set[int]:
    """The numbers that the log names as missed."""
    missed: set[int] = set()
    for first, last in re.findall(r"model missed messages of cam on 'frame', number (\d+)(?: to (\d+))?", err):
        missed |= set(range(int(first), int(last or first) + 1))
    return missed


def test_p2_keep_all_loses_nothing_that_it_does_not_name(
    ether: Ether, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tap(ether, engine)
    boxes = Boxes(ether)
    ether.start()
    looked_at = time.monotonic() + min(FRAMES / 15 / 2, 15)  # later the source keeps no more, and it falls no further
    while time.monotonic() < looked_at:
        boxes.take(patience(2))
    row = top_row(ether, "model")
    assert row["behind_s"] > 1.0
    assert row["falls_behind"]
    assert row["age_s"] >= row["behind_s"]
    assert state_text(row["state"], 25.4) == "ready, behind: 25 s"
    if not LONG:
        assert soon(lambda: ether.get("cam", "shot") == FRAMES, 20)  # from now on it gets less
        most = FRAMES - boxes.newest()
        queued = top_row(ether, "model")["queued"]
        assert FRAMES - boxes.newest() - 4 <= queued <= most, "one is in work, and some boxes are on their way"
    boxes.take_until(FRAMES, each_s=patience(5))
    boxes.close()
    assert boxes.numbers == sorted(set(boxes.numbers)), "in order, none twice"
    lost = set(range(1, FRAMES + 1)) - set(boxes.numbers)
    if LONG:
        assert lost <= missed_numbers(capfd.readouterr().err)
    else:
        assert not lost


def test_p2_keep_latest_stays_young_and_its_memory_flat(ether: Ether, engine: str) -> None:
    tap(ether, engine, keep="latest")
    boxes = Boxes(ether)
    ether.start()
    memory: list[float] = []
    until = time.monotonic() + FRAMES / 15
    while time.monotonic() < until:
        boxes.take(patience(2))
        if not memory or len(boxes.numbers) % 20 == 0:
            memory.append(top_row(ether, "model")["rss_mb"])
    assert soon(lambda: ether.get("cam", "shot") == FRAMES, 20)
    boxes.take_until(FRAMES, each_s=patience(2))
    boxes.close()
    assert boxes.numbers[-1] == FRAMES, "the newest is never left out"
    assert boxes.numbers == sorted(set(boxes.numbers))
    assert len(boxes.numbers) > 0.5 * FRAMES / 15 * HANDLED_HZ, "it was busy all the time"
    settled = sorted(boxes.ages_s[3:])  # where each waits for its turn, the last one is 5 s old
    assert settled[len(settled) // 2] < patience(0.5), f"{settled}"
    assert settled[-1] < patience(2.0), f"{settled[-5:]}"
    assert max(memory) - min(memory) < 40, memory
    skipped = top_row(ether, "model")["skipped"]["detect"]
    assert skipped == {"keep": FRAMES - len(boxes.numbers), "age": 0}


def test_p2_max_age_skips_what_is_late(ether: Ether, engine: str) -> None:
    tap(ether, engine, max_age="0.3s")
    boxes = Boxes(ether)
    ether.start()
    boxes.take_until(FRAMES, each_s=patience(2))
    boxes.close()
    settled = sorted(boxes.ages_s[3:])  # 0.3 s when its turn came, and 0.15 s in work
    assert settled[len(settled) // 2] < patience(0.7), f"{settled}"
    assert settled[-1] < patience(2.0), f"{settled[-5:]}"
    skipped = top_row(ether, "model")["skipped"]["detect"]
    assert skipped["keep"] == 0
    assert skipped["age"] + len(boxes.numbers) == FRAMES
