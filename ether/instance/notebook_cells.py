"""The cells of the notebook in which this program runs, as the text of one script.

A class of a cell runs in a process of its own as a class of a script does: its source travels, and of that the
statements that it needs are run there (`ether.instance.class_loading`). No object travels, and nothing is unpickled.

The trap: a notebook's cells are run again and again, edited, and in any order. The order in which they were run counts;
of classes and functions that were defined several times the last definition alone is left, and a cell that was no
Python is left out.
"""

from __future__ import annotations

import ast
import linecache
import sys

CELLS = "<cells of the notebook>"
"""What stands in the place of the script's path."""

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def notebook_text() -> str | None:
    """The cells that were run, one below the other; None where this program is no notebook."""
    cells = getattr(sys.modules.get("__main__"), "In", None)  # IPython keeps them there for its user
    if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
        return None
    return script_of(cells)


def script_of(cells: list[str]) -> str:
    """The text of a script that defines what these cells, run in this order, have defined in the end."""
    defined: set[str] = set()
    kept: list[str] = []
    for cell in reversed(cells):
        try:
            body = ast.parse(cell).body
        except (SyntaxError, ValueError):
            continue
        lines = cell.split("\n")  # as `ast` counts them
        for node in reversed(body):
            if _is_superseded(node, defined) or not _can_run(node):
                begin = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))]) - 1
                # empty lines, so that the others keep their places in the cell
                lines[begin : node.end_lineno] = [""] * ((node.end_lineno or begin) - begin)
            if isinstance(node, _Definition):
                defined.add(node.name)
        kept.append("\n".join(lines))
    return "\n\n".join(reversed(kept)) + "\n"


def _is_superseded(node: ast.stmt, defined: set[str]) -> bool:
    return isinstance(node, _Definition) and node.name in defined


def _can_run(node: ast.stmt) -> bool:
    """Whether a statement may stand in a script: `await` and a mistaken `return` may stand in a cell alone."""
    try:
        compile(ast.Module([node], type_ignores=[]), CELLS, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def take_cells(text: str | None) -> str | None:
    """Keep the cells of the program that has started this process, for `find_class`, tracebacks and provenance; returns
    what stands in the place of the script's path."""
    if text is None:
        return None
    linecache.cache[CELLS] = (len(text), None, [f"{line}\n" for line in text.split("\n")], CELLS)
    return CELLS
