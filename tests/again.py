"""Runs the tests that wait most again and again, and says which of them fails now and then.

    python -m pytest --seconds-to seconds.out              # how long each test takes
    python tests/again.py seconds.out                      # the 100 that take longest, 30 times each
    python tests/again.py seconds.out --busy 2             # … while two processes keep two cores busy
    python tests/again.py seconds.out --slowest 20 --times 5 tests/calls
    python tests/again.py --table seconds.out              # tests/seconds.txt anew: what takes longest comes first

A test that waits is one that can wait too short. Each round runs them in as many workers as usual.
The exit code is 1 where one failed, 2 where there is nothing to run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE_FROM_S = 5.0
_NOTHING_RAN = 5
"""How pytest ends that has collected nothing, or left out all of it."""
_HEAD = """\
# Seconds that each file of tests takes on two cores, where it is {least:.0f} and more: tests/parts/distribution.py.
# Written by `python tests/again.py --table`.
"""


def read(path: Path) -> list[tuple[float, str]]:
    """Seconds and names of tests, as `--seconds-to` has written them: those that take longest first."""
    rows = [line.split(" ", 1) for line in path.read_text().splitlines()]
    return sorted(((float(seconds), name) for seconds, name in rows), reverse=True)


def slowest(rows: Sequence[tuple[float, str]], count: int, places: Sequence[str]) -> list[str]:
    """The names of the tests that take longest, below these places (everywhere where none is named)."""
    named = [name for _, name in rows if not places or name.startswith(tuple(places))]
    return named[:count]


def table(rows: Sequence[tuple[float, str]]) -> str:
    """The text of tests/seconds.txt."""
    files: Counter[str] = Counter()
    for seconds, name in rows:
        files[name.partition("::")[0]] += seconds  # type: ignore[assignment]
    lines = [f"{seconds:5.0f} {path}\n" for path, seconds in files.most_common() if seconds >= TABLE_FROM_S]
    return _HEAD.format(least=TABLE_FROM_S) + "".join(lines)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Within the block that many processes compute as much as they can."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in load:
            process.kill()
            process.wait()


def failed(tests: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The names of those that fail when they are run once. Raises `LookupError` where none of them is run here, and
    `RuntimeError` where pytest did not run."""
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
        code = subprocess.run(
            [*command, *arguments, *tests], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
        output.seek(0)
        text = output.read()
    if code == _NOTHING_RAN:
        raise LookupError("none of these tests is run here")
    if code not in (0, 1):
        raise RuntimeError(f"pytest ended with {code}:\n{text[-3000:]}")
    if code == 1:
        print(text[text.find("= FAILURES =") :] if "= FAILURES =" in text else text[-5000:], flush=True)
    return [found[1] for line in text.splitlines() if (found := re.match(r"(?:FAILED|ERROR) (.+?)(?: - .*)?$", line))]


def main() -> int:
    """Run them, and report."""
    parser = argparse.ArgumentParser(description="Which of the tests that wait most fails now and then?")
    parser.add_argument("seconds", type=Path, help="what `pytest --seconds-to` has written")
    parser.add_argument("places", nargs="*", help="only tests below these folders or files")
    parser.add_argument("--slowest", type=int, default=100, help="how many tests")
    parser.add_argument("--times", type=int, default=30, help="how often each")
    parser.add_argument("--busy", type=int, default=0, metavar="PROCESSES", help="that compute beside them")
    parser.add_argument("--workers", default=os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", "auto"))
    parser.add_argument("--table", action="store_true", help="write tests/seconds.txt, and run nothing")
    told = parser.parse_args()
    rows = read(told.seconds)
    if told.table:
        (ROOT / "tests" / "seconds.txt").write_text(table(rows))
        return 0
    tests = slowest(rows, told.slowest, told.places)
    if not tests:
        print("there is no such test", file=sys.stderr)
        return 2
    counts: Counter[str] = Counter()
    with busy(told.busy):
        for number in range(1, told.times + 1):
            try:
                now = failed(tests, ["-n", told.workers])
            except LookupError as error:
                print(error, file=sys.stderr)
                return 2
            counts.update(now)
            print(f"round {number} of {told.times}: {len(now)} of {len(tests)} failed", flush=True)
    for name, times in counts.most_common():
        print(f"  failed {times} of {told.times} times: {name}")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
