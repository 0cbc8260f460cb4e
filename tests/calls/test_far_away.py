"""A broker that is 50 ms away, and allows 20 messages under way: what is urgent does not wait behind data, and an end
drops nothing that its time allows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from distance import Distance
from engine_params import STOCKS
from patience import patience
from running_brokers import running_broker

from ether import Ether
from ether.errors import LifecycleFailed

ONE_WAY_S = 0.05
BEHIND = 5_000
"""So many messages need 25 s: 20 for each round trip of 0.1 s."""

PENDING = 1_500
"""So many need 7.5 s, and draining has 4.8 here."""


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture(params=STOCKS)
def distance(request: pytest.FixtureRequest) -> Iterator[Distance]:
    with running_broker(request.param) as broker, Distance(broker.host, broker.port, ONE_WAY_S) as distance:
        yield distance


SOURCE = {"source": {"class_path": "far_parts.Source"}}


def test_a_call_and_its_answer_go_before_data_that_waits(ether: Ether, distance: Distance) -> None:
    """EB4: the call that publishes 5,000 messages is answered at once, and so is a call of a method with a thread of
    its own behind 5,000 of our own."""
    ether.tap({"session": "lanes", "instances": SOURCE}, broker=distance.url, timeout_s=patience(60))
    assert ether.get("source", "heard", timeout_s=patience(10)) == 0
    began = time.monotonic()
    assert ether.get("source", "burst", {"count": BEHIND}, timeout_s=patience(30)) == BEHIND
    assert time.monotonic() - began < patience(6), "its answer came behind its data"
    for number in range(BEHIND):
        ether.pub(number, topic="load")
    transport = ether._client.link.transport  # type: ignore[union-attr]
    waiting = transport.unsettled
    assert waiting > BEHIND * 0.8
    took: list[float] = []
    for _ in range(5):
        began = time.monotonic()
        heard = ether.get("source", "heard", timeout_s=patience(30))
        took.append(time.monotonic() - began)
    assert max(took) < patience(2.4), took  # behind the data it would be 20 s
    assert heard < BEHIND
    assert transport.unsettled > waiting - 2_000, "the data was still waiting"
    distance.close()  # the data would need 20 s more
    with suppress(LifecycleFailed):
        ether.shutdown()


def test_an_end_sends_what_its_time_allows_and_says_how_much_that_was_not(
    ether: Ether, distance: Distance, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"session": "pending", "instances": SOURCE, "end": {"work_s": 8}}
    ether.tap(config, broker=distance.url, timeout_s=patience(60))
    with Ether() as listener:
        listener.tap(session="pending", broker=distance.url)
        with listener.subscribe("load") as load, ThreadPoolExecutor(1) as reader:
            arriving = reader.submit(lambda: [load.get(patience(30)).value for _ in range(PENDING)])
            for number in range(PENDING):
                ether.pub(number, topic="load")
            began = time.monotonic()
            with pytest.raises(LifecycleFailed, match=r"[\d,]+ messages of main were still waiting") as caught:
                ether.shutdown()
            took_s = time.monotonic() - began
            assert arriving.result(patience(30)) == list(range(PENDING))
        assert set(caught.value.reasons) == {"the session", "source"}
        assert "messages were not handled" in caught.value.reasons["source"]
        assert took_s < patience(15)
        assert "had not acknowledged" not in caplog.text


def test_an_end_without_data_that_waits_raises_nothing(ether: Ether, distance: Distance) -> None:
    ether.tap({"session": "quiet", "instances": SOURCE}, broker=distance.url, timeout_s=patience(60))
    for number in range(200):
        ether.pub(number, topic="load")
    ether.shutdown()
