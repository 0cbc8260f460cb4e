"""The table of attacks in docs/security.md, made from the marks of the tests in this folder.

python tests/attacks/attack_table.py            # prints it
python tests/attacks/attack_table.py --write    # writes it into docs/security.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- attacks: begin -->", "<!-- attacks: end -->"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Row, what is attacked, how, and the test that tries it."""
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
                    row, what, how = (_text(argument) for argument in decorator.args)
                    yield row, what, how, f"{path.name}::{node.name}"


def _text(node: ast.expr) -> str:
    """A text, also one with numbers in it that only a run knows."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    parts = (str(each.value) if isinstance(each, ast.Constant) else "many" for each in node.values)
    return "".join(parts)


def _order(row: tuple[str, ...]) -> tuple[str, int]:
    letter, number = re.fullmatch(r"([A-Z]+)(\d+)", row[0]).groups()  # type: ignore[union-attr]
    return letter, int(number)


def table() -> str:
    """The table in Markdown."""
    lines = ["| | attack | how | tried by |", "| --- | --- | --- | --- |"]
    lines += [f"| {row} | {what} | {how} | `{test}` |" for row, what, how, test in sorted(rows(), key=_order)]
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The page with the table of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DOCS.write_text(with_table(DOCS.read_text()))
    else:
        print(table())
