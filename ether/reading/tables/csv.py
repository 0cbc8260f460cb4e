"""Records as CSV, with a JSON file beside it that describes the columns (see `READING`). Needs no library.

RFC 4180, UTF-8. An empty cell is nothing, and an empty text is `""`. The standard library's writer of Python 3.11
writes both alike, which is why the lines are made here. Times are ISO 8601 in UTC with microseconds; numbers are
written so that they are read back exactly; bytes and bodies are base64; arrays, lists and other JSON values are JSON.

The trap: spreadsheets round numbers, and turn texts into dates, when they open the file; the file itself is right.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from ether.reading.columns import Form, json_text
from ether.reading.tables.numpy import body_of

SIDECAR = ".json"
"""What is added to the table's name for the name of the file beside it."""
_QUOTED = frozenset(',"\r\n')
_FORMULA = frozenset("=+-@\t\r|%＝＋－＠")
_NUMBER = re.compile(r"[+-][0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

READING = {
    "time": "ISO 8601, UTC",
    "text": "where an apostrophe and then = + - @ | or % begin the cell, the first apostrophe is not part of the text:"
    " it keeps a spreadsheet from running the cell",
    "empty cell": "None, or the value has no such key; an empty text is a pair of quotes",
    "bytes": "base64",
    "complex": "as Python writes it",
    "array": "JSON, nested lists in C order",
    "list": "JSON",
    "json": "JSON",
    "body": "base64 of a body as it travels on the wire, application/vnd.ether.binary",
}
"""How each form of cell is to be read; it stands in the file beside the table."""


def write_csv(file: TextIO, forms: Mapping[str, Form], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the heading and the rows. The file must be open with `newline=""`: lines end with CR LF."""
    file.write(",".join(map(_quoted, forms)) + "\r\n")
    file.writelines(",".join(_cell(row.get(name), name, form) for name, form in forms.items()) + "\r\n" for row in rows)


def _cell(cell: Any, name: str, form: Form) -> str:
    """One cell as text. The column's form decides, and not the cell's own type, so that a column is written in one way
    throughout: an integer in a column of floats is `1.0`."""
    if cell is None:
        return ""
    if name == "time":
        moment = _EPOCH + datetime.timedelta(microseconds=round(cell * 1_000_000))
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    match form.kind:
        case "text":
            return _quoted(cell)
        case "bool":
            return "true" if cell else "false"
        case "bytes":
            return base64.b64encode(cell).decode() or '""'  # no bytes are not an empty cell
        case "body":
            return base64.b64encode(body_of(cell)).decode()
        case "array" | "list" | "json":
            return _quoted(json_text(cell))
        case "float":
            return repr(float(cell))
        case _:
            return str(cell)


def would_run(text: str) -> bool:
    """Whether a spreadsheet might run a cell: it begins with one of the characters that begin a formula there, and is
    no number."""
    begins = text.lstrip("'")
    first = begins[:1] if begins[:1] in _FORMULA else begins.lstrip()[:1]
    return first in _FORMULA and bool(first) and not _NUMBER.fullmatch(text)


def _quoted(text: str) -> str:
    """The text, in quotes where it needs them: also where it is empty, or has spaces that a reader might strip. One
    that a spreadsheet would run as a formula gets an apostrophe in front, and so does one that begins with apostrophes
    and such a text: whoever reads the file takes away one of them."""
    if would_run(text):
        text = f"'{text}"
    if text and text == text.strip() and _QUOTED.isdisjoint(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
