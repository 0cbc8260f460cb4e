"""What it costs to know what a value is made of: handling a message, publishing and recording the result.

    python benchmarks/inputs.py [--messages 20000] [--rounds 5]

The instance, its link over a broker in memory and its record writer are real; nothing is sent to a recorder, and no
broker or disk is in the way. Printed is processor time for each message, the best of the rounds. To compare two
versions, run it in pairs with `PYTHONPATH` set to the other one's checkout.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from ether import ether_pub, ether_sub
from ether.connection.assembly import describe_with_registry
from ether.connection.inbound import Inbound
from ether.connection.link import Link
from ether.connection.worker import Worker
from ether.instance.hosted import HostedInstance
from ether.recording.options import SavingOptions
from ether.recording.writer import RecordWriter
from ether.transport.base import Delivery
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.envelope import EnvelopeV5
from ether.wire.head import Headers, MessageIds
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("bench")


class Stage:
    """Answers each message; each result is recorded."""

    @ether_sub(topic="in")
    @ether_pub(topic="out")
    def double(self, value: int) -> int:
        return 2 * value


class Collector:
    """Makes nothing."""

    @ether_sub(topic="in")
    def take(self, value: int) -> None: ...


def main() -> None:
    """Measure, and print a line for each class."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--messages", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    for cls in (Stage, Collector):
        best = min(measured(cls, given.messages) for _ in range(given.rounds))
        print(f"{cls.__name__:10} {best * 1e6:6.2f} µs for each message")


def measured(cls: type, count: int) -> float:
    """Seconds of processor time for each message."""
    link = Link(LoopbackTransport(LoopbackBroker(), "stage"), "stage", TOPICS)
    link.open(2.0, dispatch=False)
    spec = describe_with_registry(cls, f"bench.{cls.__name__}", {})
    instance = HostedInstance("stage", cls(), spec, link, TOPICS, Worker(), "incarnation")
    with tempfile.TemporaryDirectory() as folder:
        writer = RecordWriter(link, TOPICS, SavingOptions(Path(folder), None, "run"))
        writer._context = "0" * 64  # explained already, so that no sender is started
        instance.record_writer = writer
        (method,) = spec.methods
        inbounds = messages(count)
        began = time.process_time()
        for inbound in inbounds:
            instance.handle(inbound, method)
        took = time.process_time() - began
        instance.close()
        link.close()
    return took / count


def messages(count: int) -> list[Inbound]:
    """Messages as they come from another process."""
    ids, envelope, lock = MessageIds(5), EnvelopeV5(), threading.Lock()
    found = []
    for number in range(1, count + 1):
        headers = Headers(ids.next(int(time.time() * 1000)), "main", number, time.time(), ())
        packed = envelope.pack(envelope.prepare({"value": number}), headers)
        delivery = Delivery(TOPICS.data("in"), packed.payload, 1, False, packed.properties)
        found.append(Inbound(delivery, 1, lock, lambda delivery: None))
    return found


if __name__ == "__main__":
    main()
