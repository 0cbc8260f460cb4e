"""Hostile floods at the embedded engine in a process of its own, each beside a well-behaved client: memory and time
stay bounded, the others are served, and afterwards everything is there again.

What each flood cost stands in the output of `pytest -s`. The quotas are small, so that a flood reaches them soon; the
bounds of memory are those quotas and what Python's objects add to them.
"""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from patience import patience
from raw_client import PUBACK, RawClient, Target, connect_packet, packet, text
from running_brokers import RunningBroker, running_broker, soon
from sans_io import Bench, props

from broker.core.exchange import cost_of
from broker.core.quotas import Quotas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the broker's memory from /proc")

QUOTAS = {
    "clients": 200, "sessions": 150, "filters": 2_000, "waiting_bytes": 2_000_000, "retained_bytes": 4_000_000,
    "aliases": 4, "unreleased": 50, "connect_within_s": 2,
}  # fmt: skip
_names = itertools.count()


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running_broker("amqtt", max_packet_bytes=1_000_000, quotas=QUOTAS) as running:
        yield running


def target_of(broker: RunningBroker) -> Target:
    return Target(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)


def pss_mb(broker: RunningBroker) -> float:
    rollup = Path(f"/proc/{broker.engine_pid}/smaps_rollup").read_text()
    return int(rollup.split("Pss:")[1].split()[0]) / 1024


def plug(broker: RunningBroker) -> socket.socket:
    return socket.create_connection((broker.host, broker.port), patience(10))


def bounded(broker: RunningBroker, what: str, flood: Callable[[], None], most_mb: float) -> None:
    """Run a flood beside a client that asks again and again. The broker may take so many more MB; no answer is late."""
    before, slowest, there, ended = pss_mb(broker), [0.0], threading.Event(), threading.Event()

    def ask() -> None:
        with RawClient(target_of(broker), f"asker-{next(_names)}") as asker:
            while not ended.is_set():
                began = time.monotonic()
                asker.publish("asked", b"x", qos=1)
                assert (asker.packet() or (0,))[0] == PUBACK
                slowest[0] = max(slowest[0], time.monotonic() - began)
                there.set()

    asking = threading.Thread(target=ask)
    asking.start()
    assert there.wait(patience(10))
    began = time.monotonic()
    try:
        flood()
    finally:
        seconds = time.monotonic() - began
        ended.set()
        asking.join(patience(20))
    more = pss_mb(broker) - before
    print(f"{what}: {seconds:.2f} s, {more:+.1f} MB, slowest answer beside it {slowest[0] * 1e3:.0f} ms")
    assert not asking.is_alive()
    assert more < most_mb, f"{what} took {more:.1f} MB"
    assert slowest[0] < patience(2)
    assert soon(lambda: enters(broker), 10), "nobody new gets in afterwards"


def enters(broker: RunningBroker) -> bool:
    """Whether somebody new is let in and served."""
    with RawClient(target_of(broker), f"after-{next(_names)}") as later:
        if later.connack is None or later.connack[1]:
            return False
        later.ping()
        return True


def send_for_ever(sock: socket.socket, data: bytes) -> None:
    while True:
        sock.sendall(data)


def is_shut(sock: socket.socket) -> bool:
    """Whether the broker ends the connection."""
    with suppress(ConnectionError):
        while sock.recv(4_096):
            pass
    return True


def test_a_flood_of_connections(broker: RunningBroker) -> None:
    """More than may be there are closed at once; those that say nothing are closed when their time is over."""

    def flood() -> None:
        with ExitStack() as stack:
            plugs = [stack.enter_context(plug(broker)) for _ in range(600)]
            assert all(map(is_shut, plugs))

    bounded(broker, "600 connections that say nothing", flood, 8)


def test_half_of_a_connect(broker: RunningBroker) -> None:
    def flood() -> None:
        with ExitStack() as stack:
            whole = connect_packet(target_of(broker), "half")
            plugs = [stack.enter_context(plug(broker)) for _ in range(150)]
            for number, each in enumerate(plugs):
                each.sendall(whole[: 1 + number % (len(whole) - 1)])
            assert all(map(is_shut, plugs))

    bounded(broker, "150 halves of a CONNECT", flood, 8)


def test_bytes_one_by_one(broker: RunningBroker) -> None:
    """A packet that is declared large costs what has come of it."""

    def flood() -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(target_of(broker), f"drop-{number}")) for number in range(50)]
            for each in clients:
                each.send(b"\x30\xc0\x84\x3d")  # a million bytes
            for byte in range(100):
                for each in clients:
                    each.send(bytes([byte]))

    bounded(broker, "50 packets of 1 MB, byte by byte", flood, 4)


def test_a_flood_of_retained_messages(broker: RunningBroker) -> None:
    def flood() -> None:
        with RawClient(target_of(broker), "retainer") as client:
            for number in range(5_000):
                client.publish(f"kept/{number}", bytes(2_000), retain=True)
            client.ping()
            client.publish("asked", b"still served")
            client.ping()

    bounded(broker, "10 MB of retained messages where 4 MB are allowed", flood, 12)
    with RawClient(target_of(broker), "cleaner") as client:
        for number in range(5_000):
            client.publish(f"kept/{number}", b"", retain=True)
        client.ping()


