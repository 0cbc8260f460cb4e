"""A call is held until what its caller has published before it is here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
from patience import patience

from ether.calls.call_order import CallOrder, PublishedBefore
from ether.calls.client import CallClient
from ether.connection.inbound import Inbound
from ether.connection.later import Later
from ether.connection.link import ExtraHeaders, Link
from ether.errors import CallError
from ether.protocol.presence import Announcement, State
from ether.protocol.reorder_buffer import ReorderBuffer
from ether.spec.marks import MarkKind
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.envelope import EnvelopeV5, EnvelopeV311, Headers, unpack
from ether.wire.topics import SessionTopics


class Incoming:
    """What has come of each node's messages on one topic; None: nothing is known."""

    def __init__(self) -> None:
        self.come: dict[str, int | None] = {}
        self.first: frozenset[str] = frozenset()
        self.asked = threading.Event()

    def lacking(self, node: str, heads: Mapping[str, int], *, ask: bool) -> tuple[int, int]:
        if ask:
            self.asked.set()
        come = self.come.get(node)
        return (0, len(heads)) if come is None else (sum(max(0, n - come) for n in heads.values()), 0)

    def pull_first(self, nodes: frozenset[str]) -> None:
        self.first = nodes


class Bench:
    def __init__(self, later: Later) -> None:
        self.incoming, self.serving, self.done = Incoming(), set[str | None](), list[str]()
        self.order = CallOrder(self.incoming, later, self.serving.__contains__)
        self.ran = threading.Condition()

    def call(self, node: str, name: str, after: int | None = None, *, trace: str = "t", deadline_s: float = 60) -> None:
        said = None if after is None else json.dumps({"topic": after})
        self.order.submit(node, said, trace, time.monotonic() + deadline_s, name, partial(self._run, name))

    def _run(self, name: str) -> None:
        with self.ran:
            self.done.append(name)
            self.ran.notify_all()

    def has_run(self, *names: str) -> bool:
        with self.ran:
            return self.ran.wait_for(lambda: self.done == list(names), patience(5))


@pytest.fixture
def bench() -> Iterator[Bench]:
    later = Later("test-order")
    yield Bench(later)
    later.close()


def test_a_call_waits_for_what_its_caller_has_published_and_the_callers_next_call_for_it(bench: Bench) -> None:
    bench.incoming.come["x"] = 3
    bench.call("x", "first", 5)
    bench.call("x", "second")
    bench.call("y", "other")
    assert bench.done == ["other"]
    assert bench.order.before("first") == ("x", 2)
    assert bench.incoming.first == {"x"}
    assert bench.incoming.asked.wait(patience(5)), "what does not come by itself is asked for"
    bench.incoming.come["x"] = 5
    assert bench.has_run("other", "first", "second")
    assert bench.order.before("first") is None


def test_a_call_whose_messages_are_here_is_not_held(bench: Bench) -> None:
    bench.incoming.come["x"] = 5
    bench.call("x", "call", 5)
    assert bench.done == ["call"]


def test_what_a_call_without_a_turn_says_counts_for_the_next_one(bench: Bench) -> None:
    bench.incoming.come["x"] = 4
    bench.order.note("x", '{"topic": 5}')
    bench.call("x", "call")
    assert bench.done == []
    bench.incoming.come["x"] = 5
    assert bench.has_run("call")


def test_a_call_that_comes_back_to_a_waiting_handler_is_not_held(bench: Bench) -> None:
    """The handler would wait for the call, and the messages for the handler."""
    bench.incoming.come["x"] = 3
    bench.call("x", "held", 5, trace="chain")
    assert bench.done == []
    bench.serving.add("chain")
    assert bench.has_run("held")
    bench.call("x", "back", 7, trace="chain")
    assert bench.done == ["held", "back"]


def test_a_held_call_that_expires_is_let_go(bench: Bench) -> None:
    bench.call("x", "call", 5, deadline_s=0.05)
    assert bench.has_run("call")


def test_a_caller_of_which_nothing_is_known_is_not_waited_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ether.calls.call_order._UNKNOWN_S", 0.5)
    bench.call("x", "call", 5)
    assert bench.done == []
    assert bench.has_run("call")


@pytest.mark.parametrize("said", ["", "[1]", "{", '{"topic": "many"}', '{"topic": true}'])
def test_what_cannot_be_read_holds_nothing(bench: Bench, said: str) -> None:
    bench.order.submit("x", said, None, None, "call", partial(bench._run, "call"))
    assert bench.done == ["call"]


@pytest.mark.parametrize("envelope", [EnvelopeV5(), EnvelopeV311()])
def test_the_header_travels_in_both_versions(envelope: EnvelopeV5 | EnvelopeV311) -> None:
    headers = Headers("id", "source", 1, 1.0, after='{"a/b":7}')
    packed = envelope.pack(envelope.prepare({"n": 1}), headers)
    found = unpack(packed.payload, packed.properties).headers
    assert found is not None
    assert found.after == '{"a/b":7}'


