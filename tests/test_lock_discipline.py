"""The watch that looks for violations of the lock discipline sees each kind of them, and nothing that is allowed."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

import lock_watch
import pytest
from patience import patience
from pydantic import BaseModel

from ether.calls.client import PendingCall
from ether.calls.lease_server import LeaseServer
from ether.connection import worker
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.recording import entry_queue
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.codec import encode
from ether.wire.topics import SessionTopics

pytestmark = pytest.mark.skipif(not lock_watch.installed, reason="ETHER_LOCK_WATCH=0")

TOPIC = SessionTopics("locks").data("a")


class Dose(BaseModel):
    value: int = 7


class Nothing:
    """A job."""

    def run(self) -> None: ...
    def failed(self, error: BaseException) -> None: ...


@pytest.fixture
def link() -> Iterator[Link]:
    opened = Link(LoopbackTransport(LoopbackBroker(), client_id="one"), "one")
    opened.open(patience(10))
    yield opened
    opened.close()


def pending() -> PendingCall:
    return PendingCall("a.b", "a", None, 1.0)


def a_lock() -> threading.Lock:
    """One that a module of the rooms makes."""
    return worker.threading.Lock()


def wait_for_a_condition(_: Link) -> None:
    changed = entry_queue.threading.Condition()
    with changed:
        changed.wait(0.001)


def wait_for_a_queue(_: Link) -> None:
    with pytest.raises(queue.Empty):
        worker.queue.SimpleQueue().get(timeout=0.001)


def wait_for_a_thread(_: Link) -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


VIOLATIONS: dict[str, Callable[[Link], object]] = {
    "a publish": lambda link: link.publish(TOPIC, 1),
    "a message of the link's own": lambda link: link.tell(TOPIC, 1, timeout_s=0.0),
    "a subscription": lambda link: link.listen(TOPIC, lambda inbound: inbound.done()),
    "a wait for an event": lambda _: threading.Event().wait(0.001),
    "a wait for a condition": wait_for_a_condition,
    "a wait for a queue": wait_for_a_queue,
    "a wait for a thread": wait_for_a_thread,
    "a wait for an answer": lambda _: pending().wait(time.monotonic() + 0.001),
    "a job": lambda _: Worker().perform(Nothing()),
    "a serializer": lambda _: encode(Dose()),
    "the callbacks of a call": lambda _: pending().settle(lambda: (1, None)),
    "the callbacks of a connection": lambda link: link._tell_connection(True),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_is_found_under_a_lock_and_not_without(link: Link, what: str) -> None:
    with lock_watch.expected() as found:
        VIOLATIONS[what](link)
    assert not found
    with lock_watch.expected() as found, a_lock():
        VIOLATIONS[what](link)
    assert found


def test_what_is_found_fails_the_test(link: Link) -> None:
    with a_lock():
        link.publish(TOPIC, 1)
    with pytest.raises(AssertionError, match="publishes while it holds"):
        lock_watch.check()
    lock_watch.check()


def test_a_violation_on_another_thread_is_found(link: Link) -> None:
    def violate() -> None:
        with a_lock():
            link.publish(TOPIC, 1)

    with lock_watch.expected() as found:
        thread = threading.Thread(target=violate)
        thread.start()
        thread.join()
    assert len(found) == 1


def test_a_condition_may_be_waited_for_under_its_own_lock_also_twice(link: Link) -> None:
    changed = entry_queue.threading.Condition()
    with lock_watch.expected() as found, changed, changed:
        changed.wait(0.001)
    assert not found


def test_a_link_may_not_wait_for_room_under_its_lock(link: Link) -> None:
    with lock_watch.expected() as found, link._publish_lock:
        link.transport.publish(TOPIC, b"1", timeout_s=0.0)
    assert not found
    with lock_watch.expected() as found, link._publish_lock:
        link.transport.publish(TOPIC, b"1", timeout_s=1.0)  # bare: that it waits is what is looked for
    assert len(found) == 1


def test_a_thread_may_be_started_under_a_lock() -> None:
    with lock_watch.expected() as found, a_lock():
        thread = threading.Thread(target=lambda: None)
        thread.start()
    thread.join()
    assert not found


class Host:
    """The instance of a lease, as far as the end of a lease needs it."""

    name, logger, worker = "camera", logging.getLogger("test"), Worker()

    def __init__(self, link: Link) -> None:
        self.link = link
        self.announced = 0

    def wait_alone(self, timeout_s: float) -> bool:
        return True

    def report(self, *_: object, **__: object) -> None: ...

    def announce_changed(self) -> None:
        self.announced += 1
        self.link.announce(TOPIC, self.announced)


def leased(link: Link) -> tuple[LeaseServer, Host]:
    """An instance whose lease is held by a program that has just died."""
    host = Host(link)
    server = LeaseServer(host, link)
    server.ask("holder", {"do": "take", "token": "t", "facts": {}, "reason": ""}, None, lambda *_: None)
    server.is_dead = lambda facts: True
    host.announced = 0
    return server, host


def test_a_lease_ends_without_its_lock_and_not_on_the_transports_thread(link: Link) -> None:
    server, host = leased(link)
    assert not server.admits("other", None)
    assert host.announced == 0, "this publishes, and runs on the transport's thread"
    assert server.refusal("snap", "other", None) is None
    assert host.announced == 1
    assert server.admits("other", None)


def test_the_end_of_a_lease_under_its_lock_would_be_found(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A violation planted in the product, the one for which the discipline was written down."""
    ends = LeaseServer._end_where_dead

    def under_a_lock(self: LeaseServer) -> None:
        with a_lock():
            ends(self)

    server, _ = leased(link)
    monkeypatch.setattr(LeaseServer, "_end_where_dead", under_a_lock)
    with lock_watch.expected() as found:
        server.refusal("snap", "other", None)
    assert any("publishes while it holds" in each for each in found)
