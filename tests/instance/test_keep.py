"""Subscribers that do not want all messages that wait: `keep` and `max_age`, over every engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing, soon

from ether import Ether, ether_get, ether_sub
from ether.cli.lab.ps import member_rows
from ether.config import EtherInstanceConfig
from ether.connection.keep_rules import Skipped
from ether.errors import ConfigError, MarkError
from ether.instance.registry import registry_marks, registry_options
from ether.spec.marks import MarkKind
from ether.spec.methods import describe, describe_wrapped
from ether.testing import Lab

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.in_turn("ether")


@pytest.fixture(params=ENGINES, scope="module")
def ether(request: pytest.FixtureRequest) -> Iterator[Ether]:
    """A session over each engine; tests host objects of their own in it."""
    own = Ether()
    own.tap({"session": "keep"}, broker={"engine": request.param})
    yield own
    own.shutdown()


class Gate:
    """A handler that waits inside of its first message until the test opens it, and notes what it is given."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.marked = threading.Event()
        self.seen: list[int] = []

    def take(self, n: int) -> None:
        self.begun.set()
        assert self.open.wait(patience(20))
        self.seen.append(n)

    @ether_sub(topic="mark")
    @ether_get(concurrency=2)
    def mark(self) -> None:
        """On threads of its own: hears the mark while `take` waits."""
        self.marked.set()

    @ether_get
    def rest(self) -> list[int]:
        """In line with the messages: when it answers, they are handled."""
        return self.seen


class Latest(Gate):
    @ether_sub(topic="frame", keep="latest")
    def look(self, n: int) -> None:
        self.take(n)


class Newest3(Gate):
    @ether_sub(topic="frame", keep=3)
    def look(self, n: int) -> None:
        self.take(n)


class Young(Gate):
    @ether_sub(topic="frame", max_age="2s")
    def look(self, n: int) -> None:
        self.take(n)


class Async(Gate):
    @ether_sub(topic="frame", keep="latest")
    async def look(self, n: int) -> None:
        await asyncio.to_thread(self.take, n)


class Image(Gate):
    @ether_sub(topic="frame", keep="latest")
    def look(self, n: int, image: np.ndarray) -> None:
        assert image.nbytes == 1_000_000
        self.take(n)


class Foreign(Gate):
    @ether_sub(topic="frame", keep="latest", max_age="1h")
    def look(self, n: int) -> None:
        self.take(n)


class Wild(Gate):
    @ether_sub(topic="cam/+", keep="latest")
    def look(self, n: int) -> None:
        self.take(n)


class Several(Gate):
    """Two methods on one topic, each with its own wish."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[int] = []

    @ether_sub(topic="frame", keep="latest")
    def look(self, n: int) -> None:
        self.take(n)

    @ether_sub(topic="frame")
    def note(self, n: int) -> None:
        self.all.append(n)


class Mixed(Gate):
    """One method, two subscriptions."""

    @ether_sub(topic="all")
    @ether_sub(topic="frame", keep="latest")
    def look(self, n: int) -> None:
        self.take(n)


class Side(Gate):
    """Handled beside the worker, two at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(3)

    @ether_sub(topic="frame", keep="latest")
    @ether_get(concurrency=2)
    def look(self, n: int) -> None:
        if n < 2:
            self.both.wait(patience(20))
        self.take(n)


def pub_and_open(ether: Ether, gate: Gate, publish: Callable[[int], object], count: int = 50) -> list[int]:
    """Publish 0, and while it is handled 1 to `count`; what the handler was given, when it has come to rest."""
    ether.host(gate, "gate")
    try:
        publish(0)
        assert gate.begun.wait(patience(5))
        for n in range(1, count + 1):
            publish(n)
        ether.pub(None, topic="mark")
        assert gate.marked.wait(patience(10)), "what was published before the mark has arrived"
        gate.open.set()
        ether.get("gate", "rest", timeout_s=patience(10))
        return gate.seen
    finally:
        gate.open.set()
        ether.unhost("gate")


def skipped_of(ether: Ether, name: str = "gate") -> dict[str, Any]:
    """What an instance's heartbeat says of skipped messages."""
    rows = {row["name"]: row for row in member_rows(ether._joined("the test"))}
    return dict(rows[name]["skipped"])


def frames(ether: Ether) -> Callable[[int], object]:
    return lambda n: ether.pub({"n": n}, topic="frame")


def test_latest(ether: Ether) -> None:
    assert pub_and_open(ether, Latest(), frames(ether)) == [0, 50]


def test_the_newest_three_in_order(ether: Ether) -> None:
    assert pub_and_open(ether, Newest3(), frames(ether)) == [0, 48, 49, 50]


def test_an_async_method(ether: Ether) -> None:
    assert pub_and_open(ether, Async(), frames(ether)) == [0, 50]


