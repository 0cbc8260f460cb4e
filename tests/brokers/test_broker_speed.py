"""What makes the embedded engine quick, and must change nothing: shapes of properties, packets that are passed on as
they came, PUBACKs that wait for company, and readiness by `epoll` itself."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest
from patience import patience
from raw_client import packet, text
from sans_io import Bench, connect, props

from broker.core.client import Terms
from broker.core.held_acks import HOLD_S, MOST_AT_ONCE, MOST_HELD, HeldAcks
from broker.core.outlet import Outlet
from broker.core.quotas import Quotas
from broker.core.rights import Logins
from broker.listeners.loop import Loop
from broker.listeners.readiness import READ, WRITE, SelectorReadiness, readiness
from broker.wire.codec_v5 import V5
from broker.wire.packets import MalformedPacket
from broker.wire.property_shapes import LONGEST_SHAPE, MOST_SHAPES, Shape, Shapes, keep_shape

CONTENT_TYPE, EXPIRY, RESPONSE_TOPIC, CORRELATION, FORMAT, USER = 0x03, 0x02, 0x08, 0x09, 0x01, 0x26


def section_of(rng: random.Random) -> bytes:
    """Properties as a client sends them, with their length; most are those of a call."""
    number = rng.randrange(1_000, 2_000)
    parts: list[tuple[int, int | str | bytes | tuple[str, str]]] = [
        (CONTENT_TYPE, "application/json"),
        (USER, ("seq", str(number))),
        (USER, ("source", rng.choice(["main", "früh", "pump"]))),
        (RESPONSE_TOPIC, "reply/main"),
        (CORRELATION, rng.randbytes(16)),
        (EXPIRY, rng.choice([0, 10, 1 << 31])),
        (FORMAT, rng.randrange(2)),
    ]
    if rng.random() < 0.5:
        parts = rng.sample(parts, rng.randrange(1, len(parts) + 1))
    return props(*parts)


def read(data: bytes, shapes: Shapes) -> object:
    """What a PUBLISH with these properties is read as; the text and the reason where it is none."""
    start = 2 if data[1] < 128 else 3
    try:
        message, packet_id, alias, expiry_s = V5.publish(data, 0, start, len(data), shapes)
    except MalformedPacket as error:
        return error.reason
    except IndexError:
        return "too early"
    facts = (message.topic, message.payload, message.properties, message.expiry_at, message.qos, message.forwardable)
    return facts, packet_id, alias, expiry_s


def test_properties_of_a_known_shape_are_read_as_all_others() -> None:
    """Also where one byte of them is wrong."""
    rng, known, used = random.Random(11), Shapes(), 0
    for _ in range(4_000):
        section = section_of(rng)
        if rng.random() < 0.6:
            length = 1 if len(section) < 129 else 2
            changed = bytearray(section)
            changed[rng.randrange(length, len(section))] = rng.choice([0, 0, 1, 0x23, 0x80, 0xFF, rng.randrange(256)])
            section = bytes(changed)
        data = packet(0x32, b"\x00\x01t\x00\x07" + section + b"payload")
        length = len(section) - (1 if len(section) < 129 else 2)
        used += length in known and known[length].fits(section[-length:])
        assert read(data, known) == read(data, {}), data
    assert used > 200, "the shapes were hardly ever tried"


def test_a_text_between_bytes_that_are_none_fits_nothing() -> None:
    """Its NUL could hide behind a zero that the correlation data has lost."""
    section = props((CORRELATION, b"\x00\x01"), (USER, ("k", "ab")), (EXPIRY, 9))[1:]
    assert not Shape(section).fits(section)


def test_shapes_are_few_and_short() -> None:
    shapes = Shapes()
    for length in range(1, 1_000):
        keep_shape(shapes, props((CONTENT_TYPE, "x" * length))[1 if length < 125 else 2 :])
        assert len(shapes) <= MOST_SHAPES
    assert max(shapes) <= LONGEST_SHAPE


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 40_000])
def test_a_packet_that_is_passed_on_as_it_came_is_the_one_that_is_made_anew(level: int, qos: int, size: int) -> None:
    """The second receiver asks for subscription numbers, or has another QoS, and gets a packet that was made."""
    bench = Bench()
    sender, receiver, other = (bench.client(name, level) for name in ("sender", "receiver", "other"))
    receiver.subscribe(("t", qos))
    other.subscribe(("t", 0 if level == 4 and qos else qos), properties=props((0x0B, 5)))
    sections = [b"\x00"]
    if level == 5:
        call = ((CONTENT_TYPE, "a/b"), (EXPIRY, 10), (CORRELATION, b"12"), (USER, ("k", "v")))
        sections += [props(*call), props(*call, (FORMAT, 1)), props((EXPIRY, 10))]
    for number, section in enumerate(sections * 2):
        sender.publish("t", bytes([number]) * size, qos, packet_id=number + 1, properties=section)
        bench.after(0.9)
        (came,), (made,) = receiver.received(), other.received()
        assert (came.topic, came.payload, came.retain, came.dup) == (made.topic, made.payload, False, False)
        assert came.payload == bytes([number]) * size
        assert came.properties == [each for each in made.properties if each[0] != 0x0B]
        assert came.qos == qos
        assert came.packet_id == (number + 1 if qos else 0), "the receiver's own numbers, one after the other"


def test_time_that_has_passed_is_told_also_where_a_packet_could_be_passed_on() -> None:
    bench = Bench()
    sender, receiver = bench.client("sender"), bench.client("receiver", properties=props((0x21, 1)))
    receiver.subscribe("t")
    for number, waits_s in enumerate((0.0, 0.9, 1.0, 2.5)):
        if waits_s:
            sender.publish("t", b"first", 1, packet_id=1)  # its window is one message: the next one waits
        sender.publish("t", b"second", 1, packet_id=2, properties=props((EXPIRY, 10)))
        bench.after(waits_s)
        if waits_s:
            receiver.acknowledge(0x40, receiver.received()[0].packet_id)
        (came,) = receiver.received()
        assert came.value(EXPIRY) == [10, 10, 9, 8][number]
        receiver.acknowledge(0x40, came.packet_id)


class Owed:
    """A client that is owed PUBACKs."""

    def __init__(self) -> None:
        self.outlet, self.acks_at_once, self.acks_in_vain = Outlet(V5), 0, 0

    def publishes(self, acks: HeldAcks, now: float) -> bool:
        self.outlet.send_frame(b"@\x02\x00\x01")
        return acks.hold(self, now)


def test_a_puback_waits_for_company_but_not_long_and_not_in_vain_for_ever() -> None:
    acks, caller, now = HeldAcks(), Owed(), 100.0
    for _ in range(50):  # each is taken along
        assert caller.publishes(acks, now)
        assert acks.due <= now + HOLD_S
        caller.outlet.batch(now)
        now += HOLD_S / 2
    assert acks.released(now) == []
    assert acks.released(now + HOLD_S) == [caller], "which has nothing to write"
    assert caller.acks_at_once == 0
    held = 0
    for _ in range(3_000):  # none is
        if caller.publishes(acks, now):
            held += 1
            assert acks.due == now + HOLD_S
            assert acks.released(now + HOLD_S * 0.9) == []
            assert acks.released(now + HOLD_S) == [caller]
        caller.outlet.batch(now)
        now += 1.0
    assert caller.acks_in_vain == MOST_AT_ONCE
    assert 8 <= held <= 22, "1, 2, 4, … 256, 256, …"
    assert acks.due > now + 1e9
    for _ in range(MOST_AT_ONCE + 20):  # a slow caller, whose answers come in time again, if never two in a millisecond
        caller.publishes(acks, now)
        caller.outlet.batch(now)
        acks.released(now + HOLD_S)
        now += 1.0
    assert caller.acks_in_vain == 0


def test_many_pubacks_do_not_wait() -> None:
    acks, caller = HeldAcks(), Owed()
    held = [caller.publishes(acks, 100.0) for _ in range(MOST_HELD + 2)]
    assert held == [True] * MOST_HELD + [False] * 2


class Sockets:
    """Clients of a loop on real sockets. Each round of the loop is run here, on this thread."""

    def __init__(self) -> None:
        self.loop = Loop(print, Terms(1 << 20, (4, 5)), Logins("u", {"u": "p"}, {}), Quotas())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.loop.listen(self._listener)
        self._clients: list[socket.socket] = []

    def client(self, topic: str) -> socket.socket:
        """One that has subscribed."""
        sock = socket.create_connection(self._listener.getsockname())
        self._clients.append(sock)
        sock.setblocking(False)
        sock.sendall(connect(5, topic, login=("u", "p")))
        assert self.next_read(sock)[0] == 0x20
        sock.sendall(packet(0x82, b"\x00\x01\x00" + text(topic) + b"\x01"))
        assert self.next_read(sock)[0] == 0x90
        return sock

    def next_read(self, sock: socket.socket) -> bytes:
        """What one read gives, after as many rounds as it takes until there is something."""
        until = time.monotonic() + patience(10)
        while time.monotonic() < until:
            self.loop._round()
            if data := unread(sock):
                return data
        raise AssertionError("nothing came")

    def next_publish(self, sock: socket.socket) -> tuple[list[bytes], bytes]:
        """What was read until a PUBLISH came, which is the last; and this one."""
        reads = [self.next_read(sock)]
        while (at := b"".join(reads).find(b"body")) < 0:
            reads.append(self.next_read(sock))
        return reads, b"".join(reads)[: at + 4]

    def close(self) -> None:
        self.loop._end()
        for sock in self._clients:
            sock.close()


def unread(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4_096)
    except BlockingIOError:
        return b""


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.close()


def at_qos_1(topic: str) -> bytes:
    return packet(0x32, text(topic) + b"\x00\x07\x00body")


def test_the_puback_of_a_request_leaves_with_its_answer(sockets: Sockets) -> None:
    caller, server = sockets.client("reply"), sockets.client("call")
    together, rounds, ack = 0, 40, b""
    for _ in range(rounds):
        caller.sendall(ack + at_qos_1("call"))
        _, request = sockets.next_publish(server)
        server.sendall(b"@\x02" + request[-7:-5] + at_qos_1("reply"))
        reads, answer = sockets.next_publish(caller)
        assert reads[0].startswith(b"@\x02\x00\x07"), "the PUBACK comes before the answer"
        together += len(reads) == 1
        ack = b"@\x02" + answer[-7:-5]
    assert together > rounds / 2, "a machine may stop for the millisecond that a PUBACK waits, but not each time"


def test_a_puback_comes_soon_where_nothing_else_does(sockets: Sockets) -> None:
    publisher = sockets.client("own")
    for _ in range(3):
        publisher.sendall(at_qos_1("elsewhere"))
        began = time.monotonic()
        assert sockets.next_read(publisher) == b"@\x03\x00\x07\x10", "to nobody"
        assert time.monotonic() - began < patience(0.4), "what nothing ends waits for half a second"


def test_who_sends_no_more_is_still_told_what_arrived(sockets: Sockets) -> None:
    publisher = sockets.client("own")
    publisher.sendall(at_qos_1("elsewhere"))
    publisher.shutdown(socket.SHUT_WR)
    assert sockets.next_read(publisher) == b"@\x03\x00\x07\x10"


def test_both_kinds_of_readiness_tell_the_same() -> None:
    for kind in (SelectorReadiness(), readiness()):
        here, there = socket.socketpair()
        kind.watch(here, "here")
        assert kind.wait(0.0) == []
        kind.change(here, "here", True)
        assert kind.wait(0.0) == [("here", WRITE)]
        there.send(b"x")
        assert kind.wait(0.0) == [("here", READ | WRITE)]
        kind.change(here, "here", False)
        assert kind.wait(0.0) == [("here", READ)]
        here.recv(1)
        there.close()
        assert kind.wait(0.0) == [("here", READ)], "a connection that ended is read, which tells so"
        kind.forget(here)
        assert kind.wait(0.0) == []
        kind.close()
        here.close()
