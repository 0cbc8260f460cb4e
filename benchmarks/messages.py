"""Messages per second and one-way latency, from a user's `ether.pub` to a user's method, beside plain paho.

    python benchmarks/messages.py [--engine mosquitto|amqtt] [--count 20000] [--rounds 5]

Both sides run on the same broker in the same run, in turns: publisher, broker and subscriber are processes of
their own. Ether's figures include everything that it does and plain paho does not: headers, routing, JSON,
validation of typed arguments, the hand-over to a worker. Ratios count; absolute figures vary with the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from figures import PAD, median, summarise, table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether import Ether, ether_sub  # noqa: E402
from ether.errors import EtherError  # noqa: E402

LATENCY_RATE = 200
"""Messages per second when latency is measured."""


class Arrivals:
    """Notes when each message came; prints the figures when all have."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.arrived: list[tuple[int, int]] = []

    @ether_sub(topic="bench/qos0", qos=0)
    @ether_sub(topic="bench/qos1")
    def take(self, n: int, t: int, pad: str) -> None:
        self.arrived.append((time.monotonic_ns(), t))
        if len(self.arrived) == self.count:
            from ether import ether

            ether.pub(summarise(self.arrived), topic="figures")


def by_ether(broker: RunningBroker, qos: int, count: int, interval_s: float) -> dict[str, Any]:
    """One round by Ether."""
    ether = Ether()
    instances = {"arrivals": {"class_path": "messages.Arrivals", "args": [count]}}
    url = broker.url_tcp
    with ether.tap({"instances": instances}, broker=url), ether.subscribe("figures") as figures:
        for number in range(count):
            ether.pub({"n": number, "t": time.monotonic_ns(), "pad": PAD}, topic=f"bench/qos{qos}", qos=qos)
            if interval_s:
                time.sleep(interval_s)
        value = figures.get(timeout_s=120).value
    if not isinstance(value, dict):
        raise EtherError(f"no figures but {value!r}")
    return value


def by_paho(broker: RunningBroker, qos: int, count: int, interval_s: float) -> dict[str, Any]:
    """One round by plain paho."""
    protocol = broker.protocols[-1]
    rest = [broker.host, broker.port, broker.username, broker.password, protocol, qos, count, interval_s]
    command = [sys.executable, str(HERE / "plain_paho.py")]
    arguments = [str(item) for item in rest]
    with subprocess.Popen([*command, "subscribe", *arguments], stdout=subprocess.PIPE, text=True) as subscriber:
        assert subscriber.stdout is not None
        assert subscriber.stdout.readline() == "ready\n"
        subprocess.run([*command, "publish", *arguments], check=True)
        figures: dict[str, Any] = json.loads(subscriber.stdout.readline())
    return figures


def compare(broker: RunningBroker, qos: int, count: int, interval_s: float, rounds: int) -> list[list[dict[str, Any]]]:
    """Rounds in turns."""
    pairs = [(by_paho(broker, qos, count, interval_s), by_ether(broker, qos, count, interval_s)) for _ in range(rounds)]
    return [[pair[side] for pair in pairs] for side in (0, 1)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    rows = []
    with running_broker(given.engine, max_packet_bytes=64 << 20) as broker:
        for qos in (0, 1):
            paho, ether = compare(broker, qos, given.count, 0, given.rounds)
            slow, fast = median(paho, "rate"), median(ether, "rate")
            rows.append([f"messages per second, QoS {qos}", f"{slow:,.0f}", f"{fast:,.0f}", f"{fast / slow:.2f}"])
        for qos in (0, 1):
            paho, ether = compare(broker, qos, 5 * LATENCY_RATE, 1 / LATENCY_RATE, given.rounds)
            for key in ("p50_us", "p99_us"):
                theirs, ours = median(paho, key), median(ether, key)
                name = f"one-way latency {key[:3]}, QoS {qos}, µs"
                rows.append([name, f"{theirs:,.0f}", f"{ours:,.0f}", f"{ours / theirs:.2f}"])
    title = f"{given.engine}, 64-byte bodies, {given.rounds} rounds, medians"
    table(title, ["figure", "plain paho", "Ether", "ratio"], rows)


if __name__ == "__main__":
    main()
