"""Once is once (V6): one message runs each method that hears its topic once, however many filters select it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from engine_params import EVERY, On
from patience import patience
from running_brokers import RunningBroker, running_broker, soon
from stock_mosquittos import publish

from ether import Ether
from ether.connection.retained_rules import RetainedOnce
from ether.transport.base import ProtocolVersion
from ether.transport.connection import NetworkTransport
from ether.transport.copies import Copies, Numbered, overlap, packed_number
from ether.transport.mqtt_versions import SIBLINGS
from ether.wire.head import subscription_numbers
from ether.wire.topics import matches

METHODS = ("dose", "note", "wide", "across", "both")


@pytest.fixture(params=EVERY)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running_one:
        yield running_one


@pytest.fixture(params=[ProtocolVersion.V5, ProtocolVersion.V311], ids=["5", "3.1.1"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ProtocolVersion:
    """The highest version that this process speaks, and so the objects that it hosts."""
    if request.param is ProtocolVersion.V311:
        make = NetworkTransport.__init__

        def make_older(self: NetworkTransport, *args: object, **kwargs: object) -> None:
            make(self, *args, **kwargs)  # type: ignore[arg-type]
            self._candidates = [SIBLINGS[ProtocolVersion.V311]]

        monkeypatch.setattr(NetworkTransport, "__init__", make_older)
    return ProtocolVersion(request.param)


def settled(ether: Ether, name: str, last: int) -> dict[str, list[int]]:
    """What each method has heard, once the last dose has come to all of them, and a call has come behind it."""
    found: dict[str, list[int]] = {}

    def all_have() -> bool:
        found.update(ether.get(name, "done"))
        return all(numbers[-1:] == [last] for numbers in found.values())

    assert soon(all_have, patience(10)), found
    return dict(ether.get(name, "done"))


def test_a_strangers_message_runs_each_method_once(broker: RunningBroker) -> None:
    """Retained before the start, twice the same in a row, and once more after a reconnect of nobody."""
    publish(broker.url_tcp, "bench/dose", "7", retain=True)
    ether = Ether()
    ether.tap({"broker": broker.url_tcp, "instances": {"pump": {"class_path": "once_parts.Pump"}}})
    try:
        assert settled(ether, "pump", 7) == {name: [7] for name in METHODS}
        for dose in ("5", "5", "6"):  # two equal messages in a row are two messages
            publish(broker.url_tcp, "bench/dose", dose)
        assert settled(ether, "pump", 6) == {name: [7, 5, 5, 6] for name in METHODS}
    finally:
        ether.shutdown()


def test_in_either_version_of_mqtt_and_for_several_instances_of_one_process(
    broker: RunningBroker, version: ProtocolVersion
) -> None:
    from once_parts import Pump

    publish(broker.url_tcp, "bench/dose", "7", retain=True)
    with Ether() as ether, ExitStack() as hosted:
        ether.tap({"broker": broker.url_tcp})
        for name in ("one", "two"):
            ether.host(Pump(), name)
            hosted.callback(ether.unhost, name)
        for name in ("one", "two"):
            assert settled(ether, name, 7) == {name: [7] for name in METHODS}
        for dose in ("5", "5", "7", "6"):
            publish(broker.url_tcp, "bench/dose", dose)
        for name in ("one", "two"):
            assert settled(ether, name, 6) == {name: [7, 5, 5, 7, 6] for name in METHODS}


@pytest.mark.parametrize("engine", EVERY if os.environ.get("ETHER_LONG") == "1" else EVERY[1:2])
def test_messages_of_ones_own_run_each_method_once(engine: str, on: On) -> None:
    with Ether() as ether:
        ether.tap({"broker": on(engine), "instances": {"own": {"class_path": "once_parts.Own"}}})
        for n in range(20):
            ether.pub({"n": n}, topic="go/now")
        wanted = [f"{name} {n}" for n in range(20) for name in ("exact", "wide", "across")]
        assert soon(lambda: len(ether.get("own", "done")) >= len(wanted), patience(10))
        assert sorted(ether.get("own", "done")) == sorted(wanted)


def test_a_subscriber_that_comes_later_gets_what_is_retained_and_the_first_one_not_again(
    broker: RunningBroker,
) -> None:
    with Ether() as ether:
        ether.tap({"broker": broker.url_tcp})
        publish(broker.url_tcp, "bench/dose", "7", retain=True)
        with ether.subscribe("mqtt:bench/dose") as first:
            assert first.get(timeout_s=patience(5)).value == 7
            for topic in ("mqtt:bench/dose", "mqtt:bench/+"):
                with ether.subscribe(topic) as later:
                    assert later.get(timeout_s=patience(5)).value == 7
                    publish(broker.url_tcp, "bench/dose", "8")
                    assert later.get(timeout_s=patience(5)).value == 8
                assert first.get(timeout_s=patience(5)).value == 8


def test_which_copy_counts() -> None:
    copies = Copies(matches, lambda section: frozenset(section))
    copies.set({"a/+": Numbered(1, 1, True)})
    assert not copies.overlap
    copies.set({"a/+": Numbered(1, 0, True), "+/b": Numbered(2, 1, True), "c": Numbered(3, 1, True)})
    assert copies.overlap
    assert [copies.surplus("a/b", numbers) for numbers in (b"\1", b"\2", b"\1\2", b"")] == [True, False, False, False]
    assert not copies.surplus("a/c", b"\1")
    copies.set({"a/+": Numbered(1, 0, True), "+/b": Numbered(2, 1, False)})  # not confirmed: it may not be there yet
    assert [copies.surplus("a/b", numbers) for numbers in (b"\1", b"\2")] == [False, True]
    assert overlap("a/#", "a")
    assert overlap("a/+", "+/b")
    assert not overlap("a/b", "a/b/c")
    assert not overlap("a/+", "b/+")


@pytest.mark.parametrize("number", [1, 127, 128, 16_384, 268_435_455])
def test_a_number_is_read_among_other_properties(number: int) -> None:
    user, content = b"\x26\x00\x01a\x00\x02bc", b"\x03\x00\x01j"
    assert subscription_numbers(user + packed_number(number) + content + packed_number(5)) == {number, 5}
    assert subscription_numbers(user + content) == frozenset()
    assert subscription_numbers(b"\x0b") == frozenset()


def test_which_receivers_a_retained_message_is_for() -> None:
    once = RetainedOnce()
    for topic_filter in ("a/b", "a/+"):
        once.subscribes(topic_filter)
    assert once.fresh("a/b", b"7", ("one", "two")) == ("one", "two")
    assert once.fresh("a/b", b"7", ("one", "two")) == ()
    assert once.fresh("a/b", b"7", ("one", "two")) == ("one", "two")  # no subscription explains a third one
    assert once.fresh("a/b", b"8", ("one", "two")) == ("one", "two")  # another message
    once.subscribes("#")
    assert once.fresh("a/b", b"8", ("one", "two", "three")) == ("three",)
    once.went_down()
    assert once.fresh("a/b", b"8", ("one", "two", "three")) == ("one", "two", "three")
    once.unsubscribes("#")
    assert once.fresh("a/b", b"8", ("one", "two")) == ()
    assert once.fresh("a/b", b"8", ("one", "two")) == ("one", "two")
