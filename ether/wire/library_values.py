"""Values of libraries that scientists use, as plain values: tables, arrays with names, quantities, pictures, tensors.

Each becomes what a reader without that library can use, too: a table a dict of its columns, a quantity a dict of
`magnitude` and `units`, a picture an array. A parameter that is hinted as the library's type gets it back
(`ether.spec.library_hints`).

Promises: no library is imported here; a value is recognised by the names of its classes, and does the work by its own
methods. What cannot be converted without loss is refused, with the way to send it.

The trap: a protocol such as `__array__` is offered by types that are more than their numbers, too. So a type that has a
meaning of its own stands in the table, and the protocols come last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ether.wire import arrays

MOST_ITEMS = 10_000_000
"""The longest `range` that is sent as a list."""


class NotPlain(Exception):
    """A value that is not converted; the text says how to send it."""


def plain_value(value: object) -> object:
    """The plain value of an object of somebody's library, in which others may stand that are to be converted, too.
    Raises `NotPlain`; `NotImplementedError` where nothing is known of its type."""
    for base in type(value).__mro__:
        convert = _BY_NAME.get((base.__module__.partition(".")[0], base.__qualname__))
        if convert is not None:
            return convert(value)
    if (names := getattr(type(value), "__attrs_attrs__", None)) is not None:
        return {each.name: getattr(value, each.name) for each in names}
    if (fields := getattr(type(value), "__struct_fields__", None)) is not None:  # msgspec
        return {name: getattr(value, name) for name in fields}
    if not isinstance(value, type) and (hasattr(value, "__array__") or hasattr(value, "__dlpack__")):
        return _array_of(value)
    if how := _how(value):
        raise NotPlain(how)
    raise NotImplementedError


def _how(value: object) -> str:
    """How somebody sends what is no value at all; empty where nothing better is known than a list of what travels."""
    if hasattr(value, "read") and hasattr(value, "close"):
        return "an open file, or another stream: send its path, or the bytes of .read()"
    if hasattr(type(value), "__next__"):
        return "it is read only once: send list(…)"
    if isinstance(value, BaseException):
        return "send str(…), or raise it: the caller gets it with its traceback"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return "it is code, which does not travel: send its name, as text"
    return ""


def _array_of(value: Any) -> object:
    """The NumPy array of a tensor, or of another object that offers one."""
    try:
        return arrays.as_array(value)
    except ImportError:
        raise NotPlain("it needs NumPy to be sent: pip install 'ether-medium[numpy]'") from None
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise NotPlain(
            f"it cannot become a NumPy array ({reason}); for a tensor send .detach().cpu().numpy()"
        ) from None


def _plain_column(values: Any) -> object:
    """A column: an array where NumPy has its numbers or times, else a list in which what is missing is None."""
    array = values if type(values).__name__ == "ndarray" else values.to_numpy()
    if array.dtype.kind in "biufcM" or array.dtype.kind == "m":
        return array
    return [None if _is_missing(each) else each for each in array.tolist()]


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (type(value) is float and value != value)


def _pandas_frame(frame: Any) -> object:
    """The columns, behind an index that is not just the numbers of the rows."""
    if type(frame.columns).__name__ == "MultiIndex":
        raise NotPlain("its columns have several levels; send frame.stack() or frames of one level")
    if type(frame.index).__name__ != "RangeIndex" or frame.index.name is not None:
        frame = frame.reset_index()
    if not frame.columns.is_unique:
        raise NotPlain("two of its columns, or a column and its index, have the same name; rename one")
    return {_name(name): _plain_pandas(frame[name]) for name in frame.columns}


def _name(name: object) -> object:
    return name if isinstance(name, str | int) else str(name)


def _plain_pandas(series: Any) -> object:
    """A column of pandas; times with a zone are those of UTC."""
    if getattr(series.dtype, "tz", None) is not None:
        zone_free = series.dt if hasattr(series, "dt") else series
        series = zone_free.tz_convert("UTC")
        series = (series.dt if hasattr(series, "dt") else series).tz_localize(None)
    if type(series.dtype).__module__.startswith("pandas") and series.isna().any():  # they mark it by pandas.NA
        return [None if _is_missing(each) else each for each in series.tolist()]
    return _plain_column(series)


def _polars_series(series: Any) -> object:
    """A column of polars; times with a zone are those of UTC. Dates stay dates: NumPy's are read as times."""
    if getattr(series.dtype, "time_zone", None) is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if type(series.dtype).__name__ in ("Datetime", "Duration"):  # what is missing is NumPy's NaT
        return series.to_numpy()
    if series.dtype.is_numeric() and not series.null_count():
        return series.to_numpy()
    return series.to_list()


