"""Mutated packet streams on a real socket, in both versions: the broker stays alive and quick, and a client beside them
loses nothing. 2,000 streams in the short form, 100,000 in the long one; the seeds are fixed."""

from __future__ import annotations

import os
import random
import socket
import statistics
import threading
import time

import pytest
from patience import patience
from raw_client import RawClient, Target, packet, text
from running_brokers import running_broker
from sans_io import Will, connect, mutated

STREAMS = 100_000 if os.environ.get("ETHER_LONG") == "1" else 2_000
CONNECT_S, SLOWEST_CONNECT_S = 0.2, 2.4
"""The middle is bounded tightly; one of many may have met with a machine that did something else."""


def life(level: int, login: tuple[str, str], number: int) -> bytes:
    """One client's whole life, under a name and on topics of its own."""
    more = b"\x00" * (level == 5)
    name = f"m{number % 40}"
    return (
        connect(level, name, will=Will(f"w/{name}", b"x"), login=login, keep_alive_s=5)
        + packet(0x82, b"\x00\x01" + more + text(f"a/{name}/#") + b"\x01" + text(f"b/{name}") + b"\x02")
        + packet(0x30, text(f"a/{name}") + more + b"1")
        + packet(0x33, text(f"a/{name}/b") + b"\x00\x02" + more + bytes(300))
        + packet(0x34, text(f"b/{name}") + b"\x00\x03" + more + b"3")
        + packet(0x62, b"\x00\x03")
        + packet(0xA2, b"\x00\x04" + more + text(f"a/{name}/#"))
        + packet(0xE0, b"")
    )


class Steady(threading.Thread):
    """Publishes to itself at QoS 1, one message after the other; notes what it lost and how long connecting took."""

    def __init__(self, target: Target) -> None:
        super().__init__(name="steady")
        self._target, self._ended = target, threading.Event()
        self.wrong: list[str] = []
        self.heard, self.took_s = 0, list[float]()

    def run(self) -> None:
        try:
            with RawClient(self._target) as client:
                client.subscribe(("steady/mine", 1))
                while not self._ended.is_set():
                    self._once(client)
        except (OSError, AssertionError) as error:
            self.wrong.append(repr(error))

    def _once(self, client: RawClient) -> None:
        body = b"%d" % self.heard
        client.publish("steady/mine", body, qos=1)
        came = client.publication()
        client.acknowledge(came.packet_id)
        if came.payload != body:
            self.wrong.append(f"{came.payload!r} instead of {body!r}")
        self.heard += 1
        if self.heard % 20 == 0:
            began = time.perf_counter()
            with RawClient(self._target) as other:
                assert other.connack == b"\x00\x00"
            self.took_s.append(time.perf_counter() - began)

    def end(self) -> None:
        self._ended.set()
        self.join(patience(10))


@pytest.mark.parametrize("level", [4, 5], ids=["3.1.1", "5"])
@pytest.mark.timeout(3_600 if STREAMS > 2_000 else 120)
def test_mutated_streams(level: int) -> None:
    rng = random.Random(20 + level)
    with running_broker("amqtt", max_packet_bytes=1_000_000) as broker:
        target = Target(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)
        steady = Steady(target)
        steady.start()
        try:
            for number in range(STREAMS // 2):
                data = mutated(rng, life(level, (broker.username, broker.password), number))
                with socket.create_connection((broker.host, broker.port), patience(5)) as plug:
                    plug.sendall(data)
                    if number % 50 == 0:  # and some stay to hear what the broker says of it
                        plug.settimeout(0.05)
                        try:
                            plug.recv(4_096)
                        except OSError:
                            pass
        finally:
            steady.end()
        assert steady.wrong == []
        assert steady.heard > 20
        assert statistics.median(steady.took_s) < patience(CONNECT_S)
        assert max(steady.took_s) < patience(SLOWEST_CONNECT_S)
        assert broker.process.poll() is None
        assert broker.stderr() == ""
