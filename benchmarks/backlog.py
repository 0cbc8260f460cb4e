"""A backlog of 50,000 messages to a handler of 5 ms: what calls, questions and the end take beside it, and the memory.

    python benchmarks/backlog.py [--engine mosquitto|amqtt|stock] [--count 50000] [--seconds 10] [--qos 1]
                                 [--size 1000]

`own` is a method with a thread of its own (`concurrency=1`), `worker` one of the main worker; both are called in turns,
100 times a second, first without the backlog (the baseline), then while it grows, then beside it. `read back`: a
setpoint is published and read back; a stale one is an older one. `ps` asks for what every instance does. At its end
the session says how many messages were not handled; that and those that were must be those that were published.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "parts")]

from backlog_parts import peak_mb, read  # noqa: E402
from figures import table  # noqa: E402
from running_brokers import RunningBroker, running_broker  # noqa: E402

from ether import Ether  # noqa: E402
from ether.errors import LifecycleFailed  # noqa: E402

METHODS = {"own": "now", "worker": "last"}


def call_for(ether: Ether, seconds: float, until: threading.Thread | None = None) -> dict[str, list[float]]:
    """How long calls took, in ms, by kind: for some seconds, or until a thread has ended."""
    took: dict[str, list[float]] = {kind: [] for kind in METHODS}
    end = time.monotonic() + seconds
    while until.is_alive() if until is not None else time.monotonic() < end:
        for kind, method in METHODS.items():
            begun = time.perf_counter()
            ether.get("slow", method, timeout_s=30)
            took[kind].append((time.perf_counter() - begun) * 1000)
        time.sleep(0.01)
    return took


def figures_of(times: list[float]) -> tuple[str, ...]:
    ordered = sorted(times)
    return f"{len(ordered)}", *(f"{ordered[min(int(len(ordered) * q), len(ordered) - 1)]:.1f}" for q in (0.5, 0.99, 1))


def measure(broker: RunningBroker, asked: argparse.Namespace, folder: Path) -> None:
    ether = Ether()
    instances = {
        "slow": {"class_path": "backlog_parts.Slow", "kwargs": {"folder": str(folder)}},
        "source": {"class_path": "backlog_parts.Source"},
    }
    ether.tap({"session": "bench-backlog", "instances": instances}, broker=broker.url_tcp, timeout_s=60)
    pids = {instance["name"]: instance["pid"] for instance in ether.instances()} | {"broker": broker.engine_pid}
    rows = []
    quiet = call_for(ether, min(asked.seconds, 5))
    before = {name: peak_mb(pid) for name, pid in pids.items()}
    burst = {"count": asked.count, "qos": asked.qos, "size": asked.size}
    flood = threading.Thread(target=ether.get, args=("source", "burst", burst), kwargs={"timeout_s": 600})
    begun = time.monotonic()
    flood.start()
    grows = call_for(ether, 0, until=flood)
    print(f"published {asked.count:,} in {time.monotonic() - begun:.1f} s")
    beside = call_for(ether, asked.seconds)
    for kind in METHODS:
        for when, times in (("without", quiet[kind]), ("while it grows", grows[kind]), ("beside it", beside[kind])):
            rows.append([kind, when, *figures_of(times or [float("nan")])])
    stale, begun = 0, time.monotonic()
    for n in range(asked.read_back):
        ether.pub({"n": n}, topic="setpoint")
        stale += ether.get("slow", "last", timeout_s=30) != n
    each_ms = (time.monotonic() - begun) / asked.read_back * 1000
    print(f"read back: {stale} stale of {asked.read_back:,}, {each_ms:.1f} ms each")
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "ether", "ps"], stdout=subprocess.DEVNULL, check=False)
    print(f"ps: {time.monotonic() - begun:.2f} s")
    grown = {name: peak_mb(pid) - before[name] for name, pid in pids.items()}
    begun = time.monotonic()
    said = ""
    try:
        ether.shutdown()
    except LifecycleFailed as failed:
        said = str(failed)
    print(f"shutdown: {time.monotonic() - begun:.1f} s. {said}")
    told = re.search(r"([\d,]+) messages? w\w+ not handled", said)
    left = int(told.group(1).replace(",", "")) if told else 0
    handled, late = read(folder, "handled"), read(folder, "late")
    # The source publishes a last one as it saves.
    print(f"handled {handled:,} + left {left:,} of {asked.count + 1:,} published; {late} handled after the cleanup")
    print("memory, MB more at most: " + ", ".join(f"{name} {more:.0f}" for name, more in grown.items()))
    head = (
        f"{asked.engine}, {asked.count:,} messages of {asked.size:,} bytes at QoS {asked.qos}, 5 ms each; ms for a call"
    )
    table(head, ["method", "backlog", "calls", "p50", "p99", "max"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="mosquitto")
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--read-back", type=int, default=1000)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--size", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_broker(asked.engine) as broker:
        measure(broker, asked, Path(folder))


if __name__ == "__main__":
    main()
