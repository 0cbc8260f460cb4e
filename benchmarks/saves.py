"""What it costs that a save survives: `ether.save` beside `ether.get` and a save that does not survive, in one run.

    python benchmarks/saves.py [--engine mosquitto|amqtt] [--calls 1000] [--folder .]

Each round makes every kind of call in turn, so that all see the same machine. `fsync` writes a page to a file of its
own in the same folder and syncs it: what this disk takes for one promise. A save makes two at its instance (begun,
done). The folder must be on a real disk: on one in memory promises cost nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402

from ether import Ether, ether_get, ether_save  # noqa: E402
from ether.spec.marks import MarkKind  # noqa: E402
from ether.utils import get_ether_logger  # noqa: E402

WARM_UP_CALLS = 50
P99_AIM_MS = 20.0


class Echo:
    """Answers with what it is given."""

    @ether_get
    def read(self, text: str) -> str:
        return text

    @ether_save
    def write(self, text: str) -> str:
        return text


Work = Callable[[], object]


def measured(works: Mapping[str, Work], calls: int) -> dict[str, list[float]]:
    """Seconds of each, sorted."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(WARM_UP_CALLS + calls):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number >= WARM_UP_CALLS:
                took[name].append(time.perf_counter() - started)
    return {name: sorted(seconds) for name, seconds in took.items()}


def per_second(work: Work, callers: int, calls: int) -> float:
    """How many of them several threads get done."""
    threads = [threading.Thread(target=lambda: [work() for _ in range(calls)]) for _ in range(callers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * calls / (time.perf_counter() - started)


def fsync_of(folder: str) -> Work:
    """Write a page and sync it."""
    descriptor = os.open(Path(folder) / "page", os.O_WRONLY | os.O_CREAT, 0o600)
    page = os.urandom(4096)

    def work() -> None:
        os.pwrite(descriptor, page, 0)
        os.fsync(descriptor)

    return work


def checked(status: Mapping[str, object]) -> None:
    assert status["status"] == "success", status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--folder", default=".")
    options = parser.parse_args()
    get_ether_logger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="saves-") as folder:
        os.environ["XDG_STATE_HOME"] = os.path.abspath(folder)
        described = {"instances": {"echo": {"class_path": "saves.Echo"}}}
        with Ether().tap(described, broker={"engine": options.engine}) as ether:
            report(ether, folder, options.calls)


def report(ether: Ether, folder: str, calls: int) -> None:
    client = ether._joined("this benchmark")
    given = {"text": "x" * 64}
    works: dict[str, Work] = {
        "get": lambda: ether.get("echo", "read", given),
        "save that does not survive": lambda: client.call("echo", "write", given, 10.0, MarkKind.SAVE),
        "save": lambda: checked(ether.save("echo", "write", given)),
        "fsync": fsync_of(folder),
    }
    took = measured(works, calls)
    p50 = {name: seconds[len(seconds) // 2] for name, seconds in took.items()}
    p99 = {name: seconds[int(len(seconds) * 0.99)] for name, seconds in took.items()}
    rows = [
        (name, f"{p50[name] * 1e3:.2f}", f"{p50[name] / p50['get']:.1f}", f"{p99[name] * 1e3:.2f}",
         f"{p99[name] / p99['get']:.1f}", f"{took[name][-1] * 1e3:.1f}")
        for name in works
    ]  # fmt: skip
    table(f"One caller, {calls} of each", ["what", "p50 ms", "ratio", "p99 ms", "ratio", "longest ms"], rows)
    rates = {name: per_second(works[name], 8, calls // 8) for name in ("get", "save that does not survive", "save")}
    table(
        "Eight callers",
        ["what", "calls per second", "ratio"],
        [(name, f"{rate:.0f}", f"{rate / rates['get']:.2f}") for name, rate in rates.items()],
    )
    verdict = "kept" if p99["save"] * 1e3 < P99_AIM_MS else "missed"
    print(f"\nAim: p99 of a single save under {P99_AIM_MS:.0f} ms: {verdict}.")


if __name__ == "__main__":
    main()
