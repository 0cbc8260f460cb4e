"""What commands print: lines and tables for people, JSON for programs.

With `--json`, standard output gets JSON and nothing else; remarks go to standard error. Colours are for terminals
alone, and only where `NO_COLOR` is not set (https://no-color.org). The trap: values from the wire may be arrays, bytes
or NaN, which JSON cannot express; `to_json` converts them.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ether.secret_values import hidden
from ether.system.clock import wall_time

_SHOWN_ELEMENTS = 1000
"""Arrays of more elements are described, not listed."""

_STATE_COLOURS = {
    "ready": "32", "ok": "32", "starting": "36", "restarting": "33", "warn": "33", "stopped": "2",
    "error": "31", "lost": "31", "failed": "31", "hung": "31", "fail": "31",
}  # fmt: skip


class ReaderGone(Exception):
    """The reader of standard output has closed it, as `| head` does. Not an `OSError`: typer would handle one
    itself."""


def colours(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether colours may be written to this stream."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"


def print_json(value: object, *, lines: bool = False) -> None:
    """Write a value as JSON: indented, or in one line for a stream of them. Secrets are masked in its texts: in the
    JSON itself, the digits of one could be found in the middle of a number."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(to_json(value), ensure_ascii=not is_utf8, indent=None if lines else 2, allow_nan=False)
    _write(json_harmless(text))


def print_table(rows: Sequence[Mapping[str, object]], columns: Mapping[str, str], *, nothing: str) -> None:
    """Write rows in aligned columns; `columns` maps keys to headings. Without rows, `nothing` goes to standard
    error."""
    if not rows:
        remark(nothing)
        return
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns.values(), *cells, strict=True)]
    coloured = colours(sys.stdout)
    print_line(_joined(list(columns.values()), widths), escaped=True)
    for row in cells:
        line = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print_line("  ".join(_painted(cell, coloured) for cell in line).rstrip(), escaped=True)


def print_line(text: str, *, escaped: bool = False) -> None:
    """Write a line; characters that the terminal's encoding lacks are written as escapes, and so are those that would
    control the terminal or turn its text round: names, topics and texts come from any program. `escaped`: the caller
    has done that, and added colours of its own."""
    _write(hidden(text) if escaped else harmless(hidden(text)))


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def harmless(text: str) -> str:
    """A text in which every control character is escaped, except tabs and the ends of lines: C0, C1, and those that
    turn the direction of writing, so that a recorded text can neither control the terminal nor show something
    else than it says."""
    if text.isprintable():
        return text
    return "".join(char if _shows(char) or char in "\t\n" else ascii(char)[1:-1] for char in text)


def json_harmless(text: str) -> str:
    """JSON in which the same characters are escaped as JSON escapes them. They can only stand within its strings."""
    if text.isprintable():
        return text
    return "".join(char if _shows(char) or char == "\n" else _as_json(char) for char in text)


def _shows(char: str) -> bool:
    """Whether a character only shows itself; wide and narrow spaces do, which Python counts among the others."""
    return char.isprintable() or (char.isspace() and char > "\x9f" and char not in "\u2028\u2029")


def _as_json(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) != 0x7F else "\\u007f"


def alarming(line: str) -> str:
    """A line in red, where colours may be written."""
    return f"\x1b[31m{line}\x1b[0m" if colours(sys.stdout) else line


def remark(text: str) -> None:
    """Write a line beside the result, to standard error, escaped as by `print_line`."""
    sys.stderr.write(f"{harmless(hidden(text))}\n")  # one write, because other threads write there, too
    sys.stderr.flush()


def _joined(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return " ".join(text.split()) if text.isprintable() else text.encode("unicode_escape").decode()


def _painted(cell: str, coloured: bool) -> str:
    code = _STATE_COLOURS.get(cell.strip().partition(" ")[0].rstrip(",")) if coloured else None
    if code is not None and ", behind: " in cell:
        code = _STATE_COLOURS["warn"]
    return f"\x1b[{code}m{cell}\x1b[0m" if code else cell


def to_json(value: object) -> Any:
    """A value as JSON data, in whose texts secrets are masked: NaN and infinities become text, bytes base64, arrays
    lists (long ones are described by dtype and shape), mappings and sequences are converted item by item, and
    everything else becomes text."""
    if isinstance(value, str):
        return hidden(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {hidden(str(key)): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": len(value), "base64": base64.b64encode(value).decode()}
    return _array_to_json(value)


def _array_to_json(value: Any) -> Any:
    """An array as JSON data, recognised by its attributes, so that numpy is not imported here."""
    if not all(hasattr(value, name) for name in ("shape", "dtype", "size", "tolist")):
        return hidden(str(value))
    described = {"array": str(value.dtype), "shape": list(value.shape)}
    return {**described, "values": to_json(value.tolist())} if value.size <= _SHOWN_ELEMENTS else described


def ago(since: object, now: float | None = None) -> str:
    """The age of a unix time: `12 s`, `5 min`, `3 h`, `2 d`; `-` for a value that is no time."""
    if not isinstance(since, (int, float)) or not math.isfinite(since):
        return "-"
    seconds = max(0.0, (wall_time() if now is None else now) - since)
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
