"""The send queue against brokers that close the connection at some messages, and for other reasons, by chance:
simulated connections, simulated time.

Whatever happens: a message that the broker takes arrives, in the order of its topic; what is given up is a message at
which the broker closes the connection, or stands on the topic of one; and the end is reached.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lossy_proxy import split_packets

from ether.errors import PayloadTooLarge
from ether.transport import Refusal, send_queue
from ether.transport.cut_rules import SMALL_BYTES, STRIKES
from ether.transport.packets import packed_length, publish_head
from ether.transport.send_queue import LinkDown, SendQueue

TOPICS = ("a", "b", "c", "bad")


@dataclass
class Broker:
    """`limit` is the size above which it closes the connection; it also does so on the topic `bad`, where that is
    `shuns`. `forgets`: acknowledgements that it has not written yet are lost when it closes."""

    chance: random.Random
    limit: int
    shuns: bool
    forgets: bool
    down_until: float = 0.0
    arrived: list[tuple[str, int]] = field(default_factory=list)
    cuts: int = 0
    restarts: int = 0

    def takes(self, topic: str, size: int) -> bool:
        return size <= self.limit and not (self.shuns and topic == "bad")


class Connection:
    """One connection, from the queue's side. What was written is handled in `step`."""

    congested = False

    def __init__(self, broker: Broker, clock: list[float]) -> None:
        self.broker, self._clock = broker, clock
        self._written = bytearray()
        self.last_written = clock[0]
        self.closed = False
        self.woken = False

    def send_locked(self, data: bytes, owner: object = None) -> bool:
        if self.closed:
            raise LinkDown
        self._written += data
        self.last_written = self._clock[0]
        return True

    def fail(self, reason: str) -> None:
        self.closed = True

    def wake_locked(self) -> None:
        self.woken = True

    def step(self) -> list[tuple[int, int]]:
        """Handle what was written; returns the acknowledgements, and closes where the broker does."""
        acks: list[tuple[int, int]] = []
        for packet in split_packets(self._written):
            at = 1
            while packet[at] >= 0x80:
                at += 1
            end = at + 3 + int.from_bytes(packet[at + 1 : at + 3], "big")
            topic, packet_id = packet[at + 3 : end].decode(), int.from_bytes(packet[end : end + 2], "big")
            if not self.broker.takes(topic, len(packet)):
                self.broker.cuts += 1
                self.closed = True
                return [] if self.broker.forgets else acks
            self.broker.arrived.append((topic, int(packet[end + 3 : end + 9])))
            acks.append((packet_id, 0))
        return acks


class Rig:
    def __init__(self, broker: Broker, clock: list[float]) -> None:
        self.broker, self.clock = broker, clock
        self.refused: list[Refusal] = []
        self.queue = SendQueue(self.refused.append)
        self.connection: Connection | None = None
        self.published: list[tuple[str, int, int]] = []
        self.too_large: set[int] = set()

    def publish(self, topic: str, size: int) -> None:
        number = len(self.published)
        payload = b"%06d" % number + bytes(size)
        name = len(topic).to_bytes(2, "big") + topic.encode()
        head = publish_head(name, qos=1, retain=False, tail_bytes=1 + len(payload))
        whole = 1 + len(packed_length(len(name) + 3 + len(payload))) + len(name) + 3 + len(payload)
        self.published.append((topic, number, whole))
        try:
            self.queue.publish(topic, head, b"\0", payload, 0.0)
        except PayloadTooLarge:
            self.too_large.add(number)

    def connect(self) -> None:
        if self.clock[0] >= self.broker.down_until:
            self.connection = Connection(self.broker, self.clock)
            self.queue.attach(self.connection, 20, 1 << 28)
            self.publish("control", 10)  # as each link does when it is connected again

    def lose(self, cut: str) -> None:
        self.connection = None
        self.queue.detach(cut)

    def step(self) -> None:
        """A moment passes."""
        self.clock[0] += self.broker.chance.choice((0.001, 0.01, 0.1, 0.6))
        if self.connection is None:
            self.connect()
            return
        self.queue.look()
        self.queue.send_left()
        acks = self.connection.step()
        if acks:
            self.queue.acknowledged(acks)
        if self.connection.closed:
            self.lose("the broker closed the connection")
        elif self.broker.restarts and self.broker.chance.random() < 0.05:
            self.broker.restarts -= 1
            self.broker.down_until = self.clock[0] + self.broker.chance.choice((0.0, 0.05, 2.0))
            self.lose(self.broker.chance.choice(("the broker closed the connection", "")))

    @property
    def settled(self) -> bool:
        return self.queue.drain(0.0)


