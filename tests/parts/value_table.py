"""The tables of docs/values.md: what people of this trade send, sent, and what came. `python tests/parts/value_table.py
--write` writes them anew; tests/instance/test_value_table.py compares them with the page.
"""

from __future__ import annotations

import collections
import datetime
import enum
import importlib
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from ether import ether_sub
from ether.errors import EncodeError, EtherError
from ether.testing import Lab
from ether.wire import decode, encode

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "values.md"
SENT, REFUSED = "what arrives", "what is refused"
_WIDEST = 90


class Point(NamedTuple):
    x: float
    y: float


class Colour(enum.Enum):
    RED = "r"


class Kind(NamedTuple):
    """A row: how the value is written in Python, which is evaluated with the libraries at hand; the hint, written too;
    what is equal, where `==` does not say it; and what is lost on the way, where something is."""

    written: str
    hint: str
    equal: Callable[[Any, Any], bool] = lambda sent, got: bool(sent == got)
    lost: str = ""


def _equals(sent: Any, got: Any) -> bool:
    return bool(sent.equals(got))


def _pixels(sent: Any, got: Any) -> bool:
    return bool((sent.mode, sent.tobytes()) == (got.mode, got.tobytes()))


def _all(sent: Any, got: Any) -> bool:
    return bool((sent == got).all()) and sent.dtype == got.dtype


KINDS = (
    Kind("Point(1.5, 2)", "Point"),
    Kind("collections.deque([1, 2])", "collections.deque", lost="its `maxlen`"),
    Kind("range(0, 6, 2)", "range"),
    Kind("{1, 2}", "set"),
    Kind("(1, 'a')", "tuple"),
    Kind("Colour.RED", "Colour"),
    Kind("Decimal('1.10')", "Decimal"),
    Kind("Fraction(1, 3)", "Fraction"),
    Kind("pathlib.PurePosixPath('a/b')", "pathlib.PurePosixPath"),
    Kind("uuid.UUID(int=5)", "uuid.UUID"),
    Kind("datetime.datetime(2026, 1, 2, 3, 4)", "datetime.datetime"),
    Kind("datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)", "datetime.datetime",
         lost="the zone's name; its offset stays"),
    Kind("datetime.date(2026, 1, 2)", "datetime.date"),
    Kind("datetime.timedelta(seconds=1.5)", "datetime.timedelta"),
    Kind("1 + 2j", "complex"),
    Kind("b'ab'", "bytes"),
    Kind("bytearray(b'ab')", "bytearray"),
    Kind("float('nan')", "float", lambda sent, got: got != got),
    Kind("numpy.arange(3, dtype='u2')", "numpy.ndarray", _all),
    Kind("pandas.DataFrame({'n': [1, 2], 'name': ['x', None]})", "pandas.DataFrame", _equals,
         "an index of its own becomes the first column; names of columns are text; categories; zones of times (UTC)"),
    Kind("pandas.Series([1.5, 2.5])", "pandas.Series", _equals, "its name and index"),
    Kind("polars.DataFrame({'n': [1, 2], 'name': ['x', None]})", "polars.DataFrame", _equals, "zones of times (UTC)"),
    Kind("polars.DataFrame({'t': [datetime.datetime(2026, 1, 2), None]})", "polars.DataFrame", _equals),
    Kind("pyarrow.table({'t': [datetime.datetime(2026, 1, 2), None]})", "pyarrow.Table", _equals,
         "dictionaries of text"),
    Kind("xarray.DataArray([1.5, 2.5], dims='x', coords={'x': [1, 2]}, attrs={'units': 'K'})", "xarray.DataArray",
         lambda sent, got: bool(sent.identical(got))),
    Kind("pint.Quantity(1.5, 'mm')", "pint.Quantity"),
    Kind("PIL.Image.new('RGB', (2, 1), (1, 2, 3))", "PIL.Image.Image", _pixels, "what stands beside the pixels (EXIF)"),
    Kind("PIL.Image.new('1', (2, 1), 1)", "PIL.Image.Image", _pixels),
    Kind("Shot(when=datetime.datetime(2026, 1, 2), at=Point(1, 2))", "Shot"),
)  # fmt: skip
"""`Shot` is an attrs class of a datetime and a `Point`."""

