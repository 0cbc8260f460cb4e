"""Many instances in one session on this machine: how long until all are ready, and what they cost while they rest.

    python benchmarks/instances.py [--engine mosquitto|amqtt] [--counts 10,50,100,200]

Each row is a program of its own, so that nothing is left over from the row before. The baseline is the row of the
fewest instances: what costs the same for each instance has the ratio 1. Memory is PSS: shared pages are divided among
their users. A newcomer is a second program that finds the session, joins it, lists all and calls one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402
from startup import descendants, pss_mb  # noqa: E402

from ether import Ether, ether_get, ether_pub, ether_save, ether_sub  # noqa: E402

REST_S = 10.0
NEWCOMERS = 5
CALLS = 20
COMMANDS = (("ps",), ("top", "--once"))
READY_AIM_S = 60
_TICK_S = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class Sensor:
    """An instrument of ordinary size: a few methods, a topic in and a topic out."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    @ether_get
    def read(self, channel: int = 0, averages: int = 1) -> float:
        """One reading in volts."""
        return self.offset + channel / averages

    @ether_save
    def calibrate(self, reference: float, note: str = "") -> dict[str, float]:
        """Take a reference as the new zero."""
        self.offset = -reference
        return {"offset": self.offset}

    @ether_sub(topic="sample")
    @ether_pub(topic="sampled")
    def sample(self, n: int = 1) -> list[float]:
        return [self.offset] * n


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time that these processes have used so far, in seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


def kinds_of(pids: Sequence[int]) -> dict[str, list[int]]:
    """Processes by what they are: instances, the broker (with its supervisor), this program."""
    kinds: dict[str, list[int]] = {"main": [os.getpid()], "instance": [], "broker": []}
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        kind = (
            "instance"
            if b"\0instance\0" in command
            else "broker"
            if b"broker" in command or b"mosq" in command
            else None
        )
        if kind is not None:
            kinds[kind].append(pid)
    return kinds


def at_rest(kinds: dict[str, list[int]]) -> dict[str, float]:
    """Per cent of one core, by kind, while nothing happens but signs of life."""
    before = {kind: cpu_s(pids) for kind, pids in kinds.items()}
    begun = time.perf_counter()
    threading.Event().wait(REST_S)
    took_s = time.perf_counter() - begun
    return {f"cpu_{kind}": 100 * (cpu_s(pids) - before[kind]) / took_s for kind, pids in kinds.items()}


def session_of(count: int, engine: str) -> dict[str, Any]:
    """One row: start, look, rest, be joined, stop."""
    ether = Ether()
    instances = {f"s{n:03}": {"class_path": "instances.Sensor"} for n in range(count)}
    begun = time.perf_counter()
    ether.tap({"session": f"crowd-{os.getpid()}", "instances": instances}, broker={"engine": engine}, timeout_s=600)
    ready_s = time.perf_counter() - begun
    try:
        kinds = kinds_of(descendants(os.getpid()))
        start_cpu_s = {f"start_{kind}": cpu_s(pids) for kind, pids in kinds.items()}
        memory = {f"pss_{kind}": sum(pss_mb(pid) for pid in pids) for kind, pids in kinds.items()}
        rest = at_rest(kinds)
        listed = ether.instances()
        assert [member["state"] for member in listed] == ["ready"] * count
        commands = {f"{verb}_s": command_s(verb, *words, url=ether.broker_url or "") for verb, *words in COMMANDS}
        came = [newcomer(ether.session_id or "", ether.broker_url or "") for _ in range(NEWCOMERS)]
        bytes_each = statistics.mean(len(json.dumps(member)) for member in listed)
    finally:
        ending = time.perf_counter()
        ether.shutdown()
    stop_s = time.perf_counter() - ending
    of_newcomers = {key: statistics.median(each[key] for each in came) for key in came[0]}
    return {
        "count": count,
        "ready_s": ready_s,
        "stop_s": stop_s,
        "bytes": bytes_each,
        **start_cpu_s,
        **memory,
        **rest,
        **of_newcomers,
        **commands,
    }


