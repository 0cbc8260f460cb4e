"""Values as columns: which columns a set of records has, and what each of them holds.

A record has the columns `time, topic, source, id, run`, `trial` where it belongs to one, and then one for each key of
its value; keys of mappings inside are joined by dots, and a value that is no mapping is the column `value`. A key that
would take the name of another column of its record gets `value.` before it (`value.time`), or `#2` behind it.

A column's `Form` is the narrowest that holds all that was found there; what fits nothing else is `json`, and what JSON
cannot carry (arrays of several dtypes, say) is `body`: each cell then is a body as it travels on the wire, which
`ether.wire.decode` reads. So nothing is rounded, cut or turned into text on the way into a table.

The trap: None and a missing key are both an empty cell. Arrays are told by what they can do, not by importing NumPy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

FIXED = ("time", "topic", "source", "id", "run")
"""The columns that every record has."""

Kind = Literal["empty", "bool", "int", "uint", "float", "complex", "text", "bytes", "array", "list", "json", "body"]
"""What a column holds.

empty     nothing at all
bool, int, uint, float, complex   64-bit numbers; complex has two of them
text, bytes
array     arrays of one dtype and one shape
list      arrays of one dtype, and lists of numbers of one kind, with one dimension and of any length
json      anything that JSON can carry
body      anything
"""

_EXACT = 2**53
_INT_MIN, _INT_MAX, _UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_ARRAY_DTYPES = frozenset(f"{order}{kind}" for order in "<>|" for kind in (
    "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))  # fmt: skip
_LIST_DTYPES = {bool: "|b1", int: "<i8", float: "<f8"}


class Form(NamedTuple):
    """What a column holds. `dtype` and `shape` are those of the arrays in it."""

    kind: Kind
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def to_value(self) -> dict[str, object]:
        """For the metadata of a file."""
        arrays = {"dtype": self.dtype} if self.dtype else {}
        return {"kind": self.kind, **arrays, **({"shape": list(self.shape)} if self.kind == "array" else {})}


EMPTY = Form("empty")


def flatten(value: object, fixed: Collection[str] = FIXED) -> dict[str, Any]:
    """A value's cells by column, without the `fixed` ones, which its record has beside it."""
    cells: dict[str, Any] = {}
    taken = set(fixed)
    for name, cell in _leaves(value):
        column = name
        if column in taken:
            column = f"value.{name}" if name in fixed else name
        number = 2
        while column in taken:
            column, number = f"{name}#{number}", number + 1
        taken.add(column)
        cells[column] = cell
    return cells


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield prefix or "value", value
        return
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, name)
        else:
            yield name, inner


def form_of(cell: Any) -> Form:
    """The narrowest form of one cell."""
    known = _SCALARS.get(type(cell))
    if known is not None:
        return known
    if type(cell) is int:
        return _form_of_int(cell)
    if is_array(cell):
        return _form_of_array(cell)
    if type(cell) is list:
        return _form_of_list(cell)
    return Form("json") if _is_json(cell) else Form("body")


_SCALARS: Mapping[type, Form] = {
    type(None): EMPTY,
    bool: Form("bool"),
    float: Form("float"),
    complex: Form("complex"),
    str: Form("text"),
    bytes: Form("bytes"),
}
_INT, _UINT, _JSON = Form("int"), Form("uint"), Form("json")
_CARRIED_BY_JSON = frozenset(("bool", "int", "uint", "text"))


def _form_of_int(cell: int) -> Form:
    if _INT_MIN <= cell <= _INT_MAX:
        return _INT
    return _UINT if 0 <= cell <= _UINT_MAX else _JSON


def is_array(cell: Any) -> bool:
    """Whether it is an array or scalar of NumPy's."""
    return hasattr(cell, "dtype") and hasattr(cell, "shape") and hasattr(cell, "tolist")


def _form_of_array(cell: Any) -> Form:
    if cell.dtype.str not in _ARRAY_DTYPES or cell.ndim == 0 or cell.size == 0:
        return Form("list", cell.dtype.str) if cell.ndim == 1 and cell.dtype.str in _ARRAY_DTYPES else Form("body")
    return Form("array", cell.dtype.str, tuple(cell.shape))


def _form_of_list(cell: list[Any]) -> Form:
    kinds = {type(item) for item in cell}
    dtype = _LIST_DTYPES.get(kinds.pop()) if len(kinds) == 1 else None
    if dtype is not None and (dtype != "<i8" or all(_INT_MIN <= item <= _INT_MAX for item in cell)):
        return Form("list", dtype)
    return Form("json") if _is_json(cell) else Form("body")


def _is_json(cell: Any) -> bool:
    """Whether JSON carries it without loss."""
    if type(cell) is float:
        return math.isfinite(cell)
    if isinstance(cell, Mapping):
        return all(type(key) is str and _is_json(inner) for key, inner in cell.items())
    if type(cell) is list:
        return all(map(_is_json, cell))
    return cell is None or type(cell) in (bool, int, str)


class Column:
    """What is known of one column so far."""

    __slots__ = ("cells", "exact", "form", "has_json")

    def __init__(self) -> None:
        self.form = EMPTY
        self.cells = 0
        """How many are not empty."""
        self.exact = True
        """Whether every integer in it is a float, too."""
        self.has_json = True
        """Whether JSON carries all of it."""

    def take(self, cell: Any) -> None:
        """Widen the form so that it holds this cell, too."""
        form = form_of(cell)
        if form is EMPTY:
            return
        self.cells += 1
        if type(cell) is int and abs(cell) > _EXACT:
            self.exact = False
        if self.has_json and form.kind not in _CARRIED_BY_JSON:
            self.has_json = _is_json(cell)
        if form is not self.form and form != self.form:
            self.form = self._wider(form)

    def _wider(self, form: Form) -> Form:
        if self.form.kind == "empty":
            return form
        kinds = {self.form.kind, form.kind}
        if kinds <= {"int", "float"} and self.exact:
            return Form("float")
        if kinds <= {"array", "list"} and self.form.dtype == form.dtype and _one_dimensional(self.form, form):
            return Form("list", form.dtype)
        return Form("json") if self.has_json else Form("body")


def _one_dimensional(*forms: Form) -> bool:
    return all(form.kind == "list" or len(form.shape) == 1 for form in forms)


class Columns:
    """The columns of a set of records, found out one record at a time; memory is bounded by their number."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, Column] = {}

    def take(self, cells: Mapping[str, Any]) -> None:
        """One record's cells, as `flatten` gives them."""
        self.rows += 1
        for name, cell in cells.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = Column()
            column.take(cell)

    def forms(self) -> dict[str, Form]:
        """Each column's form, in the order in which they appeared."""
        return {name: column.form for name, column in self._columns.items()}

    def full(self) -> frozenset[str]:
        """The columns without empty cells."""
        return frozenset(name for name, column in self._columns.items() if column.cells == self.rows)


def json_text(cell: Any) -> str:
    """A cell as JSON, on one line; arrays as lists, bytes and complex numbers as what `shown` makes of them. Numbers
    that JSON does not have are written as Python and JavaScript write them (NaN, Infinity)."""
    return json.dumps(cell, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(cell: Any) -> object:
    if is_array(cell):
        return cell.tolist()
    if isinstance(cell, complex):
        return {"real": cell.real, "imag": cell.imag}
    if isinstance(cell, (bytes, bytearray)):
        import base64

        return {"base64": base64.b64encode(cell).decode()}
    return str(cell)
