"""NumPy arrays as bytes beside JSON, and back: any dtype without Python objects, any shape, C or Fortran
order.

Promises: what arrives has the same dtype, shape, order and bits, and is an ordinary writable array of its
own. A description that arrives is checked before NumPy sees it; no pickle, no eval, no objects, no allocation
larger than the bytes that came.

The trap: NumPy is optional and slow to import. Only this module imports it, inside functions: sending an
array means that NumPy is loaded already, and receiving one is the moment to load it.
"""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any

from ether.errors import DecodeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DTYPE_DEPTH = 16
MAX_FIELDS = 4096
MAX_EMPTY_ELEMENTS = 1 << 20
"""Elements that have no bytes (dtype `V0`) cost nothing to declare, so their number has a limit of its
own."""

# Compiled when the first array arrives: that costs more than all the rest of the import.
_SIMPLE = r"[<>|][biufcSUV][0-9]{1,9}|[<>][mM]8(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_KINDS = "biufcmMSUV"


def problem_of(array: Any) -> str | None:
    """Why an array or NumPy scalar cannot travel; None if it can."""
    import numpy as np

    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            return "a masked array would lose its mask; send .data and .mask, or .filled(…)"
        if type(array) not in (np.ndarray, np.memmap, np.matrix, np.recarray):
            name = type(array).__qualname__
            return f"a {name} is more than its numbers; send numpy.asarray(…), and the rest beside it"
    problem = _dtype_problem(array.dtype, 1)
    if problem is None and array.dtype.itemsize == 0 and array.size > MAX_EMPTY_ELEMENTS:
        return f"an array of more than {MAX_EMPTY_ELEMENTS:,} elements without any bytes"
    return problem


def _dtype_problem(dtype: np.dtype[Any], depth: int) -> str | None:
    import numpy as np

    if dtype.hasobject or dtype.kind == "O":
        return f"an array of Python objects ({dtype}); give it a numeric or text dtype, or send .tolist()"
    if depth > MAX_DTYPE_DEPTH:
        return f"a dtype that nests deeper than {MAX_DTYPE_DEPTH} levels"
    if dtype.subdtype is not None:
        return _dtype_problem(dtype.subdtype[0], depth + 1)
    if dtype.names is not None:
        assert dtype.fields is not None
        if len(dtype.names) > MAX_FIELDS:
            return f"a dtype of more than {MAX_FIELDS:,} fields"
        if not all(isinstance(title, str) for field in dtype.fields.values() for title in field[2:]):
            return "a dtype whose fields have titles that are not text"
        found = (_dtype_problem(dtype[name], depth + 1) for name in dtype.names)
        return next((problem for problem in found if problem), None)
    if dtype.kind not in _KINDS or np.dtype(dtype.str) != dtype:
        return f"an array of dtype {dtype}, which is not one of NumPy's own; convert it with .astype(…)"
    return None


def python_number(scalar: Any) -> bool | int | float | complex | None:
    """The Python number that equals a NumPy scalar; None where there is none (long double, dates,
    records)."""
    plain = scalar.item() if scalar.dtype.kind in "biufc" else None
    return plain if type(plain) in (bool, int, float, complex) else None


