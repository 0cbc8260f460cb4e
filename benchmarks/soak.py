"""A million calls from one process: memory and tables stay flat, and nothing is pending at the end.

    python benchmarks/soak.py [--engine mosquitto|amqtt] [--calls 1000000] [--threads 16]

The baseline of each figure is the same figure after the first tenth of the calls, when every window is full.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402

from ether import Ether, ether_get  # noqa: E402


class Adder:
    """Answers, and tells about its own process."""

    @ether_get
    def add(self, a: int, b: int) -> int:
        return a + b

    @ether_get
    def memory_mb(self) -> float:
        return rss_mb(os.getpid())


def rss_mb(pid: int) -> float:
    """A process's resident memory in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--calls", type=int, default=1_000_000)
    options.add_argument("--threads", type=int, default=16)
    given = options.parse_args()
    wrong: list[int] = []
    rows: list[list[object]] = []
    ether = Ether()
    instances = {"adder": {"class_path": "soak.Adder"}}
    with ether.tap({"instances": instances}, broker={"engine": given.engine}):
        session = ether._client.session  # type: ignore[union-attr]

        def ask(numbers: range) -> None:
            wrong.extend(n for n in numbers if ether.get("adder", "add", {"a": n, "b": 1}, timeout_s=60) != n + 1)

        tenth = given.calls // 10
        for part in range(10):
            begun = time.perf_counter()
            share = range(part * tenth, (part + 1) * tenth)
            threads = [threading.Thread(target=ask, args=(share[i :: given.threads],)) for i in range(given.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rate = tenth / (time.perf_counter() - begun)
            memory = (rss_mb(os.getpid()), ether.get("adder", "memory_mb"))
            rows.append([f"{(part + 1) * tenth:,}", f"{rate:,.0f}", *memory, len(session.calls.requests)])
    first = rows[0]
    printed = [
        [*row[:2], f"{row[2]:.1f}", f"{row[2] / first[2]:.3f}", f"{row[3]:.1f}", f"{row[3] / first[3]:.3f}", row[4]]  # type: ignore[operator]
        for row in rows
    ]
    header = ["calls", "calls/s", "caller, MB", "ratio", "instance, MB", "ratio", "pending"]
    table(f"{given.engine}, {given.threads} threads; wrong answers: {len(wrong)}", header, printed)


if __name__ == "__main__":
    main()
