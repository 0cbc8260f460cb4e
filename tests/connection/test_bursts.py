"""Bursts from several sources, to fast, slow and stopped readers: everything is handled once and in order, or named.

V8 and EB3 of the faults: on a Mosquitto as everybody has it (20 in flight, 1,000 queued, the rest dropped without a
word) 17,539 of 20,000 messages of a burst were lost for good.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing, running_broker

from ether.connection.assembly import make_link
from ether.connection.inbound import Inbound
from ether.connection.link import Link
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("bursts")
LONG = os.environ.get("ETHER_LONG") == "1"
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
BROKERS = [
    *(pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines),
    pytest.param("stock", marks=needs_mosquitto),
]


@contextmanager
def stock_mosquitto(folder: Path) -> Iterator[str]:
    """A Mosquitto as everybody has it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    (folder / "stock.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    command = ["/usr/sbin/mosquitto", "-c", str(folder / "stock.conf")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline, pause = time.monotonic() + patience(10), threading.Event()
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                pause.wait(0.02)
        try:
            yield f"mqtt://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture(params=BROKERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "stock":
        with stock_mosquitto(tmp_path) as url:
            yield url
    else:
        with running_broker(request.param) as broker:
            yield broker.url_tcp


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(stack: ExitStack, url: str, name: str) -> Link:
    link = make_link(Endpoint.from_url(url), name, will=None, max_packet_bytes=None, topics=TOPICS)
    link.open(10)
    stack.callback(link.close)
    return link


class Reader:
    """Handles messages one by one on a thread of its own, as a worker does."""

    def __init__(self, stack: ExitStack, url: str, name: str, takes_s: float = 0.0) -> None:
        self.link = connected(stack, url, name)
        self.got: dict[str, list[int]] = {}
        self.count = 0
        self._takes_s = takes_s
        self._jobs: list[Inbound] = []
        self._changed = threading.Condition()
        self._ends = False
        self.link.listen(TOPICS.data_filter("burst/#"), self._take, now=self._take)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        stack.callback(self._end)

    def _take(self, inbound: Inbound) -> bool:
        with self._changed:
            self._jobs.append(inbound)
            self._changed.notify_all()
        return True

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._ends)
                if self._ends:
                    return
                jobs, self._jobs = self._jobs, []
            for inbound in jobs:
                if self._takes_s:
                    pause.wait(self._takes_s)
                headers = inbound.headers()
                assert headers is not None
                self.got.setdefault(headers.source, []).append(int(inbound.unpack().value))  # type: ignore[call-overload]
                inbound.done()
            with self._changed:
                self.count += len(jobs)
                self._changed.notify_all()

    def wait_for(self, count: int, timeout_s: float) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count >= count, patience(timeout_s)), (self.count, count)

    def _end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()


def burst(stack: ExitStack, url: str, sources: int, count: int) -> list[threading.Thread]:
    """Each source publishes `count` messages as fast as it can."""
    threads = []
    for index in range(sources):
        link = connected(stack, url, f"source-{index}")

        def publish(link: Link = link, index: int = index) -> None:
            for number in range(1, count + 1):
                link.publish(TOPICS.data(f"burst/{index % 2}"), number, timeout_s=30.0)

        threads.append(threading.Thread(target=publish))
    for thread in threads:
        thread.start()
    return threads


def assert_whole(reader: Reader, sources: int, count: int) -> None:
    for index in range(sources):
        assert reader.got[f"source-{index}"] == list(range(1, count + 1))
    assert reader.link.retransmitter is not None
    assert reader.link.retransmitter.missed == 0


SIZES = [(1, 1_000), (8, 500), (1, 20_000)] + ([(8, 12_500), (1, 100_000), (4, 25_000)] if LONG else [])


@pytest.mark.parametrize(("sources", "count"), SIZES)
def test_a_burst_arrives_whole_at_fast_and_slow_readers(stack: ExitStack, url: str, sources: int, count: int) -> None:
    fast, slow = Reader(stack, url, "fast"), Reader(stack, url, "slow", 0.0002)
    for thread in burst(stack, url, sources, count):
        thread.join()
    total = sources * count
    for reader in (fast, slow):
        reader.wait_for(total, 10 + total / 500)
        assert_whole(reader, sources, count)
