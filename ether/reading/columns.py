"""Values as columns: which columns a set of records has, and of which form each column is.

A record has the columns `time, topic, source, id, run`, `trial` where it belongs to one, `by` where it does so by time,
and then one column for each key of its value. Keys of inner mappings are joined by dots, and a value that is no mapping
is the column `value`. A key with the name of another column of its record gets `value.` in front (`value.time`), or
`#2` behind.

A column's `Form` is the narrowest that holds all of its cells. Cells that fit no other form are `json`, and cells that
JSON cannot carry (arrays of several dtypes, say) are `body`: each cell then is a body as it travels on the wire, which
`ether.wire.decode` reads. So nothing is rounded, cut or turned into text on the way into a table.

The trap: None and a missing key are both an empty cell. Arrays are recognised by their attributes, without NumPy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

FIXED = ("time", "topic", "source", "id", "run")
"""The columns that every record has."""

Kind = Literal["empty", "bool", "int", "uint", "float", "complex", "text", "bytes", "array", "list", "json", "body"]
"""The form of a column's cells.

empty     no cell has a value
bool, int, uint, float, complex   64-bit numbers; complex has two of them
text, bytes
array     arrays of one dtype and one shape
list      arrays of one dtype, and lists of numbers of one kind, with one dimension and of any length
json      anything that JSON can carry
body      any value that can be sent
"""

_EXACT = 2**53
"""Up to here every integer is a float, too."""
_INT_MIN, _INT_MAX, _UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_ARRAY_DTYPES = frozenset(f"{order}{kind}" for order in "<>|" for kind in (
    "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))  # fmt: skip
_LIST_DTYPES = {bool: "|b1", int: "<i8", float: "<f8"}


class Form(NamedTuple):
    """The form of a column. `dtype` and `shape` are those of its arrays."""

    kind: Kind
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def to_value(self) -> dict[str, object]:
        """For the metadata of a file."""
        arrays = {"dtype": self.dtype} if self.dtype else {}
        return {"kind": self.kind, **arrays, **({"shape": list(self.shape)} if self.kind == "array" else {})}


EMPTY = Form("empty")


def flatten(value: object, fixed: Collection[str] = FIXED) -> dict[str, Any]:
    """The cells of a value by column. `fixed` are the names of the record's own columns, which no key may take."""
    cells: dict[str, Any] = {}
    taken = set(fixed)
    for name, cell in _leaves(value):
        column = name
        if column in taken:
            column = f"value.{name}" if name in fixed else name
        number = 2  # for two keys with one name, such as "a.b" and the "b" of "a"
        while column in taken:
            column, number = f"{name}#{number}", number + 1
        taken.add(column)
        cells[column] = cell
    return cells


def metadata_cells(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a run, as cells: `animal` is in the column `run.animal`."""
    return {f"run.{name}": cell for name, cell in flatten(metadata, ()).items()} if metadata else {}


def common_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Of a table's metadata, what all of its runs have in common: `run.animal` and so on."""
    cells = [metadata_cells(said) for said in metadata.get("runs", {}).values()]
    first = cells[0] if cells else {}
    return {name: cell for name, cell in first.items() if all(one.get(name) == cell for one in cells)}


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The innermost values, each with its dotted name. An empty mapping is a cell by itself."""
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
    """Whether the cell is an array or a scalar of NumPy."""
    return hasattr(cell, "dtype") and hasattr(cell, "shape") and hasattr(cell, "tolist")


def _form_of_array(cell: Any) -> Form:
    """`array` for an array that has a shape to stack it by; an empty one-dimensional array is a `list`."""
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
    """The form of one column, widened cell by cell."""

    __slots__ = ("cells", "exact", "form", "has_json")

    def __init__(self) -> None:
        self.form = EMPTY
        self.cells = 0
        """How many cells are not empty."""
        self.exact = True
        """Whether a float holds every integer in it."""
        self.has_json = True
        """Whether JSON carries every cell without loss."""

    def take(self, cell: Any) -> None:
        """Widen the form so that it also holds this cell."""
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
        """The narrowest form that holds both: integers and floats are floats where no integer is rounded; arrays and
        lists with one dimension and one dtype are lists; otherwise JSON, and a body where JSON would lose something."""
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
    """The columns of a set of records, gathered one record at a time. Memory grows with the number of columns alone."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, Column] = {}

    def take(self, cells: Mapping[str, Any]) -> None:
        """Add one record's cells, as `Record.cells()` gives them."""
        self.rows += 1
        for name, cell in cells.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = Column()
            column.take(cell)

    def forms(self) -> dict[str, Form]:
        """The form of each column, in the order in which the columns appeared."""
        return {name: column.form for name, column in self._columns.items()}

    def full(self) -> frozenset[str]:
        """The columns without empty cells."""
        return frozenset(name for name, column in self._columns.items() if column.cells == self.rows)


def json_text(cell: Any) -> str:
    """A cell as JSON on one line: arrays as lists, bytes as `{"base64": …}`, complex numbers as `{"real": …, "imag":
    …}`. Numbers that JSON does not have are written as Python and JavaScript write them (NaN, Infinity)."""
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
