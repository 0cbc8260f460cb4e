"""From nothing to the first message: four instances, their processes and memory, and what `import ether` costs.

    python benchmarks/startup.py [--engine amqtt|mosquitto] [--rounds 7]

Times are beside a baseline of the same run: as many bare interpreters as the pipeline has processes, started together,
each importing pydantic and paho; and a bare interpreter. Memory is PSS: shared pages are divided among their users.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "dual_processors"
sys.path[:0] = [str(HERE), str(EXAMPLE)]

from figures import table  # noqa: E402

PROCESSES = 6  # main program, broker, four instances


def pss_mb(pid: int) -> float:
    """A process's proportional share of memory, in megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no Pss of process {pid}")


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children = [int(c) for task in Path(f"/proc/{pid}/task").glob("*/children") for c in task.read_text().split()]
    return [*children, *(deeper for child in children for deeper in descendants(child))]


def pipeline(engine: str) -> tuple[float, dict[str, float]]:
    """Seconds from `tap` to the first result, and each process's memory; run in a program of its own."""
    program = f"""
import json, sys, time
sys.path[:0] = {[str(HERE), str(EXAMPLE)]!r}
begun = time.perf_counter()
from ether import ether
ether.tap({str(EXAMPLE / "pipeline.yaml")!r}, broker={{"engine": {engine!r}}})
with ether.subscribe("result") as results:
    ether.start()
    results.get()
    first = time.perf_counter() - begun
    results.get()
import startup, os
from pathlib import Path
memory = {{}}
for pid in [os.getpid(), *startup.descendants(os.getpid())]:
    command = Path(f"/proc/{{pid}}/cmdline").read_bytes().split(b"\\0")
    kinds = [name for name in ("instance", "template", "broker") if name.encode() in command]
    name = "main" if pid == os.getpid() else (kinds or [command[0].decode().split("/")[-1]])[0]
    memory[f"{{name}} {{pid}}"] = startup.pss_mb(pid)
ether.shutdown()
print(json.dumps([first, memory]))
"""
    import json

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, memory = json.loads(done.stdout.splitlines()[-1])
    return first, memory


def bare_processes() -> float:
    """Seconds until six interpreters that import what ours import have come up together."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", "import pydantic, paho.mqtt.client"]
    started = [subprocess.Popen(command) for _ in range(PROCESSES)]
    for process in started:
        process.wait()
    return time.perf_counter() - begun


def import_time(code: str) -> float:
    """Seconds of an interpreter that runs this and ends."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begun


def median_of(rounds: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(rounds))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="amqtt", choices=["mosquitto", "amqtt"])
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args()

    pairs = [(pipeline(given.engine), bare_processes()) for _ in range(given.rounds)]
    first = statistics.median(pair[0][0] for pair in pairs)
    bare = statistics.median(pair[1] for pair in pairs)
    memory = pairs[-1][0][1]
    empty = median_of(given.rounds, lambda: import_time("pass"))
    imported = median_of(given.rounds, lambda: import_time("import ether"))
    rows = [
        ["import to first result, s", f"{bare:.2f}", f"{first:.2f}", f"{first / bare:.2f}", "< 1.0"],
        ["import ether, ms", f"{empty * 1e3:.0f}", f"{imported * 1e3:.0f}", f"{imported / empty:.2f}", "< 120"],
        ["processes", "", len(memory), "", ""],
        ["memory (PSS), MB", "", f"{sum(memory.values()):.0f}", "", "< 140"],
    ]
    table(
        f"{given.engine}, four instances, {given.rounds} rounds, medians (baselines: six bare imports; no import)",
        ["figure", "baseline", "Ether", "ratio", "aim"],
        rows,
    )
    by_process = [[name, f"{size:.1f}"] for name, size in memory.items()]
    table("memory by process", ["process", "PSS, MB"], by_process)


if __name__ == "__main__":
    main()
