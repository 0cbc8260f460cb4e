"""Two commits in pairs: what a change does to calls, messages, paced load and the instructions of the hot paths.

    python benchmarks/gate.py BEFORE [AFTER] [--rounds 5] [--engine amqtt|mosquitto] [--seconds 4] [--calls 1000]

Without AFTER the working tree is compared, as it is. Each commit is checked out into a folder of its own and gets an
environment of its own, in which the packages of this one are seen, so that the broker and forked instances are of that
commit, too. The commits take turns (before, after, after, before, …); a ratio is the median of the pairs' ratios, with
the smallest and the largest behind it. Two figures are gates: processor time and wake-ups of eight sensors at 100 Hz
and their collector. Where the median ratio of one is above `--allow`, the exit code is 1. The rest is told.

Processor time is what the processes took for themselves. It moves less than time on the clock beside other load, and is
what to look at there; instructions do not move at all (`hot_paths.py`). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE)]

GATES = ("paced: % of a core", "paced: wake-ups a message")
PAD = "x" * 60


def of_calls(engine: str, count: int) -> dict[str, float]:
    """Round trips one by one and by sixteen callers, and messages at full rate; to one instance."""
    from instances import cpu_s

    from ether import Ether

    ether, figures = Ether(), dict[str, float]()
    ether.tap({"instances": {"far": {"class_path": "gate_parts.Far"}}}, broker={"engine": engine})
    try:
        pid = next(member["pid"] for member in ether.instances())

        def spent() -> tuple[float, float]:
            return time.process_time(), cpu_s([pid])

        def call(_: int = 0) -> None:
            assert ether.get("far", "echo", {"text": PAD}) == PAD

        for _ in range(50):
            call()
        took, before = [], spent()
        for _ in range(count):
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)
        after = spent()
        figures["call: p50 µs"] = statistics.median(took) * 1e6
        for end, name in enumerate(("caller", "instance")):
            figures[f"call: processor µs of the {name}"] = (after[end] - before[end]) / count * 1e6
        with ThreadPoolExecutor(16) as pool:
            before, began = spent(), time.perf_counter()
            list(pool.map(call, range(count)))
            seconds, after = time.perf_counter() - began, spent()
        figures["16 callers: µs a call"] = seconds / count * 1e6
        figures["16 callers: processor µs of both"] = (sum(after) - sum(before)) / count * 1e6
        for qos in (0, 1):
            known, messages = ether.get("far", "count"), 10 * count
            before, began = spent(), time.perf_counter()
            for _ in range(messages):
                ether.pub({"text": PAD}, topic=f"bench/qos{qos}", qos=qos)
            while (arrived := ether.get("far", "count") - known) < messages and time.perf_counter() - began < 60:
                time.sleep(0.01)
            assert arrived == messages, f"{arrived} of {messages} arrived"
            seconds, after = time.perf_counter() - began, spent()
            figures[f"QoS {qos}: µs a message"] = seconds / messages * 1e6
            figures[f"QoS {qos}: processor µs of both"] = (sum(after) - sum(before)) / messages * 1e6
    finally:
        ether.shutdown()
    return figures


def of_paced(engine: str, seconds: float) -> dict[str, float]:
    """The two gates."""
    from paced import of_ether

    figures = of_ether(engine, seconds)
    woken = sum(value for key, value in figures.items() if "," in key)
    return {GATES[0]: figures["cpu"], GATES[1]: woken / figures["rate"]}


def of_instructions() -> dict[str, float]:
    """The instructions of the hot paths."""
    from hot_paths import measured

    return {f"instructions: {path}": float(cost.instructions) for path, cost in measured().items()}


@contextmanager
def checked_out(commit: str | None) -> Iterator[Path]:
    """The folder of a commit; of the working tree where there is none."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


@contextmanager
def environment(tree: Path) -> Iterator[Path]:
    """The Python of an environment whose Ether is that of `tree`. Its other packages are those of this environment: a
    folder that a `.pth` file adds has its own `.pth` files not read, so an Ether that is installed there in place is
    not seen."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        packages = next(Path(folder).glob("lib/python3*/site-packages"))
        own = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "gate.pth").write_text("\n".join([str(tree), *own]) + "\n")
        yield Path(folder, "bin", "python")


def measured_by(python: Path, tree: Path, given: argparse.Namespace) -> dict[str, float]:
    """One round of one commit."""
    command = [str(python), str(HERE / "gate.py"), "--round", "-"]
    for name in ("engine", "seconds", "calls"):
        command += [f"--{name}", str(getattr(given, name))]
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, "HOT_PATHS_ROOT": str(tree), "XDG_STATE_HOME": folder, "XDG_DATA_HOME": folder}
        settings.pop("PYTHONPATH", None)
        done = subprocess.run(
            command, cwd=folder, env=settings, text=True, timeout=600, capture_output=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"a round in {tree} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def ratio_of(pairs: list[tuple[dict[str, float], dict[str, float]]], figure: str) -> list[float]:
    """After ÷ before, pair by pair, sorted."""
    return sorted(after[figure] / before[figure] for before, after in pairs)


def main() -> int:
    """Measure and print; 1 where a gate is worse."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("before", help="a commit")
    options.add_argument("after", nargs="?", help="another one; default: the working tree")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--engine", default="amqtt", choices=["amqtt", "mosquitto"])
    options.add_argument("--seconds", type=float, default=4.0, help="of paced load, in each round")
    options.add_argument("--calls", type=int, default=1000, help="in each round; ten times as many messages")
    options.add_argument("--allow", type=float, default=1.05, help="the largest median ratio of a gate")
    options.add_argument("--round", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.round:
        figures = {**of_calls(given.engine, given.calls), **of_paced(given.engine, given.seconds), **of_instructions()}
        print(json.dumps(figures))
        return 0
    pairs = []
    with ExitStack() as stack:
        trees = [stack.enter_context(checked_out(commit)) for commit in (given.before, given.after)]
        pythons = [stack.enter_context(environment(tree)) for tree in trees]
        for number in range(given.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            found = {side: measured_by(pythons[side], trees[side], given) for side in order}
            pairs.append((found[0], found[1]))
    return told(pairs, given.allow)


def told(pairs: list[tuple[dict[str, float], dict[str, float]]], allow: float) -> int:
    """Print the table; 1 where a gate is worse."""
    from figures import table

    rows, worse = [], []
    for figure in (key for key in pairs[0][0] if key in pairs[0][1]):
        ratios = ratio_of(pairs, figure)
        ratio, medians = (
            statistics.median(ratios),
            [statistics.median(pair[side][figure] for pair in pairs) for side in (0, 1)],
        )
        if figure in GATES and ratio > allow:
            worse.append(f"{figure}: {ratio:.2f} × what it was, at most {allow:.2f} is allowed")
        gate = "gate" if figure in GATES else ""
        rows.append(
            [
                figure,
                *(f"{median:.1f}" for median in medians),
                f"{ratio:.2f}",
                f"{ratios[0]:.2f}–{ratios[-1]:.2f}",
                gate,
            ]
        )
    table(f"{len(pairs)} pairs, medians", ["figure", "before", "after", "ratio", "pairs", ""], rows)
    print("\n" + ("\n".join(worse) if worse else "no gate is worse"))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
