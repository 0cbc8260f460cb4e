"""What it costs a message that it can be sent again: processor time of publishing and receiving it, with and without.

    python benchmarks/resending.py [--engine mosquitto|amqtt] [--count 20000] [--rounds 9]

Sender and receiver are one process, in turns with and without, on the same broker, which is a process of its own, not
counted. Processor time, because the machine may be busy; ratios count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import PAD, table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether.connection.assembly import make_link  # noqa: E402
from ether.connection.link import Link  # noqa: E402
from ether.session.client import Client  # noqa: E402
from ether.transport.endpoint import Endpoint  # noqa: E402
from ether.wire.topics import SessionTopics  # noqa: E402

TOPICS = SessionTopics("bench")
WARM_UP = 500


def one_round(broker: RunningBroker, count: int, *, resent: bool) -> float:
    """Microseconds of processor time for one message."""
    endpoint = Endpoint.from_url(broker.url_unix or broker.url_tcp)

    def link(name: str) -> Link:
        made = make_link(endpoint, name, will=None, max_packet_bytes=None, topics=TOPICS if resent else None)
        made.open(10.0)
        return made

    sender, receiver = link("from"), link("to")
    client = Client(sender, TOPICS)
    with Client(receiver, TOPICS).subscribe("plain") as subscription:
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                for _ in range(WARM_UP):
                    subscription.get()
                began = time.process_time()
            client.publish({"n": number, "t": 1_000_000, "pad": PAD}, "plain")
        for _ in range(count):
            subscription.get()
        spent = time.process_time() - began
    for made in (sender, receiver):
        made.close()
    return spent / count * 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    with running_broker(given.engine, max_packet_bytes=64 << 20) as broker:
        pairs = [
            [one_round(broker, given.count, resent=resent) for resent in (False, True)] for _ in range(given.rounds)
        ]
    without, with_it = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    ratio = statistics.median(after / before for before, after in pairs)
    row = ["publish and receive, µs of processor time", f"{without:.1f}", f"{with_it:.1f}", f"{ratio:.3f}"]
    table(f"{given.engine}, QoS 1, {given.rounds} rounds, medians", ["figure", "without", "with", "ratio"], [row])


if __name__ == "__main__":
    main()
