"""What a session's name costs: `ether.tap`, `ether run` and `ether up -d` with a name and without, in pairs.

    python benchmarks/names.py [--pairs 10]

A name is looked for in the network while the program starts (docs/discovery.md), so on an empty network it should cost
next to nothing. Each round starts one with a name and one without, in turns, each in a program of its own, with one
instance, and in a runtime folder of its own. Seconds; the last column is the median of the differences within a pair.
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
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from figures import table  # noqa: E402

CLASS = "from ether import ether_get\n\nclass W:\n    @ether_get\n    def one(self): return 1\n"
TAP = """
import json, sys, time
from ether import ether
config = json.loads(sys.argv[1])
begun = time.perf_counter()
ether.tap(config)
print(json.dumps(time.perf_counter() - begun), flush=True)
ether.shutdown()
"""
COMMAND = [sys.executable, "-m", "ether.cli.main"]


def config_of(name: str | None) -> dict[str, object]:
    """A session of one instance."""
    named = {} if name is None else {"session": name}
    return {**named, "instances": {"w": {"class_path": "named_parts.W"}}}


def tap(folder: Path, name: str | None) -> float:
    """Seconds of `ether.tap`, in a new program."""
    command = [sys.executable, "-c", TAP, json.dumps(config_of(name))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    return float(json.loads(done.stdout))


def run(folder: Path, name: str | None) -> float:
    """Seconds from the start of `ether run` until it says that the session is ready."""
    (folder / "ether.yaml").write_text(json.dumps(config_of(name)))  # JSON is YAML
    begun = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "run", "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took_s = time.perf_counter() - begun
        assert json.loads(line)["event"] == "ready", line
        process.terminate()
    return took_s


def up(folder: Path, name: str | None) -> float:
    """Seconds of `ether up -d`, from its start to its end."""
    (folder / "ether.yaml").write_text(json.dumps(config_of(name)))
    begun = time.perf_counter()
    told = subprocess.run([*COMMAND, "up", "-d", "--json"], cwd=folder, capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - begun
    session = json.loads(told.stdout)["session"]
    subprocess.run([*COMMAND, "down", "-s", session], cwd=folder, capture_output=True, check=True)
    return took_s


def measured(what: Callable[[Path, str | None], float], pairs: int) -> tuple[list[float], list[float]]:
    """Seconds without a name and with one, pair by pair; the order within a pair changes."""
    unnamed, named = list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="en-") as place:
        folder = Path(place)
        (folder / "named_parts.py").write_text(CLASS)
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            (folder / variable).mkdir(mode=0o700)
            os.environ[variable] = str(folder / variable)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(folder)])
        what(folder, None)  # compiles
        for number in range(pairs):
            for name in (None, f"bench-{number}") if number % 2 else (f"bench-{number}", None):
                (unnamed if name is None else named).append(what(folder, name))
    return unnamed, named


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    pairs = parser.parse_args().pairs
    rows = []
    for label, what in (("ether.tap", tap), ("ether run", run), ("ether up -d", up)):
        unnamed, named = measured(what, pairs)
        more = statistics.median(b - a for a, b in zip(unnamed, named, strict=True))
        rows.append([label, *(f"{statistics.median(each):.2f}" for each in (unnamed, named)), f"{more:+.2f}"])
    table("Seconds until everything is ready", ["", "without a name", "with a name", "more"], rows)


if __name__ == "__main__":
    main()
