"""A will says that a connection broke. It ends nothing of an instance that lives. What it says of the dead is known at
once where their end is seen, and soon where it is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from patience import patience

from ether.calls.client import PendingCall
from ether.connection.assembly import death_notice
from ether.connection.link import Link
from ether.errors import InstanceLost, NoResponder
from ether.protocol.presence import Announcement, PresenceTable, State
from ether.session.session import Session
from ether.spec.marks import MarkKind
from ether.transport.base import ProtocolVersion
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.envelope import EnvelopeV5, unpack
from ether.wire.head import Headers
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("wills")
FOREIGN = {"host": "another machine", "pid": 7}
BELIEVED_S = 3.0
"""After this time a will is believed where nothing else is known."""


class Instance:
    """Says what an instance says, and answers when it is told to."""

    def __init__(
        self, broker: LoopbackBroker, about: dict[str, Any], incarnation: str = "first", epoch: int = 1
    ) -> None:
        self.transport = LoopbackTransport(broker, "cam")
        self.transport.connect(1)
        self.transport.subscribe([TOPICS.call("cam", "+")])
        methods = {"scan": {"kinds": ["ether_get"]}}
        self.ready = Announcement(
            "cam", State.READY, incarnation, about={"class": "Cam", "epoch": epoch, "methods": methods, **about}
        )

    def announce(self) -> None:
        self._publish(self.ready.to_value())

    def die(self) -> None:
        """The broker publishes the will of its connection."""
        keeps = {key: self.ready.about[key] for key in ("epoch", "supervised") if key in self.ready.about}
        will = death_notice(TOPICS, Announcement("cam", State.LOST, self.ready.incarnation, about=keeps))
        self.transport.publish(will.topic, will.payload, retain=True)

    def told(self, state: State, why: str) -> None:
        """Its supervisor says what has become of it."""
        self._publish(Announcement("cam", state, self.ready.incarnation, why, self.ready.about).to_value())

    def _publish(self, value: dict[str, Any]) -> None:
        self.transport.publish(TOPICS.state("cam"), json.dumps(value).encode(), retain=True)

    def request(self) -> Headers:
        """The next request that it gets, without what the instance itself is asked."""
        while True:
            item: Any = self.transport.receive(patience(10))
            assert item is not None, "no request came"
            self.transport.consumed(item)
            headers = unpack(item.payload, item.properties).headers
            if not item.topic.endswith("/ether.recall") and headers is not None:
                return headers

    def answer(self, request: Headers, value: object) -> None:
        head = Headers(
            f"00000000-0000-7000-8000-{'0' * 12}", "cam", 1, time.time(), (), correlation=request.correlation
        )
        packed = EnvelopeV5().pack(value, head)
        assert request.reply_to is not None
        self.transport.publish(request.reply_to, packed.payload, properties=packed.properties)


class Room:
    """A program that calls, and the broker."""

    def __init__(self) -> None:
        self.broker = LoopbackBroker(version=ProtocolVersion.V5)
        self.link = Link(LoopbackTransport(self.broker, "main"), "main")
        self.link.open(patience(5))
        self.session = Session(self.link, TOPICS)
        self.session.open(patience(5))
        self.changes: list[tuple[str, State]] = []
        self.session.watch(lambda announcement: self.changes.append((announcement.name, announcement.state)))
        self.opened: list[Instance] = []

    def instance(self, about: dict[str, Any], **more: Any) -> Instance:
        made = Instance(self.broker, about, **more)
        self.opened.append(made)
        made.announce()
        assert self.session.await_change(lambda: "cam" in self.session._presence.ready(), patience(5))
        return made

    def call(self) -> PendingCall:
        return self.session.calls.begin("cam", "scan", None, 60, MarkKind.GET)

    def state(self) -> State | None:
        """After everything that was said until now."""
        self.session.catch_up(5)
        known = self.session.announcement("cam")
        return known.state if known is not None else None

    def close(self) -> None:
        self.session.close()
        self.link.close()
        for each in self.opened:
            each.transport.close()


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.close()


@pytest.fixture
def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def here(pid: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": pid}


@pytest.mark.slow("waits until a will would be believed")
@pytest.mark.parametrize("about", [FOREIGN, here(os.getpid())], ids=["another machine", "this machine"])
def test_a_will_of_one_that_announces_itself_again_ends_no_call_and_nobody_hears_of_it(
    room: Room, about: dict[str, Any]
) -> None:
    cam = room.instance(about)
    call, request = room.call(), cam.request()
    cam.die()
    assert room.state() is State.READY
    later = room.call()  # a call that is made meanwhile is sent, too
    assert cam.request().correlation == later.correlation
    cam.announce()
    assert room.state() is State.READY
    cam.answer(request, 42)
    assert room.session.calls.wait(call) == 42
    assert room.changes == [("cam", State.READY)]
    threading.Event().wait(BELIEVED_S + 0.5)
    assert room.state() is State.READY
    assert room.changes == [("cam", State.READY)]


@pytest.mark.slow("waits until a will would be believed")
def test_a_will_of_one_that_does_not_come_back_is_believed_in_time(room: Room) -> None:
    cam = room.instance(FOREIGN)
    call = room.call()
    cam.request()
    began = time.monotonic()
    cam.die()
    with pytest.raises(InstanceLost, match="its connection broke"):
        room.session.calls.wait(call)
    assert BELIEVED_S - 0.1 < time.monotonic() - began < patience(BELIEVED_S + 2)
    assert room.state() is State.LOST
    with pytest.raises(NoResponder, match="cam is lost"):
        room.call()


def test_a_process_that_is_seen_to_have_ended_is_lost_at_once(room: Room, ended_pid: int) -> None:
    cam = room.instance(here(ended_pid))
    call = room.call()
    cam.request()
    began = time.monotonic()
    cam.die()
    with pytest.raises(InstanceLost):
        room.session.calls.wait(call)
    assert time.monotonic() - began < BELIEVED_S - 0.5


@pytest.mark.slow("waits until a will would be believed")
@pytest.mark.parametrize("first", ["the will", "the word"])
def test_a_supervisors_word_is_believed_at_once_and_a_will_does_not_replace_it(room: Room, first: str) -> None:
    cam = room.instance(FOREIGN)
    call = room.call()
    cam.request()
    began = time.monotonic()
    for said in (cam.die, lambda: cam.told(State.LOST, "was killed by signal 9"))[:: 1 if first == "the will" else -1]:
        said()
    with pytest.raises(InstanceLost, match="was killed by signal 9"):
        room.session.calls.wait(call)
    assert time.monotonic() - began < BELIEVED_S - 0.5
    assert room.state() is State.LOST
    threading.Event().wait(BELIEVED_S + 0.5)
    known = room.session.announcement("cam")
    assert known is not None
    assert known.error == "was killed by signal 9"


@pytest.mark.slow("waits until a will would be believed")
def test_while_this_program_is_cut_off_itself_no_will_is_believed(room: Room) -> None:
    cam = room.instance(FOREIGN)
    call, request = room.call(), cam.request()
    cam.die()
    assert room.state() is State.READY
    room.broker.stop()
    threading.Event().wait(BELIEVED_S + 0.5)
    assert not call.settled
    room.broker.start()
    cam.announce()
    cam.answer(request, 42)
    assert room.session.calls.wait(call) == 42


def test_a_request_that_reached_nobody_is_sent_to_the_next_incarnation(room: Room) -> None:
    cam = room.instance({**FOREIGN, "supervised": True})
    cam.transport.unsubscribe([TOPICS.call("cam", "+")])  # it has died, and nobody has said so yet
    call = room.call()
    cam.told(State.RESTARTING, "was killed by signal 9")
    assert room.state() is State.RESTARTING
    assert not call.settled
    again = room.instance({**FOREIGN, "supervised": True}, incarnation="second", epoch=2)
    request = again.request()
    assert request.correlation == call.correlation
    again.answer(request, 42)
    assert room.session.calls.wait(call) == 42


def test_a_request_that_reached_nobody_ends_where_nobody_comes_back(room: Room) -> None:
    cam = room.instance({**FOREIGN, "supervised": True})
    cam.transport.unsubscribe([TOPICS.call("cam", "+")])
    call = room.call()
    cam.told(State.RESTARTING, "was killed by signal 9")
    cam.told(State.FAILED, "started again 5 times")
    with pytest.raises(NoResponder, match="started again 5 times"):
        room.session.calls.wait(call)


def test_a_request_that_the_dead_have_got_is_not_sent_again(room: Room) -> None:
    cam = room.instance({**FOREIGN, "supervised": True})
    call = room.call()
    cam.request()
    cam.told(State.RESTARTING, "was killed by signal 9")
    with pytest.raises(InstanceLost, match="was killed by signal 9"):
        room.session.calls.wait(call)


def test_the_table_keeps_what_is_known_of_a_death() -> None:
    table = PresenceTable()
    lost = Announcement("cam", State.LOST, "a", "was killed by signal 9", {"epoch": 1})
    table.apply(Announcement("cam", State.READY, "a", about={"epoch": 1}))
    assert table.apply(lost)
    assert not table.apply(Announcement("cam", State.LOST, "a", about={"epoch": 1}))
    assert table.get("cam") == lost
    assert table.apply(Announcement("cam", State.READY, "a", about={"epoch": 1})), "it was not dead after all"
