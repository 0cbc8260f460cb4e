"""A call over brokers of others beside the embedded ones: round trip, p50, in turns, in one run.

    python -m benchmarks.foreign [--rounds 3] [--calls 500]

RabbitMQ, NATS and Aedes run as they are installed (`.ci/tools --long`); what is missing is left out, and said. All run
at the same time, idle but for the one that is measured. The ratio to the embedded Mosquitto is what counts. Run it from
the root of the checkout.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts"), str(HERE.parent / "tests" / "brokers")]

from brokers import PAD  # noqa: E402
from figures import table  # noqa: E402
from foreign_brokers import AEDES, NATS, RABBITMQ, running_foreign  # noqa: E402
from running_brokers import running_broker  # noqa: E402

from ether import Ether  # noqa: E402

EMBEDDED = ("mosquitto", "amqtt")


def p50_us(url: str, calls: int) -> float:
    """The median of so many calls, one by one, after some that are not counted."""
    ether, took = Ether(), []
    with ether.tap({"instances": {"far": {"class_path": "brokers.Far"}}}, broker=url):
        for number in range(calls + 50):
            began = time.perf_counter()
            ether.get("far", "echo", {"text": PAD})
            if number >= 50:
                took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--calls", type=int, default=500)
    given = options.parse_args()
    with ExitStack() as stack:
        urls = {f"embedded {name}": stack.enter_context(running_broker(name)).url_tcp for name in EMBEDDED}
        for kind in (RABBITMQ, NATS, AEDES):
            if kind.missing() is None:
                urls[kind.name] = stack.enter_context(running_foreign(kind)).url
            else:
                print(f"{kind.name} is left out: {kind.missing()}", file=sys.stderr)
        found: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(given.rounds):
            for name, url in urls.items():
                found[name].append(p50_us(url, given.calls))
    base = statistics.median(found["embedded mosquitto"])
    rows = [
        [name, f"{statistics.median(each):,.0f}", f"{statistics.median(each) / base:.2f}"]
        for name, each in found.items()
    ]
    table(f"a call, medians of {given.rounds} rounds", ["broker", "p50, µs", "ratio"], rows)


if __name__ == "__main__":
    main()
