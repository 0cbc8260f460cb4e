"""What logging costs: microseconds per record, and what a flood does to an instance's handler.

    python benchmarks/logs.py [--engine mosquitto|amqtt] [--count 20000] [--rounds 5]

The baseline is the standard library alone: a `logging.StreamHandler` that writes to a file. Both sides run in one
process, in turns. Ratios count; absolute figures vary with the machine.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether.connection.assembly import make_link  # noqa: E402
from ether.connection.link import Link  # noqa: E402
from ether.logs.shipping import LogShipper  # noqa: E402
from ether.session.client import Client  # noqa: E402
from ether.transport.endpoint import Endpoint  # noqa: E402
from ether.wire.topics import SessionTopics  # noqa: E402

TOPICS = SessionTopics("bench")
FLOOD = 20
"""Records that a handler in a flood logs for each message."""

log = logging.getLogger("bench")
root = logging.getLogger()
OpenLink = Callable[[str], Link]


@contextmanager
def silence(_: OpenLink) -> Iterator[None]:
    """The level is above all that is logged."""
    root.setLevel(logging.CRITICAL)
    yield


@contextmanager
def plain_file(_: OpenLink) -> Iterator[None]:
    """The standard library alone."""
    with tempfile.TemporaryFile("w") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
        root.addHandler(handler)
        yield
        root.removeHandler(handler)


@contextmanager
def shipped(open_link: OpenLink) -> Iterator[None]:
    """To the session."""
    shipper = LogShipper(open_link("cam"), TOPICS, "cam")
    yield
    shipper.close()


def per_record_us(count: int, pause_s: float) -> float:
    """Microseconds per record; with a pause as of code that does something else, too."""
    waiting, spent = threading.Event(), 0
    for number in range(count):
        began = time.perf_counter_ns()
        log.info("frame %d of %s took %.3f s", number, "camera1", 0.012)
        spent += time.perf_counter_ns() - began
        if pause_s:
            waiting.wait(pause_s)
    return spent / count / 1000


def handled_per_s(open_link: OpenLink, count: int, flood: int) -> float:
    """Messages per second through a subscription whose reader logs `flood` records for each."""
    sender = Client(open_link("sender"), TOPICS)
    receiver = Client(open_link("receiver"), TOPICS)
    with receiver.subscribe("frames") as frames:
        thread = threading.Thread(target=lambda: [sender.publish({"n": n}, "frames") for n in range(count)])
        began = time.perf_counter()
        thread.start()
        for _ in range(count):
            message = frames.get(timeout_s=30)
            for number in range(flood):
                log.debug("message %s, step %d", message, number)
        rate = count / (time.perf_counter() - began)
        thread.join()
    return rate


def measured(
    broker: RunningBroker, way: Callable[..., object], level: int, measure: Callable[[OpenLink], float]
) -> float:
    """One figure, with its own connections."""
    with ExitStack() as opened:

        def open_link(name: str) -> Link:
            link = make_link(Endpoint.from_url(broker.url_tcp), name, will=None, max_packet_bytes=None)
            link.open(10)
            opened.callback(link.close)
            return link

        root.setLevel(level)
        opened.enter_context(way(open_link))  # type: ignore[arg-type]
        return measure(open_link)


def compare(broker: RunningBroker, ways: Sequence[Callable[..., object]], level: int, rounds: int,
            measure: Callable[[OpenLink], float]) -> list[float]:  # fmt: skip
    """Medians of rounds in turns."""
    figures = [[measured(broker, way, level, measure) for way in ways] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*figures, strict=True)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    ways = (silence, plain_file, shipped)
    rows = []
    with running_broker(given.engine) as broker:
        cases: list[tuple[str, Callable[[OpenLink], float]]] = [
            ("a record, 500 a second, µs", lambda _: per_record_us(500, 0.002)),
            ("a record in a flood, µs", lambda _: per_record_us(given.count, 0)),
            ("messages per second, nothing logged", lambda link: handled_per_s(link, given.count // 2, 0)),
            (f"messages per second, {FLOOD} records each", lambda link: handled_per_s(link, given.count // 10, FLOOD)),
        ]
        for name, measure in cases:
            none, file, ship = compare(broker, ways, logging.DEBUG, given.rounds, measure)
            rows.append([name, f"{none:,.1f}", f"{file:,.1f}", f"{ship:,.1f}", f"{ship / file:.2f}"])
    header = ["figure", "below the level", "StreamHandler to a file", "shipped", "ratio"]
    table(f"{given.engine}, {given.rounds} rounds, medians", header, rows)


if __name__ == "__main__":
    main()