def test_large_messages(ether: Ether) -> None:
    image = np.zeros((1000, 1000), np.uint8)
    assert pub_and_open(ether, Image(), lambda n: ether.pub({"n": n, "image": image}, topic="frame")) == [0, 50]


def test_foreign_messages(ether: Ether) -> None:
    client = ether._joined("the test")
    topic = client.topics.data("frame")
    assert pub_and_open(ether, Foreign(), lambda n: client.link.transport.publish(topic, b'{"n": %d}' % n)) == [0, 50]


def test_a_wildcard_has_the_newest_of_each_topic(ether: Ether) -> None:
    publish = lambda n: ether.pub({"n": n}, topic=f"cam/{n % 2}")  # noqa: E731
    assert pub_and_open(ether, Wild(), publish) == [0, 49, 50]


def test_several_methods_on_one_topic_have_each_its_own(ether: Ether) -> None:
    gate = Several()
    assert pub_and_open(ether, gate, frames(ether)) == [0, 50]
    assert gate.all == list(range(51))


def test_each_subscription_of_a_method_has_its_own(ether: Ether) -> None:
    publish = lambda n: ether.pub({"n": n}, topic="all" if n % 10 == 0 else "frame")  # noqa: E731
    assert sorted(pub_and_open(ether, Mixed(), publish)) == [0, 10, 20, 30, 40, 49, 50]


def test_a_method_with_concurrency(ether: Ether) -> None:
    gate = Side()
    ether.host(gate, "gate")
    try:
        for n in (0, 1):
            ether.pub({"n": n}, topic="frame")
            assert soon(lambda waits=n + 1: gate.both.n_waiting == waits, 5)
        gate.both.wait(patience(5))
        for n in range(2, 50):
            ether.pub({"n": n}, topic="frame")
        ether.pub(None, topic="mark")
        assert gate.marked.wait(patience(10))
        gate.open.set()
        assert soon(lambda: len(gate.seen) == 3, 5)
        assert sorted(gate.seen) == [0, 1, 49]
    finally:
        gate.open.set()
        ether.unhost("gate")


def test_what_is_too_old_when_its_turn_comes_is_skipped(ether: Ether) -> None:
    gate = Young()
    ether.host(gate, "gate")
    try:
        publish = frames(ether)
        publish(0)
        assert gate.begun.wait(patience(5))
        for n in range(1, 4):
            publish(n)
        ether.pub(None, topic="mark")
        assert gate.marked.wait(patience(10))
        threading.Event().wait(2.2)  # bare: they grow old
        gate.open.set()
        ether.get("gate", "rest")
        publish(4)
        assert soon(lambda: 4 in gate.seen, 5)
        assert gate.seen == [0, 4]
        assert soon(lambda: skipped_of(ether) == {"look": {"keep": 0, "age": 3}}, 5)
    finally:
        gate.open.set()
        ether.unhost("gate")