NOT_SENT = (
    "(i for i in (1, 2))", "iter([1])", "zip([1], [2])", "range(10**9)", "open(__file__)", "ValueError('too hot')",
    "print", "{(0, 1): 'a'}", "PIL.Image.new('CMYK', (2, 1))", "polars.DataFrame().lazy()",
    "pandas.DataFrame([[1, 2]], columns=['a', 'a'])", "numpy.array([object()])",
)  # fmt: skip


def _names(written: str) -> dict[str, Any] | None:
    """What the written value needs; None where a library of it is not installed."""
    names: dict[str, Any] = {
        "Point": Point, "Colour": Colour, "collections": collections, "Decimal": Decimal, "Fraction": Fraction,
        "pathlib": pathlib, "uuid": uuid, "datetime": datetime, "__file__": __file__,
    }  # fmt: skip
    try:
        for library in ("numpy", "pandas", "polars", "pyarrow", "xarray", "pint"):
            if library in written:
                names[library] = importlib.import_module(library)
        if "PIL" in written:
            importlib.import_module("PIL.Image")
            names["PIL"] = importlib.import_module("PIL")
        if "Shot" in written:
            fields = {"when": datetime.datetime, "at": Point}
            attrs = importlib.import_module("attrs")
            names["Shot"] = attrs.make_class("Shot", {name: attrs.field(type=of) for name, of in fields.items()})
    except ImportError:
        return None
    return names


def taken(value: object, hint: Any) -> Any:
    """The value as a parameter with this hint gets it, through a whole session."""
    got: list[Any] = []

    class Taker:
        @ether_sub(topic="value")
        def take(self, value: Any) -> None:
            got.append(value)

    Taker.take.__annotations__["value"] = hint
    with Lab(objects={"taker": Taker()}) as lab:
        lab.pub({"value": value}, topic="value")
    return got[0]


def sent_row(kind: Kind) -> str | None:
    """The row of a value that travels; None where its library is missing."""
    names = _names(kind.written + kind.hint)
    if names is None:
        return None
    value, hint = eval(kind.written, names), eval(kind.hint, names)
    body = encode({"value": value})
    plain = decode(body.payload, body.content_type)["value"]
    try:
        got = taken(value, hint)
        back = "the same" if isinstance(got, hint) and kind.equal(value, got) else f"**{got!r}**"
    except EtherError as error:
        back = f"**{error}**"
    return _row(_code(kind.written), _code(_short(plain)), f"{_code(kind.hint)}: {back}", kind.lost or "nothing")


def _code(text: str) -> str:
    return f"`{text}`"


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def refused_row(written: str) -> str | None:
    """The row of a value that is refused; None where its library is missing."""
    names = _names(written)
    if names is None:
        return None
    try:
        value = eval(written, names)
        encode(value)
    except EncodeError as error:
        said = str(error).partition("cannot travel as it is: ")[2] or str(error).partition(": ")[2] or str(error)
        return _row(_code(written), said)
    finally:
        if hasattr(locals().get("value"), "close"):
            value.close()
    return _row(_code(written), "**sent**")


def tables() -> Iterator[tuple[str, list[str | None]]]:
    """The rows of each table by its title."""
    yield SENT, [sent_row(kind) for kind in KINDS]
    yield REFUSED, [refused_row(written) for written in NOT_SENT]


def rows_of_page(title: str) -> list[str]:
    """The rows of a table as they stand on the page."""
    section = PAGE.read_text().partition(f"<!-- {title} -->\n")[2].partition("<!-- end -->")[0]
    return section.splitlines()[2:]


def write() -> None:
    text = PAGE.read_text()
    for title, rows in tables():
        assert None not in rows, "a library is not installed: pip install -e '.[values]'"
        begin, _, rest = text.partition(f"<!-- {title} -->\n")
        table, _, end = rest.partition("<!-- end -->")
        head = "\n".join(table.splitlines()[:2])
        text = f"{begin}<!-- {title} -->\n{head}\n" + "".join(f"{row}\n" for row in rows) + f"<!-- end -->{end}"
    PAGE.write_text(text)


if __name__ == "__main__" and "--write" in sys.argv:
    write()
