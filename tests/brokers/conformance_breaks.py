"""The breaks of conformance_breaks.txt: edits of one file each that take a requirement of the specifications back.

How the file is written. A break begins with `== name path`. A line `5:` or `3.1.1:` names the rows of the table in
docs/brokers.md, without their `MQTT-`. Then come lines of the code: those with `-` are replaced by those with `+`,
those with a blank stay. Together the old lines stand in the code once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROW = re.compile(r"^\| \[MQTT-([\d.]+-\d+)\] \| (.+?) \| `(test_\w+)` \|$", re.MULTILINE)
HOMES = ("test_conformance.py", "test_listeners.py", "test_broker_rights.py", "test_broker_units.py")
"""The files of the tests that rows name."""


class Break(NamedTuple):
    """One edit; `rows` are the numbers of the requirements, by version."""

    name: str
    path: str
    rows: dict[str, list[str]]
    text: str
    instead: str


class Row(NamedTuple):
    """A requirement of one version, what it demands in our words, and the test that shows it."""

    version: str
    number: str
    words: str
    test: str


def breaks() -> list[Break]:
    """All breaks."""
    blocks = (HERE / "conformance_breaks.txt").read_text().split("\n== ")[1:]
    return [_break(*block.rstrip("\n").split("\n")) for block in blocks]


def _break(head: str, *lines: str) -> Break:
    name, path = head.split()
    found: dict[str, list[str]] = {}
    text, instead = "", ""
    for line in lines:
        version, _, numbers = line.partition(": ")
        if version in ("5", "3.1.1"):
            found[version] = numbers.split()
            continue
        if line[0] in " -":
            text += line[1:] + "\n"
        if line[0] in " +":
            instead += line[1:] + "\n"
    return Break(name, path, found, text, instead)


def parts() -> dict[str, str]:
    """The two tables of docs/brokers.md, by version."""
    page = (ROOT / "docs" / "brokers.md").read_text()
    five, _, old = page.partition("### MQTT 5\n")[2].partition("### MQTT 3.1.1\n")
    return {"5": five, "3.1.1": old.partition("\n## ")[0]}


def rows() -> list[Row]:
    """The rows of both tables."""
    return [Row(version, *found) for version, part in parts().items() for found in ROW.findall(part)]