@given(
    seed=st.integers(0, 1 << 30),
    limit=st.sampled_from([1 << 28, SMALL_BYTES + 5_000, 50_000]),
    shuns=st.booleans(),
    forgets=st.booleans(),
    restarts=st.integers(0, 12),
)
def test_only_what_the_broker_does_not_take_is_given_up(
    seed: int, limit: int, shuns: bool, forgets: bool, restarts: int
) -> None:
    clock = [1000.0]
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(send_queue, "monotonic", lambda: clock[0])
        rig = Rig(Broker(chance, limit, shuns, forgets, restarts=restarts), clock)
        rig.connect()
        for _ in range(chance.randrange(1, 60)):
            size = chance.choice((10, 10, 10, 500, 15_000, 20_000, 30_000, 60_000, 80_000))
            rig.publish(chance.choice(TOPICS), size)
            for _ in range(chance.choice((0, 0, 1, 5))):
                rig.step()
        steps = 0
        while not rig.settled:
            rig.step()
            steps += 1
            assert steps < 5_000, "it never comes to an end"
        rig.queue.run_callbacks()
    given_up = {int(refusal.payload[:6]) for refusal in rig.refused} | rig.too_large
    arrived = dict.fromkeys(rig.broker.arrived)
    for topic, number, size in rig.published:
        if rig.broker.takes(topic, size):
            assert (topic, number) in arrived
            assert number not in given_up, f"{size} bytes on {topic!r} were innocent"
        else:
            assert number in given_up
            assert (topic, number) not in arrived
    # Each topic and size costs its strikes, and the cuts at which others were under way.
    assert rig.broker.cuts <= 8 * (STRIKES + 2)


@pytest.mark.slow("loses connections, time after time")
def test_a_broker_that_closes_at_everything_for_a_while() -> None:
    clock = [1000.0]
    for seed in range(50):
        chance = random.Random(seed)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(send_queue, "monotonic", lambda: clock[0])
            rig = Rig(Broker(chance, 0, False, False), clock)
            for n in range(chance.randrange(2, 30)):
                rig.publish(chance.choice(TOPICS), chance.choice((10, 500, 20_000)) + n)
            for _ in range(400):
                rig.step()
            published = len(rig.published)
            assert not rig.refused, "nothing has passed, so no message can be blamed"
            assert rig.broker.cuts > 20
            rig.broker.limit = 1 << 28
            for _ in range(1000):
                rig.step()
        assert not rig.refused
        assert {number for _, number in rig.broker.arrived} >= set(range(published))


def test_order_is_kept_where_the_broker_takes_everything() -> None:
    for seed in range(100):
        clock, chance = [1000.0], random.Random(seed)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(send_queue, "monotonic", lambda now=clock: now[0])
            rig = Rig(Broker(chance, 1 << 28, False, chance.random() < 0.5, restarts=8), clock)
            rig.connect()
            for _ in range(200):
                rig.publish(chance.choice(TOPICS), chance.choice((10, 20_000)))
                rig.step()
            while not rig.settled:
                rig.step()
        for topic in TOPICS:
            numbers = list(dict.fromkeys(number for name, number in rig.broker.arrived if name == topic))
            assert numbers == sorted(numbers)
        assert not rig.refused