def test_what_comes_while_the_receivers_are_full_is_left_and_asked_for() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer()
    buffer.listen("t", 0.0)
    assert buffer.arrived("t", "node", "source", 1, "1", 1, 0.0) == (["1"], [])
    assert buffer.arrived("t", "node", "source", 2, "2", 1, 0.0, full=True) == ([], [])
    assert buffer.missing() == {"t": 1}
    assert not buffer.passes("t", "node", 3), "the ones behind it wait"
    assert buffer.lacking("node", {"t": 2}, ask=False) == (1, 0, [])
    (ask,) = buffer.questions("me", 1.0).values()
    assert ask.holes == {"t": (1, 2)}
    assert buffer.arrived("t", "node", "source", 2, "2", 1, 1.0) == (["2"], [])
    assert buffer.lacking("node", {"t": 2}, ask=False) == (0, 0, [])
    assert buffer.lacking("node", {"t": 3}, ask=True) == (1, 0, ["t"])
    assert buffer.lacking("stranger", {"t": 3}, ask=False) == (0, 1, ["t"])


def test_a_source_that_calls_wait_for_is_asked_although_there_is_no_room() -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer()
    buffer.listen("t", 0.0)
    for node in ("x", "y"):
        buffer.arrived("t", node, node, 1, "1", 1, 0.0)
        buffer.arrived("t", node, node, 9, "9", 1, 0.0, full=True)
    asks = buffer.questions("me", 1.0, lambda topic: 0, {"x": 5})
    assert {node: ask.holes for node, ask in asks.items()} == {"x": {"t": (1, 6)}}


def test_what_callers_have_said_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests come and go, and may call nothing but methods without a turn."""
    monkeypatch.setattr("ether.calls.call_order._EXPECTED", 3)
    for number in range(10):
        bench.order.note(f"guest{number}", '{"topic": 5}')
    assert list(bench.order._expected) == ["guest7", "guest8", "guest9"]


def test_a_look_that_fails_forgets_no_held_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.incoming.come["x"] = 3
    bench.call("x", "call", 5)
    failed = threading.Event()

    def fails(trace: str | None) -> bool:
        failed.set()
        raise ValueError("a defect")

    serves = bench.order._serves
    monkeypatch.setattr(bench.order, "_serves", fails)
    assert failed.wait(patience(5))
    monkeypatch.setattr(bench.order, "_serves", serves)
    bench.incoming.come["x"] = 5
    assert bench.has_run("call")


class Sent:
    """What a process has published: its last number on each topic."""

    def __init__(self, heads: dict[str, int]) -> None:
        self.heads, self.last_published = heads, object()

    def heads_here(self) -> dict[str, int]:
        return self.heads


def test_what_does_not_fit_into_one_call_is_said_by_the_next() -> None:
    topics = SessionTopics("bench")
    link = Sent({topics.data(f"many/{n}"): n for n in range(100)})
    before = PublishedBefore(cast("Any", link), topics)
    before.know([Announcement("cam", State.READY, "b1", about={"methods": {"take": {"subscribes": ["many/#"]}}})])
    said: dict[str, int] = {}
    for expected in (64, 36):
        told = before.of("cam")
        assert told is not None
        assert len(json.loads(told[0])) == expected
        said |= json.loads(told[0])
        told[1]()
    assert said == link.heads
    assert before.of("cam") is None


def test_what_a_refused_call_has_said_is_said_again() -> None:
    """Who refuses at once (a lease, no such method) has not taken note of what the call comes after."""
    topics, broker = SessionTopics("bench"), LoopbackBroker()
    one, store = (Link(LoopbackTransport(broker, name), name, topics) for name in ("one", "store"))
    for link in (one, store):
        link.open(patience(5))
    marks = {"take": {"subscribes": ["t"]}, "read": {"kinds": ["ether_get"]}}
    about = {"methods": marks, "class": "Store"}
    known = [Announcement("store", State.READY, "b1", about=about)]
    client = CallClient(one, topics, topics.reply("one"), lambda: known)
    said, answers = list[str | None](), iter(["InstanceLeased", None, None])

    def answer(inbound: Inbound) -> None:
        headers, error = inbound.headers(), next(answers)
        assert headers is not None
        assert headers.reply_to is not None
        said.append(headers.after)
        value = {"kind": "leased", "class": error, "text": "it is another's"} if error else 1
        store.publish(headers.reply_to, value, extra=ExtraHeaders(correlation=headers.correlation, error=error))
        inbound.done()

    try:
        one.listen(topics.reply("one"), client.receive)
        store.listen(topics.call("store", "read"), answer)
        one.publish(topics.data("t"), {"n": 1})
        for _ in range(3):
            pending = client.begin("store", "read", None, patience(5), MarkKind.GET)
            with suppress(CallError):
                client.wait(pending)
    finally:
        client.close()
        for link in (one, store):
            link.close(0.0)
    told = json.dumps({topics.data("t"): 1}, separators=(",", ":"))
    assert said == [told, told, None]