def pack_array(array: Any) -> tuple[dict[str, object], bytes | memoryview]:
    """What a reader needs to know of an array without `problem_of()`, and its bytes: a view where that is
    possible."""
    import numpy as np

    array = np.asarray(array)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy(order="C")
    order = "C" if array.flags.c_contiguous else "F"
    facts: dict[str, object] = {"dtype": _describe(array.dtype), "shape": list(array.shape), "order": order}
    if array.nbytes == 0:
        return facts, b""
    return facts, _as_bytes(array).data


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The memory of a contiguous array, as a flat view."""
    import numpy as np

    flat: NDArray[np.uint8] = array.reshape(-1, order="A").view(np.uint8)
    return flat


def _describe(dtype: np.dtype[Any]) -> object:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe(base), "shape": list(shape)}
    if dtype.names is not None:
        return _describe_fields(dtype)
    if _is_extended(dtype):
        return {"extended": dtype.str, "mantissa_bits": _mantissa_bits(dtype)}
    return dtype.str


def _describe_fields(dtype: np.dtype[Any]) -> dict[str, object]:
    assert dtype.names is not None
    assert dtype.fields is not None
    entries = [dtype.fields[name] for name in dtype.names]
    described: dict[str, object] = {
        "names": list(dtype.names),
        "formats": [_describe(entry[0]) for entry in entries],
        "offsets": [entry[1] for entry in entries],
        "itemsize": dtype.itemsize,
    }
    titles = [entry[2] if len(entry) > 2 else None for entry in entries]
    if any(isinstance(title, str) for title in titles):
        described["titles"] = [title if isinstance(title, str) else None for title in titles]
    if dtype.isalignedstruct:
        described["aligned"] = True
    return described


def _is_extended(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16)


def _mantissa_bits(dtype: np.dtype[Any]) -> int:
    """Which kind of long double this is: x86 and ARM keep different formats in the same 16 bytes."""
    import numpy as np

    return int(np.finfo(dtype).nmant)


def unpack_array(facts: dict[str, Any], data: memoryview, *, scalar: bool) -> object:
    """The array, or NumPy scalar, of a description and bytes that arrived; `DecodeError` where they do not
    fit."""
    try:
        import numpy as np
    except ImportError as error:
        raise DecodeError(
            "a NumPy array arrived, and NumPy is not installed here: pip install 'ether-medium[numpy]'"
        ) from error
    shape, order = _shape(facts.get("shape")), facts.get("order")
    if order not in ("C", "F"):
        raise DecodeError(f"an array's order is C or F, not {order!r:.40}")
    dtype = _build(facts.get("dtype"), 1)
    _check_size(dtype, shape, len(data))
    try:
        array: NDArray[Any] = np.empty(shape, dtype, order)
        # NumPy would make part of a dtype into part of the shape, or stretch an element that has no bytes.
        if array.shape != shape or array.dtype.itemsize != dtype.itemsize:
            raise DecodeError("NumPy has no arrays of the dtype that arrived")
        if len(data):
            _as_bytes(array)[:] = np.frombuffer(data, np.uint8)
    except (ValueError, TypeError) as error:  # more dimensions than this NumPy knows, say
        raise DecodeError(f"NumPy refuses an array that arrived: {error}") from error
    _check_elements(array)
    if scalar and shape:
        raise DecodeError("a NumPy scalar has no shape")
    return array[()] if scalar else array


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise DecodeError(f"an array's description has {value!r:.40} where a size belongs")
    return value


def _shape(value: object) -> tuple[int, ...]:
    if type(value) is not list or len(value) > 64:
        raise DecodeError("an array's shape is a list of at most 64 sizes")
    return tuple(map(_count, value))


def _check_size(dtype: np.dtype[Any], shape: tuple[int, ...], length: int) -> None:
    # Python's ints do not overflow. Zeros are left out first: NumPy refuses to multiply the others past
    # 2**63.
    elements = prod(size for size in shape if size)
    if max(dtype.itemsize, 1) * elements >= 1 << 62:
        raise DecodeError("an array's shape is larger than any memory")
    elements = elements if all(shape) else 0
    if dtype.itemsize * elements != length:
        raise DecodeError(f"an array needs {dtype.itemsize * elements:,} bytes, and {length:,} came")
    if dtype.itemsize == 0 and elements > MAX_EMPTY_ELEMENTS:
        raise DecodeError(f"an array has more than {MAX_EMPTY_ELEMENTS:,} elements without any bytes")


def _build(described: object, depth: int) -> np.dtype[Any]:
    """The dtype of a description; every dtype that is made here has no objects."""
    import numpy as np

    if depth > MAX_DTYPE_DEPTH:
        raise DecodeError(f"a dtype nests deeper than {MAX_DTYPE_DEPTH} levels")
    try:
        if type(described) is str and re.fullmatch(_SIMPLE, described):
            dtype = np.dtype(described)
            if _is_extended(dtype):
                raise DecodeError("a long double needs the number of its mantissa's bits beside it")
            return dtype
        if type(described) is dict:
            return _build_compound(described, depth)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise DecodeError(f"NumPy refuses a dtype that arrived: {error}") from error
    raise DecodeError(f"{described!r:.60} does not describe a dtype")


def _build_compound(described: dict[str, Any], depth: int) -> np.dtype[Any]:
    import numpy as np

    if "base" in described:
        base, shape = _build(described["base"], depth + 1), _shape(described.get("shape"))
        if max(base.itemsize, 1) * prod(shape) >= 1 << 31:
            raise DecodeError("an element of an array is larger than 2 GiB")
        return np.dtype((base, shape))
    if "extended" in described:
        return _build_extended(described)
    return _build_fields(described, depth)


def _build_extended(described: dict[str, Any]) -> np.dtype[Any]:
    import numpy as np

    text = described["extended"]
    if type(text) is not str or not re.fullmatch(_SIMPLE, text) or text[1] not in "fc":
        raise DecodeError(f"{text!r:.60} does not describe a long double")
    dtype = np.dtype(text)
    if _mantissa_bits(dtype) != described.get("mantissa_bits"):
        raise DecodeError(
            "long double numbers of another kind of processor arrived, which this one cannot read; send float64 instead"
        )
    return dtype


def _build_fields(described: dict[str, Any], depth: int) -> np.dtype[Any]:
    import numpy as np

    names, formats, offsets = described.get("names"), described.get("formats"), described.get("offsets")
    titles, aligned = described.get("titles"), described.get("aligned", False)
    for column in (names, formats, offsets, titles if titles is not None else names):
        if type(column) is not list or type(names) is not list or len(column) != len(names):
            raise DecodeError("a dtype with fields needs as many names as formats and offsets")
    assert names is not None
    assert formats is not None
    assert offsets is not None
    if len(names) > MAX_FIELDS or not all(type(name) is str for name in names) or type(aligned) is not bool:
        raise DecodeError(f"a dtype's fields have text as names, and are at most {MAX_FIELDS:,}")
    if titles is not None and not all(title is None or type(title) is str for title in titles):
        raise DecodeError("the titles of a dtype's fields are text")
    spec: Any = {
        "names": names,
        "formats": [_build(form, depth + 1) for form in formats],
        "offsets": list(map(_count, offsets)),
        "itemsize": _count(described.get("itemsize")),
    }
    if titles is not None:
        spec["titles"] = titles
    dtype: np.dtype[Any] = np.dtype(spec, align=aligned)
    return dtype


def _check_elements(array: NDArray[Any]) -> None:
    """Refuse bytes that NumPy would take and choke on later: characters beyond Unicode, truths beyond true.

    Not inside records: their fields may overlap, and looking at each could take a time that the size of the
    message does not explain. There a wrong character raises where it is read.
    """
    import numpy as np

    if array.nbytes == 0 or array.dtype.kind not in "bU":
        return
    if array.dtype.kind == "b" and _as_bytes(array).max() > 1:
        raise DecodeError("an array of truth values holds something else than 0 and 1")
    points = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    if array.dtype.kind == "U" and _as_bytes(array).view(points).max() > 0x10FFFF:
        raise DecodeError("an array of text holds characters that Unicode does not have")
