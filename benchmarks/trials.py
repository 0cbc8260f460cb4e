"""What the end of a trial costs: milliseconds for a trial whose body publishes one message, by the hops that follow.

    python benchmarks/trials.py                     all engines, 0 and 3 hops
    python benchmarks/trials.py --engine mosquitto --trials 200

A trial waits until all that it caused is handled and on disk, so with 3 hops the time holds the hops themselves. Two
writes of the recorder for each trial are part of it, too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parts"))

from ether import Ether

PARTS = {"one": "One", "two": "Two", "three": "Three"}


def measure(engine: str, hops: int, trials: int) -> list[float]:
    """Seconds of each trial."""
    ether, took = Ether(), []
    instances = {name: {"class_path": f"pipe_parts.{kind}"} for name, kind in PARTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "session": "bench-trials", "broker": {"engine": engine}, "instances": instances,
            "record": {"topics": "all", "folder": folder},
        }  # fmt: skip
        with ether.tap(config), ether.run("bench") as run:
            began = time.perf_counter()
            for trial in run.trials(trials):
                took.append(time.perf_counter() - began)
                began = time.perf_counter()
                ether.pub({"x": trial.number}, topic="a" if hops else "aside")
    return took[5:]


def main() -> None:
    """Print one line for each engine and number of hops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["amqtt", "mosquitto"], action="append")
    parser.add_argument("--trials", type=int, default=100)
    given = parser.parse_args()
    for engine in given.engine or ["mosquitto", "amqtt"]:
        for hops in (0, 3):
            took = sorted(measure(engine, hops, given.trials))
            median, late = statistics.median(took) * 1e3, took[int(len(took) * 0.95)] * 1e3
            print(f"{engine:10} {hops} hops: {median:6.1f} ms a trial (95 %: {late:.1f} ms)", flush=True)


if __name__ == "__main__":
    main()
