"""In a burst the network thread writes what publishers leave to it, together; nothing waits, and order is kept."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from ether.transport.packets import publish_head
from ether.transport.send_queue import Publication, SendQueue

WINDOW = 100


class Wire:
    """The writing half of a connection, as a list."""

    congested = False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.woken = 0
        self.may_fail = False

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        self.written.append(data)
        return True

    def wake_locked(self) -> None:
        self.woken += 1

    def fail(self, reason: str) -> None:
        assert self.may_fail, reason


def attached() -> tuple[SendQueue, Wire]:
    outbox, wire = SendQueue(), Wire()
    outbox.attach(wire, WINDOW, 1 << 20)
    return outbox, wire


def publish(outbox: SendQueue, payload: bytes) -> None:
    outbox.publish("t", publish_head(b"\x00\x01t", qos=1, retain=False, tail_bytes=len(payload)), b"", payload, 1.0)


def publish_many(outbox: SendQueue, count: int) -> list[bytes]:
    payloads = [b"<%d>" % n for n in range(count)]
    for payload in payloads:
        publish(outbox, payload)
    return payloads


def in_order(written: list[bytes], payloads: list[bytes]) -> bool:
    everything = b"".join(written)
    places = [everything.find(payload) for payload in payloads]
    return -1 not in places and places == sorted(places)


def test_one_after_the_other_each_is_written_by_its_publisher() -> None:
    outbox, wire = attached()
    for n in range(20):
        publish(outbox, b"%d" % n)
        assert len(wire.written) == n + 1
        outbox.acknowledged([(n + 1, 0)])
    assert wire.woken == 0


def test_a_burst_is_left_to_the_network_thread_which_is_woken_once() -> None:
    outbox, wire = attached()
    payloads = publish_many(outbox, 50)
    by_publishers = len(wire.written)
    assert by_publishers < 10
    assert wire.woken == 1
    outbox.send_left()
    assert len(wire.written) == by_publishers + 1
    assert in_order(wire.written, payloads)
    assert not outbox.left


def test_the_next_burst_wakes_it_again() -> None:
    outbox, wire = attached()
    publish_many(outbox, 10)
    outbox.send_left()
    publish_many(outbox, 10)
    assert wire.woken == 2


def test_an_acknowledgement_takes_what_was_left_along() -> None:
    outbox, wire = attached()
    payloads = publish_many(outbox, 10)
    outbox.acknowledged([(1, 0)])
    assert in_order(wire.written, payloads)
    assert not outbox.left


def test_what_is_unconfirmed_does_not_overtake_what_was_left() -> None:
    outbox, wire = attached()
    payloads = publish_many(outbox, 10)
    outbox.publish_unconfirmed("t", publish_head(b"\x00\x01t", qos=0, retain=False, tail_bytes=4), b"", b"last", 1.0)
    assert in_order(wire.written, [*payloads, b"last"])


def test_a_new_connection_gets_what_was_left_and_is_woken_anew() -> None:
    outbox, _ = attached()
    payloads = publish_many(outbox, 10)
    outbox.detach()
    again = Wire()
    outbox.attach(again, WINDOW, 1 << 20)
    assert in_order(again.written, payloads)
    publish_many(outbox, 10)
    assert again.woken == 1


class Interrupted(BaseException):
    """As a signal handler raises it."""


@pytest.mark.parametrize("waits", [False, True])
def test_an_interrupt_at_any_call_leaves_nothing_half_counted(waits: bool) -> None:
    """A signal handler runs where a function begins. Whichever it is, the message is counted where it will be sent, and
    nowhere else."""
    calls = 1
    while True:
        outbox, wire = attached() if not waits else (SendQueue(), Wire())
        wire.may_fail, left = True, calls

        def interrupt(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if event == "call" and "/transport/" in frame.f_code.co_filename:
                left -= 1
                if not left:
                    raise Interrupted

        payload = b"x"
        head = publish_head(b"\x00\x01t", qos=1, retain=False, tail_bytes=1)
        before = sys.getprofile()
        try:
            sys.setprofile(interrupt)
            outbox.publish("t", head, b"", payload, 1.0)
        except Interrupted:
            pass
        finally:
            sys.setprofile(before)
        known = [*outbox._inflight.values(), *outbox._ordinary.waiting]
        assert outbox._ordinary.count == len(known), f"interrupted at call {calls}"
        assert outbox._ordinary.size == sum(publication.size for publication in known)
        if left > 0:
            break
        calls += 1
    assert calls >= 3
