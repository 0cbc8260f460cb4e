"""Paced load: eight sensors at 100 Hz and one collector, QoS 1, as a Pi beside an instrument has it.

    python benchmarks/paced.py [--engine mosquitto|amqtt] [--seconds 8] [--rounds 3]

Processor time in per cent of one core and wake-ups per message (voluntary context switches of all threads, from /proc),
of sensors and collector together. The baseline does the same in the same run with paho alone: eight processes that
publish 800 messages a second and one that hears them. Linux only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402
from instances import cpu_s, kinds_of  # noqa: E402
from startup import descendants  # noqa: E402

from ether import Ether, ether_get, ether_pub, ether_sub  # noqa: E402

SENSORS = 8
WARM_UP_S = 1.5


class Sensor:
    """A reading of ordinary size, a hundred times a second."""

    @ether_pub(topic="reading", every="100Hz")
    def read(self) -> dict[str, object]:
        return {"v": 1.25, "unit": "V"}


class Collector:
    """Hears all of them."""

    def __init__(self) -> None:
        self.heard = 0

    @ether_sub(topic="reading")
    def take(self, v: float, unit: str) -> None:
        self.heard += 1

    @ether_get
    def count(self) -> int:
        return self.heard


def wake_ups(pids: Sequence[int]) -> Counter[str]:
    """How often the threads of these processes have slept and woken up, by the role of the thread."""
    found: Counter[str] = Counter()
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text()
            count = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            found["main" if task.name == str(pid) else "other threads"] += count
    return found


def observed(sensors: Sequence[int], collector: int, seconds: float) -> dict[str, float]:
    """Per cent of a core and wake-ups of these processes meanwhile."""
    threading.Event().wait(WARM_UP_S)
    everybody = [*sensors, collector]
    before, slept, began = cpu_s(everybody), {pid: wake_ups([pid]) for pid in everybody}, time.monotonic()
    threading.Event().wait(seconds)
    took_s = time.monotonic() - began
    after = {pid: wake_ups([pid]) for pid in everybody}
    figures = {"cpu": 100 * (cpu_s(everybody) - before) / took_s}
    for role, pids in (("sensor", sensors), ("collector", [collector])):
        for thread in ("main", "other threads"):
            woken = sum(after[pid][thread] - slept[pid][thread] for pid in pids)
            figures[f"{role}, {thread}"] = woken / took_s
    return figures


def of_ether(engine: str, seconds: float) -> dict[str, float]:
    """Ether's figures, with messages per second."""
    ether = Ether()
    instances = {f"s{n}": {"class_path": "paced.Sensor"} for n in range(SENSORS)}
    ether.tap({"instances": {**instances, "c": {"class_path": "paced.Collector"}}}, broker={"engine": engine})
    try:
        pids = {member["name"]: member["pid"] for member in ether.instances()}
        assert set(kinds_of(descendants(os.getpid()))["instance"]) >= set(pids.values())
        before, began = ether.get("c", "count"), time.monotonic()
        figures = observed([pids[name] for name in instances], pids["c"], seconds)
        figures["rate"] = (ether.get("c", "count") - before) / (time.monotonic() - began)
    finally:
        ether.shutdown()
    return figures


def of_paho(engine: str, seconds: float) -> dict[str, float]:
    """The same work by paho alone, on a broker of the same kind."""
    ether = Ether()
    ether.tap({}, broker={"engine": engine})
    try:
        from urllib.parse import urlsplit

        url = urlsplit(ether.broker_url or "")
        word = [sys.executable, str(HERE / "plain_paho.py")]
        where = [url.hostname or "", str(url.port), url.username or "", url.password or "", "5", "1"]
        count = str(int(100 * (seconds + WARM_UP_S + 3)))
        total = str(SENSORS * int(count))
        collector = subprocess.Popen([*word, "subscribe", *where, total, "0"], stdout=subprocess.PIPE)
        assert collector.stdout is not None
        collector.stdout.readline()
        sensors = [
            subprocess.Popen([*word, "publish", *where, count, "0.01"], stdout=subprocess.DEVNULL)
            for _ in range(SENSORS)
        ]
        threading.Event().wait(1.0)
        figures = observed([sensor.pid for sensor in sensors], collector.pid, seconds)
        for process in (*sensors, collector):
            process.kill()
            process.wait()
        collector.stdout.close()
    finally:
        ether.shutdown()
    return figures | {"rate": 100.0 * SENSORS}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    rounds = [
        (of_ether(given.engine, given.seconds), of_paho(given.engine, given.seconds)) for _ in range(given.rounds)
    ]
    ours = {key: statistics.median(each[0][key] for each in rounds) for key in rounds[0][0]}
    theirs = {key: statistics.median(each[1][key] for each in rounds) for key in rounds[0][1]}
    rows = [["% of a core", f"{theirs['cpu']:.1f}", f"{ours['cpu']:.1f}", f"{ours['cpu'] / theirs['cpu']:.2f}"]]
    threads = [key for key in ours if "," in key]
    rows += [
        [f"{key}, wake-ups a message", *(f"{each[key] / each['rate']:.2f}" for each in (theirs, ours)), ""]
        for key in threads
    ]
    total = [sum(each[key] for key in threads) / each["rate"] for each in (theirs, ours)]
    rows.append(["wake-ups a message", f"{total[0]:.2f}", f"{total[1]:.2f}", f"{total[1] / total[0]:.2f}"])
    title = f"{given.engine}, {SENSORS} × 100 Hz, QoS 1, {given.rounds} rounds, medians ({ours['rate']:.0f} messages/s)"
    table(title, ["figure", "plain paho", "Ether", "ratio"], rows)


if __name__ == "__main__":
    main()
