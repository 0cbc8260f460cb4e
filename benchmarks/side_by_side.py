"""Two commits at the same time, in short blocks by turns: which is slower, told to a few per cent on a noisy machine.

    python benchmarks/side_by_side.py BEFORE [AFTER] [--engine mosquitto|amqtt] [--rounds 40] [--lives 4] [--only WORD]
    python benchmarks/side_by_side.py BEFORE [AFTER] --instructions

Without AFTER the working tree is compared, as it is. A lab of each commit runs, with a broker, an instance and a
recorder of its own; while one works through a block of some tenths of a second, the other waits. A round is a block of
each, and its ratio is after ÷ before: what the machine does meanwhile hits both. Processes differ from birth (where
their memory lies), so the labs are started anew `--lives` times, and the rounds are spread over them. The table has the
median of the rounds' ratios, and between which two ratios the true median lies with 95 %, by the ranks of the sorted
rounds. Only what `ether` offers to users is called, so any commit can be compared that has it. `gate.py` tells
processor time and wake-ups.

`--instructions` counts instead what each block executes on all threads of the program and of the instance, by the
instructions of Python's machine for one of its calls, messages or saves. They hardly move with load; what C does, and
what broker and recorder do, is not in them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402
from gate import PAD, checked_out, environment  # noqa: E402

KINDS = {
    "a call, round trip": ("call", 250),
    "16 callers, a call": ("callers", 300),
    "a message at QoS 0": ("qos0", 2500),
    "a message at QoS 1": ("qos1", 2500),
    "one save, durable": ("save", 30),
    "a save among 1,000": ("saves", 1000),
}
"""By figure: the block, and how many it is of."""


def serve(engine: str) -> None:
    """One lab: a block for each line on standard input, and how many seconds it took on standard output."""
    from concurrent.futures import ThreadPoolExecutor

    from ether import Ether

    ether = Ether()
    lab = {"instances": {"far": {"class_path": "gate_parts.Far"}}, "record": {"topics": [], "folder": "ledger"}}
    with ether.tap(lab, broker={"engine": engine}), ThreadPoolExecutor(16) as pool:

        def call(_: int = 0) -> None:
            assert ether.get("far", "echo", {"text": PAD}) == PAD

        def messages(qos: int, count: int) -> None:
            known = ether.get("far", "count")
            for _ in range(count):
                ether.pub({"text": PAD}, topic=f"bench/qos{qos}", qos=qos)
            until = time.monotonic() + 60
            while (arrived := ether.get("far", "count") - known) < count and time.monotonic() < until:
                time.sleep(0.002)
            assert arrived == count, f"{arrived} of {count} arrived"

        def saves(count: int) -> None:
            for _ in range(count):
                saved = ether.record({"text": PAD}, "bench")
            saved.wait()

        blocks: dict[str, Callable[[int], object]] = {
            "call": lambda count: list(map(call, range(count))),
            "callers": lambda count: list(pool.map(call, range(count))),
            "qos0": lambda count: messages(0, count),
            "qos1": lambda count: messages(1, count),
            "save": lambda count: list(map(saves, [1] * count)),
            "saves": saves,
        }

        def instructions() -> int:
            """Of both processes so far."""
            return int(ether.get("far", "instructions")) + int(sys.ether_instructions[0])  # type: ignore[attr-defined]

        def seconds() -> float:
            return time.perf_counter()

        spent = instructions if hasattr(sys, "ether_instructions") else seconds
        print("ready", flush=True)
        for line in sys.stdin:
            name, count = json.loads(line)
            began = spent()
            blocks[name](count)
            after = spent()
            of_asking = spent() - after if spent is instructions else 0
            print(after - began - of_asking, flush=True)


class Lab:
    """A lab of one commit, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout
        self._answer("ready")

    def spent(self, block: tuple[str, int]) -> float:
        """Seconds, or instructions, of a block."""
        self._in.write(json.dumps(block) + "\n")
        self._in.flush()
        return float(self._answer())

    def _answer(self, wanted: str = "") -> str:
        line = self._out.readline().strip()
        if not line or (wanted and line != wanted):
            raise SystemExit(f"a lab ended, or said what was not asked: {line!r}")
        return line


@contextmanager
def lab_of(python: Path, engine: str, *, counts: bool) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "XDG_STATE_HOME": folder, "XDG_DATA_HOME": folder}
        settings.pop("PYTHONPATH", None)
        if counts:
            settings["PYTHONPATH"] = str(HERE / "counting")
        command = [str(python), str(HERE / "side_by_side.py"), "--serve", "-", "--engine", engine]
        with subprocess.Popen(
            command, cwd=folder, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield Lab(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def rounds_of(labs: list[Lab], count: int, only: str) -> Iterator[tuple[str, float, float]]:
    """Figure by figure and round by round: what one costs, before and after."""
    for figure, block in KINDS.items():
        if only not in figure:
            continue
        for lab in labs:
            lab.spent(block)  # warms up
        for number in range(count):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            took = {side: labs[side].spent(block) / block[1] for side in order}
            yield figure, took[0], took[1]


def interval(ratios: list[float]) -> tuple[float, float]:
    """Between which two of them the median lies with 95 %: by the binomial distribution, whatever theirs is."""
    ratios, count = sorted(ratios), len(ratios)
    away = math.ceil(1.96 * math.sqrt(count) / 2)
    return ratios[max(0, count // 2 - away)], ratios[min(count - 1, (count - 1) // 2 + away)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("before", help="a commit")
    options.add_argument("after", nargs="?", help="another one; default: the working tree")
    options.add_argument("--engine", default="mosquitto", choices=["amqtt", "mosquitto"])
    options.add_argument("--rounds", type=int, default=40, help="of each figure, over all lives")
    options.add_argument("--lives", type=int, default=4, help="how often the labs are started")
    options.add_argument("--only", default="", help="the figures with this word in their names")
    options.add_argument("--instructions", action="store_true", help="count instructions instead; few rounds will do")
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        serve(given.engine)
        return
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with ExitStack() as stack:
        trees = [stack.enter_context(checked_out(commit)) for commit in (given.before, given.after)]
        pythons = [stack.enter_context(environment(tree)) for tree in trees]
        for _ in range(given.lives):
            with ExitStack() as life:
                labs = [
                    life.enter_context(lab_of(python, given.engine, counts=given.instructions)) for python in pythons
                ]
                for figure, before, after in rounds_of(labs, max(1, given.rounds // given.lives), given.only):
                    found[figure].append((before, after))
    rows, scale, unit = [], *((1.0, "instructions") if given.instructions else (1e6, "µs"))
    for figure, pairs in found.items():
        ratios = [after / before for before, after in pairs]
        low, high = interval(ratios)
        medians = [statistics.median(pair[side] for pair in pairs) * scale for side in (0, 1)]
        rows.append([figure, *(f"{each:,.1f}" for each in medians), f"{statistics.median(ratios):.3f}",
                     f"{low:.3f}–{high:.3f}"])  # fmt: skip
    count = len(next(iter(found.values())))
    table(f"{given.engine}, {count} rounds, {unit}", ["figure", "before", "after", "ratio", "median lies in"], rows)


if __name__ == "__main__":
    main()
