"""NumPy arrays as bytes beside JSON, and back: any dtype without Python objects, any shape, C or Fortran order.

An array travels as its memory, contiguous, and a description in JSON: dtype, shape and order. A simple dtype is its
NumPy text (`<f8`). A compound one is a dict: an element that is itself an array has `base` and `shape`, a record has
`names`, `formats` and `offsets` of its fields, and a long double has `extended` and the number of its mantissa's bits.
The first half of this module writes that form (`pack_array`), the second reads it (`unpack_array`).

Promises: an array arrives with the same dtype, shape, order and bits, as an ordinary writable array that owns its
memory. A description is checked before NumPy gets it: no pickle, no eval, no Python objects, no allocation larger than
the bytes that arrived.

The trap: NumPy is optional and slow to import. Only this module of the wire imports it, inside functions: in a process
that sends an array it is loaded already, and a process that receives one loads it then.
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
"""The most elements without bytes (dtype `V0`) in one array. Their number is not limited by the message's size."""

# Compiled when the first array arrives, because compiling takes longer than the rest of this module's import. Simple
# dtypes: byte order, kind and size, with a unit for dates and durations.
_SIMPLE = r"[<>|][biufcSUV][0-9]{1,9}|[<>][mM]8(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_KINDS = "biufcmMSUV"


def problem_of(array: Any) -> str | None:
    """Why an array or NumPy scalar cannot be sent; None if it can."""
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
    """Why arrays of a dtype cannot be sent; None if they can.

    The function follows the nesting of a dtype: an array as element (`subdtype`) has one inner dtype, a record
    (`names`) has one for each field. What remains is a simple dtype. It must be one of NumPy's own, which its text
    alone describes completely: `np.dtype(dtype.str)` must give it back. A dtype of a user's extension does not.
    """
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
        # A field is (dtype, offset) or (dtype, offset, title); a title may be any Python object.
        if not all(isinstance(title, str) for field in dtype.fields.values() for title in field[2:]):
            return "a dtype whose fields have titles that are not text"
        found = (_dtype_problem(dtype[name], depth + 1) for name in dtype.names)
        return next((problem for problem in found if problem), None)
    if dtype.kind not in _KINDS or np.dtype(dtype.str) != dtype:
        return f"an array of dtype {dtype}, which is not one of NumPy's own; convert it with .astype(…)"
    return None


def as_array(value: Any) -> object:
    """The array of an object that offers one by `__array__`, its memory by `__dlpack__` otherwise."""
    import numpy as np

    return (
        np.asarray(value) if hasattr(value, "__array__") or not hasattr(value, "__dlpack__") else np.from_dlpack(value)
    )


def python_number(scalar: Any) -> bool | int | float | complex | None:
    """The Python number that equals a NumPy scalar; None where there is none (long double, dates, records)."""
    plain = scalar.item() if scalar.dtype.kind in "biufc" else None
    return plain if type(plain) in (bool, int, float, complex) else None


def pack_array(array: Any) -> tuple[dict[str, object], bytes | memoryview]:
    """The description of an array and its bytes, which are a view of its memory where that is contiguous. The array
    must have no `problem_of()`."""
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
    """The description of a dtype in JSON, see the module's docstring; the inverse of `_build`."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe(base), "shape": list(shape)}
    if dtype.names is not None:
        return _describe_fields(dtype)
    if _is_extended(dtype):
        return {"extended": dtype.str, "mantissa_bits": _mantissa_bits(dtype)}
    return dtype.str


def _describe_fields(dtype: np.dtype[Any]) -> dict[str, object]:
    """The description of a record. Offsets and item size are given explicitly, because a record may have padding, and
    its fields may overlap. `titles` and `aligned` are left out where the dtype has none."""
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
    """The bits of a long double's mantissa, which tell its format: x86 and ARM have different ones of 16 bytes."""
    import numpy as np

    return int(np.finfo(dtype).nmant)


def unpack_array(facts: dict[str, Any], data: memoryview, *, scalar: bool) -> object:
    """The array, or NumPy scalar, of a description and bytes that arrived; `DecodeError` where they do not fit.

    The order of the steps keeps a hostile description harmless: the dtype is built from checked parts, then the size is
    compared with the bytes that arrived, and only then memory is allocated.
    """
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
        # NumPy turns the inner shape of a dtype into part of the array's shape, and gives elements without bytes a
        # size.
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
    # Python's integers do not overflow. Sizes of zero are left out of the first product, because NumPy multiplies the
    # other sizes even then, and fails beyond 2**63.
    elements = prod(size for size in shape if size)
    if max(dtype.itemsize, 1) * elements >= 1 << 62:
        raise DecodeError("an array's shape is larger than any memory")
    elements = elements if all(shape) else 0
    if dtype.itemsize * elements != length:
        raise DecodeError(f"an array needs {dtype.itemsize * elements:,} bytes, and {length:,} came")
    if dtype.itemsize == 0 and elements > MAX_EMPTY_ELEMENTS:
        raise DecodeError(f"an array has more than {MAX_EMPTY_ELEMENTS:,} elements without any bytes")


def _build(described: object, depth: int) -> np.dtype[Any]:
    """The dtype of a description. No dtype that is made here contains Python objects, as `_SIMPLE` has no kind `O`."""
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
    """The dtype of a record.

    First the four columns (names, formats, offsets, and titles where there are any) must be lists of one length; then
    the values of each column are checked. NumPy itself checks the rest: unique names, and fields that lie within
    `itemsize`.
    """
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
    """Refuse bytes that NumPy accepts and fails on later: characters beyond Unicode, truth values other than 0 and 1.

    Fields of records are not checked. They may overlap, so that checking each of them could take more time than the
    message's size explains. There a wrong character raises an error where it is read.
    """
    import numpy as np

    if array.nbytes == 0 or array.dtype.kind not in "bU":
        return
    if array.dtype.kind == "b" and _as_bytes(array).max() > 1:
        raise DecodeError("an array of truth values holds something else than 0 and 1")
    points = np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)
    if array.dtype.kind == "U" and _as_bytes(array).view(points).max() > 0x10FFFF:
        raise DecodeError("an array of text holds characters that Unicode does not have")
