"""What a slow or stopped reader costs the other readers: messages per second at a fast one, beside the same without it.

    python benchmarks/readers.py [--engine mosquitto|amqtt] [--count 20000] [--rounds 5]

The program publishes at QoS 1 as fast as it can; each reader is an instance in a process of its own. The slow reader
takes 5 ms for each message, the stopped one is under SIGSTOP. In turns, each round with a session of its own. `idle`
is the baseline: the same processes, and the other reader listens to another topic.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import PAD, median, summarise, table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether import Ether, ether_get, ether_sub  # noqa: E402
from ether.errors import EtherError  # noqa: E402

WAYS = ("idle", "slow", "stopped")


class Fast:
    """Notes when each message came; publishes the figures when all have."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.arrived: list[tuple[int, int]] = []

    @ether_sub(topic="bench/readers")
    def take(self, n: int, t: int, pad: str) -> None:
        self.arrived.append((time.monotonic_ns(), t))
        if len(self.arrived) == self.count:
            from ether import ether

            ether.pub(summarise(self.arrived), topic="figures")


class Other:
    """The reader beside it."""

    @ether_get
    def pid(self) -> int:
        return os.getpid()


class Idle(Other):
    @ether_sub(topic="bench/nothing")
    def take(self, n: int) -> None:
        pass


class Slow(Other):
    @ether_sub(topic="bench/readers")
    def take(self, n: int, t: int, pad: str) -> None:
        time.sleep(0.005)


def one_round(broker: RunningBroker, way: str, count: int) -> dict[str, Any]:
    """The fast reader's figures, with the other one beside it."""
    ether = Ether()
    other = "Idle" if way == "idle" else "Slow"
    instances = {
        "fast": {"class_path": "readers.Fast", "args": [count]},
        "other": {"class_path": f"readers.{other}"},
    }
    ether.tap({"instances": instances}, broker=broker.url_tcp)
    pid = ether.get("other", "pid")
    try:
        with ether.subscribe("figures") as figures:
            if way == "stopped":
                os.kill(pid, signal.SIGSTOP)
            for number in range(count):
                ether.pub({"n": number, "t": time.monotonic_ns(), "pad": PAD}, topic="bench/readers")
            value = figures.get(timeout_s=120).value
    finally:
        os.kill(pid, signal.SIGKILL)  # what it has not handled is of no interest
        try:
            ether.shutdown()
        except EtherError:
            pass  # it says that the other reader was killed
    if not isinstance(value, dict):
        raise EtherError(f"no figures but {value!r}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="mosquitto")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(asked.rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            with running_broker(asked.engine) as broker:
                rounds[way].append(one_round(broker, way, asked.count))
    rows = []
    for way in WAYS:
        ratios = [
            {"ratio": mine["rate"] / idle["rate"]} for mine, idle in zip(rounds[way], rounds["idle"], strict=True)
        ]
        row = f"{median(rounds[way], 'rate'):,.0f}", f"{median(rounds[way], 'p99_us') / 1000:,.0f}"
        rows.append([way, *row, f"{median(ratios, 'ratio'):.2f}"])
    head = f"{asked.engine}, {asked.count:,} messages of 64 bytes at QoS 1, {asked.rounds} rounds, medians"
    table(head, ["other reader", "messages/s at the fast one", "one-way p99 ms", "ratio"], rows)


if __name__ == "__main__":
    main()