def test_skipped_messages_are_counted_and_told_once(ether: Ether, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    gate = Latest()
    ether.host(gate, "gate")
    try:
        publish = frames(ether)
        publish(0)
        assert gate.begun.wait(patience(5))
        for n in range(1, 201):
            publish(n)
        ether.pub(None, topic="mark")
        assert gate.marked.wait(patience(10))
        assert soon(lambda: skipped_of(ether) == {"look": {"keep": 199, "age": 0}}, 5)
    finally:
        gate.open.set()
        ether.unhost("gate")
    told = [line for line in caplog.messages if "skipped" in line]
    assert 1 <= len(told) <= 2, "the first, and the sum at the end"
    assert "gate: look has skipped" in told[0]
    assert "(keep=latest)" in told[0]


# -- in a program


def arrived(ether: Ether) -> None:
    """Return when everything that was published before has arrived at this program's subscriptions."""
    client = ether._joined("the test")
    client.link.flush(patience(5))
    client.session.catch_up(patience(5))


def test_a_programs_subscription(ether: Ether) -> None:
    with ether.subscribe("frame", keep="latest") as latest, ether.subscribe("frame", keep=2) as two:
        for n in range(20):
            ether.pub(n, topic="frame")
        arrived(ether)
        assert latest.get().value == 19
        assert [two.get().value, two.get().value] == [18, 19]
        assert (latest.skipped, two.skipped) == (Skipped(19, 0), Skipped(18, 0))
        with pytest.raises(TimeoutError):
            latest.get(timeout_s=0.05)
        ether.pub(20, topic="frame")
        assert latest.get().value == 20


def test_a_programs_subscription_skips_what_is_too_old(ether: Ether) -> None:
    with ether.subscribe("frame", max_age="2000ms") as young:
        ether.pub("fresh", topic="frame")
        assert young.get().value == "fresh"
        ether.pub("old", topic="frame")
        arrived(ether)
        threading.Event().wait(2.2)  # bare: it grows old
        ether.pub("new", topic="frame")
        assert young.get().value == "new"
        assert young.skipped == Skipped(0, 1)


def test_a_program_iterates_over_the_latest(ether: Ether) -> None:
    with ether.subscribe("frame", keep="latest") as frames:
        seen = []
        publisher = threading.Thread(target=lambda: [ether.pub(n, topic="frame") for n in range(500)])
        publisher.start()
        for message in frames:
            seen.append(message.value)
            if message.value == 499:
                break
        publisher.join()
        assert seen == sorted(set(seen))
        assert len(seen) + frames.skipped.by_keep == 500


def test_what_is_skipped_never_counts_as_unread(ether: Ether) -> None:
    """Far more than the 1,000 unread messages, or 16 MiB, at which acknowledgements are held back."""
    with ether.subscribe("frame", keep="latest") as latest, ether.subscribe("end") as end:
        for n in range(60):
            ether.pub({"n": n, "fill": b"x" * 1_000_000}, topic="frame")
        ether.pub(None, topic="end")
        end.get(timeout_s=patience(20))
        value = latest.get().value
        assert isinstance(value, dict)
        assert value["n"] == 59
        assert latest.skipped == Skipped(59, 0)


# -- wrong wishes


@pytest.mark.parametrize(
    ("keep", "max_age", "says"),
    [
        ("lates", None, r"keep: found 'lates'; expected all, latest, or .* such as 10\. Did you mean 'latest'\?"),
        (0, None, "keep: found 0; expected all, latest"),
        (True, None, "keep: found True; expected all, latest"),
        (2.0, None, r"keep: found 2\.0; expected"),
        (None, "0.5", r"max_age: found '0\.5'; write a number and its unit .* such as 0\.5s"),
        ("all", 0.5, r"max_age: found 0\.5; write a number and its unit"),
        (None, "-1s", "max_age: found '-1s'"),
    ],
)
def test_wishes_that_are_none(ether: Ether, keep: Any, max_age: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ether.subscribe("frame", keep=keep, max_age=max_age)
    with pytest.raises(MarkError, match=f"ether_sub: {says}"):
        ether_sub(topic="frame", keep=keep, max_age=max_age)


# -- where a wish may stand


class Plain:
    def look(self, n: int) -> None: ...

    @ether_sub(topic="b", keep=2)
    def own(self) -> None: ...


def wishes(config: dict[str, Any], instance: EtherInstanceConfig | None = None) -> dict[str, Any]:
    """`keep` and `max_age` of each method of `Plain` under a configuration."""
    from ether.config import load_config

    path = f"{__name__}.Plain"
    options = registry_options(load_config(config), instance)
    spec = describe_wrapped(Plain, registry_marks(options)[path])
    return {m.name: [(k.keep, k.max_age) for k in m.of_kind(MarkKind.SUB)] for m in spec.methods}


def test_wishes_in_the_registry_and_for_a_whole_instance() -> None:
    path = f"{__name__}.Plain"
    registry = {path: {"methods": {"look": {"ether_sub": [{"topic": "a", "keep": "latest"}, {"topic": "c"}]}}}}
    config = {"registry": registry}
    assert wishes(config) == {"look": [("latest", None), (None, None)], "own": [(2, None)]}
    instance = EtherInstanceConfig(class_path=path, keep=10, max_age="0.5s")
    assert wishes(config, instance) == {"look": [("latest", "0.5s"), (10, "0.5s")], "own": [(2, "0.5s")]}


def test_ether_start_takes_wishes_too() -> None:
    from ether import ether_start

    class Started:
        @ether_start(max_age="5s")
        def begin(self) -> None: ...

    [method] = describe(Started).methods
    assert [(mark.topic, mark.max_age) for mark in method.marks] == [("start", "5s")]


def test_the_announcement_says_what_is_wanted() -> None:
    with Lab(objects={"mixed": Mixed(), "young": Young()}) as lab:
        methods = lab._members["mixed"].instance.about()["methods"]
        assert methods["look"]["subscribes"] == ["all", "frame"]  # type: ignore[index]
        assert methods["look"]["keep"] == {"frame": "latest"}  # type: ignore[index]
        assert "max_age" not in methods["look"]  # type: ignore[index]
        assert lab._members["young"].instance.about()["methods"]["look"]["max_age"] == {  # type: ignore[index]
            "frame": "2s"
        }


def test_in_a_lab_nothing_waits_so_nothing_is_skipped() -> None:
    gate = Latest()
    gate.open.set()
    with Lab(objects={"gate": gate}) as lab:
        for n in range(5):
            lab.pub({"n": n}, topic="frame")
        assert gate.seen == [0, 1, 2, 3, 4]


def test_a_handler_that_fails_is_reported_and_the_next_is_handled(ether: Ether) -> None:
    class Failing(Gate):
        @ether_sub(topic="frame", keep="latest")
        def look(self, n: int) -> None:
            self.take(n)
            if n == 0:
                raise ValueError("zero")

    assert pub_and_open(ether, Failing(), frames(ether), count=3) == [0, 3]