def command_s(*words: str, url: str) -> float:
    """How long a command of `ether` takes, from its start to its end; it waits for signs of life meanwhile."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ether.cli.main", *words, "--broker", url], stdout=subprocess.DEVNULL, check=True
    )
    return time.perf_counter() - begun


def newcomer(session: str, url: str) -> dict[str, float]:
    """What a second program sees, in a process of its own."""
    command = [sys.executable, __file__, "--join", session, "--broker", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def timed_ms(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) * 1e3


def join(session: str, url: str) -> dict[str, float]:
    """Find and join, list, call; milliseconds."""
    ether = Ether()
    join_ms = timed_ms(lambda: ether.tap(session=session, broker=url))
    try:
        list_ms = timed_ms(ether.instances)
        first_ms = timed_ms(lambda: ether.get("s000", "read"))
        call_ms = statistics.median(timed_ms(lambda: ether.get("s000", "read")) for _ in range(CALLS))
        return {"join_ms": join_ms, "list_ms": list_ms, "first_ms": first_ms, "call_ms": call_ms}
    finally:
        ether.shutdown()


def row_in_a_program(count: int, engine: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(count), "--engine", engine]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{count} instances on {engine}: the program ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(engine: str, rows: Sequence[dict[str, Any]]) -> None:
    """The figures, and the curve: each figure per instance, beside that of the first row."""
    times = [
        [
            row["count"],
            f"{row['ready_s']:.1f}",
            *(f"{row[f'start_{kind}']:.1f}" for kind in ("instance", "broker", "main")),
            f"{row['stop_s']:.1f}",
            f"{row['join_ms']:.0f}",
            f"{row['list_ms']:.1f}",
            f"{row['first_ms']:.1f}",
            f"{row['call_ms']:.2f}",
            f"{row['ps_s']:.1f}",
            f"{row['top_s']:.1f}",
        ]
        for row in rows
    ]
    header = [
        "instances",
        "all ready, s",
        "CPU s: instances",
        "broker",
        "main",
        "stop, s",
        "newcomer joins, ms",
        "lists, ms",
        "first call, ms",
        "call, ms",
        "ether ps, s",
        "ether top --once, s",
    ]
    table(f"{engine}: times (aim: 200 ready in less than {READY_AIM_S} s)", header, times)
    costs = [
        [
            row["count"],
            *(f"{row[f'pss_{kind}']:.0f}" for kind in ("instance", "broker", "main")),
            *(f"{row[f'cpu_{kind}']:.1f}" for kind in ("instance", "broker", "main")),
            f"{row['bytes']:.0f}",
        ]
        for row in rows
    ]
    header = [
        "instances",
        "instances, MB",
        "broker, MB",
        "main, MB",
        "instances, %",
        "broker, %",
        "main, %",
        "bytes each",
    ]
    table(f"{engine}: memory (PSS), and CPU at rest in per cent of one core", header, costs)
    first = rows[0]
    figures = {
        "ready, s": ("ready_s",),
        "start, CPU s": ("start_instance", "start_broker", "start_main"),
        "PSS, MB": ("pss_instance",),
        "CPU, %": ("cpu_instance", "cpu_broker", "cpu_main"),
    }
    curve = []
    for row in rows:
        cells: list[object] = [row["count"]]
        for keys in figures.values():
            each = sum(row[key] for key in keys) / row["count"]
            cells += [f"{each:.3f}", f"{each / (sum(first[key] for key in keys) / first['count']):.2f}"]
        curve.append(cells)
    header = ["instances", *(cell for figure in figures for cell in (f"{figure} each", "ratio"))]
    table(f"{engine}: the curve, per instance, beside {first['count']} instances", header, curve)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--engine", default="mosquitto", choices=["mosquitto", "amqtt"])
    options.add_argument("--counts", default="10,50,100,200")
    options.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options.add_argument("--join", help=argparse.SUPPRESS)
    options.add_argument("--broker", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.join:
        print(json.dumps(join(given.join, given.broker)))
    elif given.one:
        print(json.dumps(session_of(given.one, given.engine)))
    else:
        show(given.engine, [row_in_a_program(int(count), given.engine) for count in given.counts.split(",")])


if __name__ == "__main__":
    main()
