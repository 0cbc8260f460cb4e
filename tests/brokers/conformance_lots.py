"""Rows of the table of conformance, drawn by lot: the code of each is broken, and the test that it names has to fail.

    python tests/brokers/conformance_lots.py --count 10 --seed 1
    python tests/brokers/conformance_lots.py --whole         # each break with each test that a row of it names: 10 min

The breaks are those of conformance_breaks.txt. They are applied to a copy of the tree (tests/mutants.py), never to the
checkout. A test that fails without a break proves nothing, so each one is run on the unchanged copy first. The exit
code is 1 where a test did not notice.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conformance_breaks import HERE, HOMES, Break, Row, breaks, rows
from mutants import copy_tree

LIMIT_S = 120  # bare: the limit of a script, not of a test
"""What hangs has noticed."""


def home_of(test: str) -> str:
    """The file of a test."""
    return next(name for name in HOMES if re.search(rf"^def {test}\(", (HERE / name).read_text(), re.MULTILINE))


class Copy:
    """A copy of the checkout, in which breaks are tried one after the other."""

    def __init__(self, python: Path) -> None:
        self._python, self._tree = python, python.parent.parent.parent
        self._sound: set[str] = set()

    def notices(self, broken: Break, test: str) -> bool:
        """Whether the test fails once the code is broken. Raises `RuntimeError` where it fails without that, too."""
        if test not in self._sound:
            if not self._passes(test):
                raise RuntimeError(f"{test} fails on the unchanged copy")
            self._sound.add(test)
        path = self._tree / broken.path
        right = path.read_text()
        assert right.count(broken.text) == 1, f"{broken.name}: its text stands {right.count(broken.text)} times"
        path.write_text(right.replace(broken.text, broken.instead))
        try:
            return not self._passes(test)
        finally:
            path.write_text(right)

    def _passes(self, test: str) -> bool:
        command = [str(self._python), "-B", "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider"]
        named = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
        place = f"tests/brokers/{home_of(test)}::{test}"
        try:
            done = subprocess.run(
                [*command, place],
                cwd=self._tree,
                env=named,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {done.returncode} at {test}:\n{done.stdout[-2000:]}")
        return done.returncode == 0


def drawn(chosen: Sequence[Row], whole: bool) -> list[tuple[Row, Break]]:
    """The rows with their breaks; of rows that have both the break and the test in common the first one."""
    of_row = {(version, number): each for each in breaks() for version in each.rows for number in each.rows[version]}
    pairs = [(row, of_row[row.version, row.number]) for row in chosen]
    return (
        list({(each.name, row.test): (row, each) for row, each in reversed(pairs)}.values())[::-1] if whole else pairs
    )


def main() -> int:
    """Draw, break and report."""
    parser = argparse.ArgumentParser(description="Does the test of a row notice when its requirement is taken back?")
    parser.add_argument("--count", type=int, default=10, help="how many rows are drawn")
    parser.add_argument("--seed", type=int, default=0, help="draws the same ones again")
    parser.add_argument("--whole", action="store_true", help="all rows")
    told = parser.parse_args()
    every = rows()
    chosen = every if told.whole else random.Random(told.seed).sample(every, told.count)
    pairs, unnoticed, began = drawn(chosen, told.whole), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lots-") as folder:
        copy = Copy(copy_tree(Path(folder)))
        for row, broken in pairs:
            noticed = copy.notices(broken, row.test)
            unnoticed += not noticed
            said = "noticed  " if noticed else "UNNOTICED"
            print(f"{said} {row.version:5} [MQTT-{row.number}] {broken.name} ({broken.path}): {row.test}", flush=True)
    print(f"{len(pairs) - unnoticed} of {len(pairs)} noticed ({time.monotonic() - began:.0f} s)")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
