"""The table broker × capability in docs/brokers.md, made by what `ether doctor --broker` finds.

`python tests/brokers/broker_table.py --write` tries every broker that is installed here and writes their columns; the
columns of the others stay as they are. tests/brokers/test_broker_table.py compares. Each cell that is not a plain yes
has its explanation in the list under the table, by the name of its row and the text of the cell.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parents[1] / "parts"), str(HERE.parents[2])]

from foreign_brokers import AEDES, NATS, RABBITMQ, ForeignKind, running_foreign  # noqa: E402
from running_brokers import STOCK, mosquitto_missing, running_broker  # noqa: E402

from ether.session.broker_probe import CapabilityVerdict, Finding, judge, probe_broker  # noqa: E402
from ether.transport import Endpoint  # noqa: E402

PAGE = HERE.parents[2] / "docs" / "brokers.md"
BEGIN = "<!-- made by tests/brokers/broker_table.py -->"
END = "<!-- end -->"
NOT_IN_TABLE = ("distance", "left behind")
"""Findings about the way, or about one run, not about the broker."""


THREE_LINES = {"set_tcp_nodelay": "true", "max_queued_messages": 0, "max_inflight_messages": 1000}
"""What makes a stock Mosquitto as good as the embedded one (docs/brokers.md)."""


@dataclass(frozen=True)
class Column:
    """One broker: its heading, why it cannot be tried here (None where it can), why tests leave it out, and how it is
    started: a context manager that gives its URL."""

    heading: str
    missing: str | None
    skipped: str | None
    running: Callable[[], AbstractContextManager[str]]


def _foreign(heading: str, kind: ForeignKind) -> Column:
    @contextmanager
    def running() -> Iterator[str]:
        with running_foreign(kind) as broker:
            yield broker.url

    return Column(heading, kind.missing(), kind.skipped(), running)


def _ours(heading: str, engine: str, lines: Mapping[str, object] | None = None) -> Column:
    @contextmanager
    def running() -> Iterator[str]:
        with running_broker(engine, **(lines or {})) as broker:
            yield broker.url_tcp

    missing = None if engine == "amqtt" else mosquitto_missing
    return Column(heading, missing, missing, running)


COLUMNS = (
    _ours("Mosquitto, stock", STOCK),
    _ours("… with the three lines", STOCK, THREE_LINES),
    _ours("embedded Mosquitto", "mosquitto"),
    _ours("embedded amqtt", "amqtt"),
    _foreign("RabbitMQ", RABBITMQ),
    _foreign("NATS", NATS),
    _foreign("Aedes", AEDES),
)


@dataclass
class Table:
    """Cells by heading and row, and the explanation of each (row, cell) that is not yes."""

    cells: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)

    def put(self, heading: str, findings: Mapping[str, Finding]) -> None:
        """Enter one broker."""
        self.cells[heading] = {name: cell_of(finding) for name, finding in findings.items()}
        for name, finding in findings.items():
            if finding.verdict is not CapabilityVerdict.YES:
                self.notes[name, cell_of(finding)] = note_of(finding)

    def text(self) -> str:
        """As Markdown."""
        headings = [column.heading for column in COLUMNS if column.heading in self.cells]
        rows = list(dict.fromkeys(name for heading in headings for name in self.cells[heading]))
        lines = [_line(["", *headings]), _line(["---"] * (len(headings) + 1))]
        lines += [_line([name, *(self.cells[heading].get(name, "") for heading in headings)]) for name in rows]
        used = {(name, self.cells[heading].get(name, "")) for heading in headings for name in rows}
        notes = [
            f"- **{name}**, {cell}: {text}"
            for (name, cell), text in sorted(self.notes.items(), key=lambda item: (rows.index(item[0][0]), item[0][1]))
            if (name, cell) in used
        ]
        return "\n".join([*lines, "", *notes])


def cell_of(finding: Finding) -> str:
    """What stands in the table."""
    if finding.verdict is CapabilityVerdict.YES or finding.value == finding.verdict.value:
        return finding.value
    return f"{finding.verdict.value}: {finding.value}"


def note_of(finding: Finding) -> str:
    """What follows from it, what Ether does instead, what to set."""
    sentences = [finding.consequence, finding.instead]
    if finding.settings:
        sentences.append("`" + "`, `".join(finding.settings) + "` mends it")
    elif finding.advice:
        sentences.append(finding.advice)
    return " ".join(f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" for text in sentences if text)


def found_at(column: Column) -> dict[str, Finding]:
    """Try that broker."""
    with column.running() as url:
        found = judge(probe_broker(Endpoint.from_url(url)))
    return {finding.name: finding for finding in found.findings if finding.name not in NOT_IN_TABLE}


def read_page(text: str) -> Table:
    """The table that the page has."""
    table = Table()
    inside = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in inside if line.startswith("|")]
    if not lines:
        return table
    headings = lines[0][-len(lines[2]) + 1 :] if len(lines) > 2 else []
    for name, *cells in lines[2:]:
        for heading, cell in zip(headings, cells, strict=True):
            table.cells.setdefault(heading, {})[name] = cell
    for line in inside:
        if line.startswith("- **"):
            name, _, rest = line[4:].partition("**, ")
            cell = next(
                (row[name] for row in table.cells.values() if name in row and rest.startswith(f"{row[name]}: ")), ""
            )
            table.notes[name, cell] = rest.removeprefix(f"{cell}: ")
    return table


def written(text: str, table: Table) -> str:
    """The page with this table in it, between its marks."""
    before, mark, rest = text.partition(BEGIN)
    assert mark, f"the page has no {BEGIN}"
    assert END in rest, f"the page has no {END}"
    return f"{before}{BEGIN}\n\n{table.text()}\n\n{END}{rest.partition(END)[2]}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table, or write it into the page."""
    page = PAGE.read_text()
    table = read_page(page)
    for column in COLUMNS:
        if column.missing is None:
            table.put(column.heading, found_at(column))
        else:
            print(f"{column.heading} stays as it was: {column.missing}", file=sys.stderr)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(written(page, table))
    else:
        print(table.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