def _arrow_column(column: Any) -> object:
    if str(column.type).startswith(("timestamp", "duration")):  # what is missing is NumPy's NaT
        flat = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        return flat.to_numpy(zero_copy_only=False)
    if column.null_count or str(column.type).startswith(("list", "struct", "map", "string", "large", "bool")):
        return column.to_pylist()
    return _plain_column(column)


def _picture(image: Any) -> object:
    """A picture's pixels; those of a palette as colours. Pixels of other colours than red, green and blue would be
    taken for those at the other end, where only an array arrives."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode == "1":  # whose own array holds 255 as a truth value
        grey: Any = _array_of(image.convert("L"))
        return grey > 0
    if not image.mode.startswith(("I", "F")) and image.mode not in ("L", "LA", "RGB", "RGBA"):
        how = f"its pixels are {image.mode}: send .convert('RGB'), or numpy.asarray(…) for the numbers as they are"
        raise NotPlain(how)
    return _array_of(image)


def _dims(value: Any) -> object:
    """xarray's own dict, which `from_dict` reads."""
    return value.to_dict(data="array")


def _many(values: range) -> object:
    if len(values) > MOST_ITEMS:
        raise NotPlain(f"a range of {len(values):,} numbers; send its start, stop and step")
    return list(values)


def _refuse(how: str) -> Callable[[Any], object]:
    def refuse(value: object) -> object:
        raise NotPlain(how)

    return refuse


_BY_NAME: Mapping[tuple[str, str], Callable[[Any], object]] = {
    ("collections", "deque"): list,
    ("builtins", "range"): _many,
    ("builtins", "mappingproxy"): dict,
    ("builtins", "dict_keys"): list,
    ("builtins", "dict_values"): list,
    ("builtins", "dict_items"): list,
    ("array", "array"): lambda value: value.tolist(),
    ("fractions", "Fraction"): str,
    ("types", "SimpleNamespace"): lambda value: dict(vars(value)),
    ("collections", "UserDict"): lambda value: dict(value),
    ("collections", "UserList"): list,
    ("ipaddress", "_BaseAddress"): str,
    ("builtins", "generator"): _refuse(
        "a generator is read only once: send list(…), or mark the method that yields, and each value is a message"
    ),
    ("builtins", "async_generator"): _refuse("an async generator: mark the method that yields, or send a list"),
    ("builtins", "map"): _refuse("it is read only once: send list(…)"),
    ("builtins", "zip"): _refuse("it is read only once: send list(…)"),
    ("builtins", "filter"): _refuse("it is read only once: send list(…)"),
    ("pandas", "DataFrame"): _pandas_frame,
    ("pandas", "Series"): _plain_pandas,
    ("pandas", "Index"): _plain_pandas,
    ("pandas", "Categorical"): lambda value: _plain_column(value),
    ("pandas", "NAType"): lambda value: None,
    ("pandas", "Interval"): lambda value: {"left": value.left, "right": value.right, "closed": value.closed},
    ("polars", "DataFrame"): lambda value: {name: _polars_series(value[name]) for name in value.columns},
    ("polars", "Series"): _polars_series,
    ("polars", "LazyFrame"): _refuse("it has not been computed yet: send .collect()"),
    ("pyarrow", "Table"): lambda value: {name: _arrow_column(value[name]) for name in value.column_names},
    ("pyarrow", "RecordBatch"): lambda value: {name: _arrow_column(value[name]) for name in value.schema.names},
    ("pyarrow", "ChunkedArray"): _arrow_column,
    ("pyarrow", "Array"): _arrow_column,
    ("pyarrow", "Scalar"): lambda value: value.as_py(),
    ("xarray", "DataArray"): _dims,
    ("xarray", "Dataset"): _dims,
    ("pint", "PlainQuantity"): lambda value: {"magnitude": value.magnitude, "units": str(value.units)},
    ("pint", "PlainUnit"): str,
    ("PIL", "Image"): _picture,
    ("h5py", "Dataset"): lambda value: value[()],
    ("dask", "Array"): _refuse("it has not been computed yet: send .compute()"),
}