def test_deep_and_long_filters(broker: RunningBroker) -> None:
    def flood() -> None:
        with RawClient(target_of(broker), "deep") as client:
            deep = ["/".join([f"{number:x}"] * 199) for number in range(300)]
            long = [f"{number}" + "x" * 60_000 for number in range(100)]
            granted = sum(client.subscribe((filter_, 0)) == [0] for filter_ in (*deep, *long))
            assert granted < 100, "a long filter counts as many"
            client.publish("/".join(["a"] * 200), b"x")
            client.ping()

    bounded(broker, "400 filters of 199 levels or 60 kB", flood, 12)


def test_packet_ids_that_are_used_again(broker: RunningBroker) -> None:
    def flood() -> None:
        with RawClient(target_of(broker), "again") as client:
            message = packet(0x34, text("again") + b"\x00\x05" + b"x" * 100)
            for _ in range(100):
                client.send(message * 100)
                for _ in range(100):
                    assert client.packet() == (0x50, b"\x00\x05")

    bounded(broker, "10,000 messages of QoS 2 with one packet id", flood, 3)


def test_messages_of_qos_2_that_are_never_released(broker: RunningBroker) -> None:
    def flood() -> None:
        for number in range(30):
            with RawClient(target_of(broker), f"held-{number}") as client:
                client.send(b"".join(packet(0x34, text("t") + bytes([1, each]) + b"x") for each in range(100)))
                assert is_shut(client.socket)

    bounded(broker, "30 clients of 100 messages without a PUBREL", flood, 3)


def test_answers_that_nobody_reads(broker: RunningBroker) -> None:
    """Each ping costs 40 times its size where its answer waits: who reads none is ended."""

    def flood() -> None:
        with RawClient(target_of(broker), "deaf") as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.socket.settimeout(patience(20))
            with pytest.raises(ConnectionError):
                send_for_ever(client.socket, b"\xc0\x00" * 10_000)

    bounded(broker, "pings whose answers nobody reads", flood, 20)


def test_client_ids_without_end(broker: RunningBroker) -> None:
    """Kept sessions are counted; beyond the quota nobody new is let in."""

    def flood() -> None:
        refused = 0
        for number in range(300):
            with plug(broker) as sock:
                whole = bytearray(connect_packet(target_of(broker), f"kept-{number}"))
                whole[whole.index(b"MQTT") + 5] &= 0xFD  # not a clean session
                sock.sendall(whole)
                refused += sock.recv(4)[3] != 0
                sock.sendall(b"\xe0\x00")
        assert refused >= 150
        for number in range(300):
            with RawClient(target_of(broker), f"kept-{number}"):
                pass  # who is known comes back; a clean session ends with its connection

    bounded(broker, "300 sessions to be kept where 150 are allowed", flood, 4)


def test_topic_aliases_out_of_range(broker: RunningBroker) -> None:
    def flood() -> None:
        login = text(broker.username) + text(broker.password)
        for alias in (0, 5, 65_535) * 30:
            with plug(broker) as sock:
                sock.sendall(packet(0x10, text("MQTT") + b"\x05\xc2\x00\x00\x00" + text(f"alias-{alias}") + login))
                sock.sendall(packet(0x30, text("t") + props((0x23, alias)) + b"x"))
                came = b""
                while data := sock.recv(4_096):
                    came += data
                assert b"\x94" in came[came.index(b"\xe0") :][:3]

    bounded(broker, "90 clients with topic aliases out of range", flood, 3)


def test_a_long_filter_counts_as_several() -> None:
    assert [cost_of(each) for each in (b"a", b"a/b/c/d/e/f/g/h", b"/" * 8, b"x" * 512, b"/" * 199)] == [1, 1, 2, 2, 25]
    bench = Bench(quotas=Quotas(filters=30))
    client = bench.client()
    deep = "/" * 199
    assert client.subscribe(deep, deep, "b" + deep, "a") == [1, 1, 0x97, 1]
    client.unsubscribe(deep)
    assert client.subscribe("b" + deep) == [1]


def test_a_connection_whose_peer_vanishes_is_asked_for_by_tcp(broker: RunningBroker) -> None:
    """Also where the client wants no keep-alive: the kernel probes an idle connection."""
    with RawClient(target_of(broker), "vanishing", keepalive_s=0) as client:
        mine = client.socket.getsockname()[1]
        hexed = f"0100007F:{broker.port:04X} 0100007F:{mine:04X}"

        def timer() -> str:
            rows = [line for line in Path("/proc/net/tcp").read_text().splitlines() if hexed in line]
            return rows[0].split()[5].split(":")[0] if rows else ""

        assert soon(lambda: timer() == "02", 5), "the broker's end has a keep-alive timer"
