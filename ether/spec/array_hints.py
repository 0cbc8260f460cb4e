"""NumPy in type hints: what an array must be, and how lists of numbers become one.

    def fit(self, points: Annotated[np.ndarray, ArraySpec("float64", (None, 3))]) -> NDArray[np.float64]: ...

Promises: an array that fits is passed as it is, without a copy; another dtype is cast only where NumPy calls the cast
safe; a list (the only form that a program without Ether can send) is converted where no number changes its value.
Decimal fractions are the one exception, because hardly any has an exact binary form: they are rounded to the dtype's
precision, but never to infinity or zero.

The trap: NumPy is optional and slow to import, so this module never imports it. A hint that names an array means that
the class's own module has imported NumPy already.

In this order: `ArraySpec`, what a user writes; how a hint is recognised; Python's integers in place of NumPy's;
`_ArrayCheck`, the check itself; `_ScalarSpec`, the same for one number.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ether.errors import MarkError

if TYPE_CHECKING:
    from types import EllipsisType

    from pydantic_core import CoreSchema

_NUMBERS = "biufc"
_INEXACT = "fc"
_EXACT_UP_TO = 2**53
"""Up to this size float64 holds every integer; beyond it, float64 skips some."""

# For each abstract dtype, the dtype to which others are converted; None: an array of another dtype is refused.
_ABSTRACT = {
    "number": None,
    "flexible": None,
    "character": None,
    "inexact": "float64",
    "floating": "float64",
    "complexfloating": "complex128",
    "integer": "int64",
    "signedinteger": "int64",
    "unsignedinteger": "uint64",
}
_JSON_TYPES = {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}
PLAIN = frozenset((int, float, str, bool, bytes, type(None)))
"""Types whose values hold no NumPy integer."""
_COLLECTIONS = (list, tuple, set, frozenset)
_WALK_DEPTH = 32
"""Deeper than users nest. A list that contains itself ends the walk here, and is refused by pydantic."""


def _loaded_numpy() -> Any:
    """NumPy where this process has imported it, completely (another thread may be importing it now); else None."""
    numpy = sys.modules.get("numpy")
    return numpy if hasattr(numpy, "generic") and hasattr(numpy, "ndarray") else None


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """What an annotated array must be: `Annotated[np.ndarray, ArraySpec(dtype="float64", shape=(None, 3))]`.

    `dtype` is anything that `np.dtype` accepts, or an abstract one such as `np.floating`; None accepts every dtype. In
    `shape`, None stands for any size, and a leading `...` for any number of dimensions before the others; a `shape` of
    None accepts every shape. Raises `MarkError` for a shape that is not a tuple of sizes.
    """

    dtype: Any = None
    shape: tuple[int | EllipsisType | None, ...] | None = None

    def __post_init__(self) -> None:
        if self.shape is None:
            return
        if not isinstance(self.shape, (tuple, list)):
            raise MarkError(f"ArraySpec: shape is a tuple of sizes such as (None, 3), not {self.shape!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        for place, size in enumerate(self.shape):
            if not (size is None or (size is ... and place == 0) or (type(size) is int and size >= 0)):
                raise MarkError(f"ArraySpec: {size!r} in shape {self.shape!r} is no size, None, or a leading '...'")

    # -- the methods that pydantic calls

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        numpy = _loaded_numpy()
        array = _array_type(numpy, source)
        if array is None:
            schema: CoreSchema = handler.generate_schema(self._on_members(source, numpy))
            return schema
        check = _ArrayCheck(numpy, _completed(self, array))
        return core_schema.lax_or_strict_schema(
            core_schema.no_info_plain_validator_function(check.lenient),
            core_schema.no_info_plain_validator_function(check.strict),
            metadata={"ether_array": check.json_schema()},
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        described: dict[str, Any] | None = (schema.get("metadata") or {}).get("ether_array")
        if described is not None:
            return dict(described)
        of_members: dict[str, Any] = handler(schema)
        return of_members

    def _on_members(self, source: Any, numpy: Any) -> Any:
        """For `Annotated[np.ndarray | None, spec]` the union with the spec on the array; raises `MarkError` where no
        member is an array."""
        members = typing.get_args(source) if typing.get_origin(source) in (typing.Union, types.UnionType) else ()
        arrays = [_array_type(numpy, member) for member in members]
        if not any(arrays):
            raise MarkError(f"ArraySpec describes numpy.ndarray, not {source!r}")
        annotated = (typing.Annotated[array, self] if array else m for m, array in zip(members, arrays, strict=True))
        return typing.Union[tuple(annotated)]  # noqa: UP007  a tuple of members


def numpy_hint(hint: Any) -> Any:
    """`np.ndarray`, `NDArray[np.float64]` or `np.float64` in the form that pydantic can check; None for other hints."""
    numpy = _loaded_numpy()
    if numpy is None:
        return None
    array = _array_type(numpy, hint)
    if array is not None:
        return typing.Annotated[array, ArraySpec()]
    if isinstance(hint, type) and issubclass(hint, numpy.generic):
        return typing.Annotated[hint, _ScalarSpec(numpy, hint)]
    return None


def _array_type(numpy: Any, hint: Any) -> Any:
    """`np.ndarray`, or `np.ndarray[shape, dtype]`, with aliases such as `NDArray[…]` resolved; None for other hints."""
    if numpy is None:
        return None
    alias = typing.get_origin(hint) or hint
    if type(alias).__name__ == "TypeAliasType":  # what NDArray is from NumPy 2.5 on
        value, arguments = alias.__value__, typing.get_args(hint)
        hint = value[arguments] if arguments else value
    return hint if numpy.ndarray in (hint, typing.get_origin(hint)) else None


def plain_integers(value: Any) -> Any:
    """The value with NumPy's integers replaced by Python's, also inside lists, tuples, sets and dicts.

    Pydantic converts a NumPy integer through a float, which changes every large one (such as a time in nanoseconds).
    """
    numpy = _loaded_numpy()
    return value if numpy is None else _with_plain_integers(value, numpy.integer, _WALK_DEPTH)


def _with_plain_integers(value: Any, integer: Any, depth: int) -> Any:
    """How: a collection whose items are all of a `PLAIN` type is returned as it is, without a copy; one pass over the
    types in C is far cheaper than a rebuilt list, and most collections are of this kind. Only exact types are walked
    (`type(value)`, not `isinstance`): a subclass might not survive being rebuilt from its items."""
    kind = type(value)
    if kind in PLAIN or depth == 0:
        return value
    if kind is dict:
        if PLAIN.issuperset(map(type, value)) and PLAIN.issuperset(map(type, value.values())):
            return value
        return {
            _with_plain_integers(key, integer, depth - 1): _with_plain_integers(item, integer, depth - 1)
            for key, item in value.items()
        }
    if kind in _COLLECTIONS:
        if PLAIN.issuperset(map(type, value)):
            return value
        return kind([_with_plain_integers(item, integer, depth - 1) for item in value])
    # NumPy counts timedelta64 among the integers (kind "m"), but as an int it would lose its unit.
    return int(value) if isinstance(value, integer) and value.dtype.kind in "iu" else value


class TakesArrays:
    """Beside a hint such as `list[int]`: converts an array to a list of Python's numbers before pydantic reads it, for
    the reason in `plain_integers`. Pydantic tries the members of a union strictly first and leniently afterwards; the
    conversion is in the lenient round alone, so that `list[int] | np.ndarray` leaves an array an array."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        inner = handler(source)
        return core_schema.lax_or_strict_schema(
            core_schema.no_info_before_validator_function(_as_list, inner),
            inner,
        )


def _as_list(value: Any) -> Any:
    numpy = _loaded_numpy()
    return value.tolist() if numpy is not None and isinstance(value, numpy.ndarray) and value.ndim else value


def _completed(spec: ArraySpec, source: Any) -> ArraySpec:
    """The spec, its open dtype and shape filled in from `NDArray[np.float64]` or `np.ndarray[shape, dtype]`."""
    arguments = typing.get_args(source)
    if len(arguments) != 2:
        return spec
    scalars = typing.get_args(arguments[1])
    if spec.dtype is None and len(scalars) == 1 and isinstance(scalars[0], type):
        spec = replace(spec, dtype=scalars[0])
    return replace(spec, shape=_shape_of(arguments[0])) if spec.shape is None else spec


def _shape_of(hint: Any) -> tuple[int | None, ...] | None:
    """`tuple[int, Literal[3]]` as the shape `(None, 3)`; None for `tuple[Any, ...]` and every other hint."""
    sizes = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or Ellipsis in sizes:
        return None
    return tuple(_size_of(size) for size in sizes)


def _size_of(hint: Any) -> int | None:
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return choices[0] if len(choices) == 1 and type(choices[0]) is int else None


class _ArrayCheck:
    """Checks values against a spec; made once, when a class is hosted. Raises `MarkError` for a dtype that NumPy does
    not know. `_fits` says whether a dtype is accepted; `_target` is the dtype to which others are converted, or
    None."""

    def __init__(self, numpy: Any, spec: ArraySpec) -> None:
        self._numpy = numpy
        self._shape = spec.shape
        self._fits, self._target, self._dtype_text = _dtype_rule(numpy, spec.dtype)

    def lenient(self, value: Any) -> Any:
        """The value as an array: itself, safely cast, or made of a list."""
        if isinstance(value, self._numpy.ndarray):
            array = self._cast(value)
        elif isinstance(value, (list, tuple)):
            array = self.from_list(value)
        else:
            raise self._refusal()
        if not self._has_shape(array.shape):
            raise self._refusal(f"the shape is {_shape_text(array.shape)}")
        return array

    def strict(self, value: Any) -> Any:
        """The value itself where it is an array that fits. Pydantic calls this first for each member of a union, so
        that in `list[int] | np.ndarray` a list stays a list."""
        if not isinstance(value, self._numpy.ndarray) or not self._fits(value.dtype):
            raise self._refusal()
        return self.lenient(value)

    def from_list(self, values: Any) -> Any:
        """An array, of any shape, with the numbers of nested lists, none of them changed.

        NumPy first chooses a dtype itself (`natural`). That choice may already have rounded large integers, which is
        checked before the conversion to the wanted dtype, and the conversion is checked for itself."""
        try:
            natural = self._numpy.asarray(values)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._refusal("the lists inside are not of one length") from error
        if natural.dtype.kind not in _NUMBERS and not self._is_text(natural.dtype):
            raise self._refusal("not only numbers (that NumPy has a dtype for) are inside")
        kept = _keeps_large_integers(self._numpy, values, natural)
        array = self._converted(natural) if kept else None
        if array is None:
            raise self._refusal("its numbers would not keep their values")
        return array

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the nested lists that are accepted, with `dtype` and `shape` beside it for readers who
        know arrays; empty where every value is accepted.

        It is built from the inside: the last dimension's items are numbers, and each size before it wraps the schema in
        one more array. With `...` or an open shape the depth is unknown, and only the outermost array is described."""
        if self._dtype_text is None and self._shape is None:
            return {}
        leaf = _JSON_TYPES.get(self._target.kind) if self._target is not None else None
        described: dict[str, Any] = {"type": "array"}
        if self._shape is not None and ... not in self._shape and self._shape:
            described = {"type": leaf} if leaf else {}
            for size in reversed(self._shape):
                length = {} if size is None else {"minItems": size, "maxItems": size}
                described = {"type": "array", "items": described, **length}
        if self._dtype_text is not None:
            described["dtype"] = self._dtype_text
        if self._shape is not None:
            described["shape"] = ["..." if size is ... else size for size in self._shape]
        return described

    def _cast(self, array: Any) -> Any:
        if self._fits(array.dtype):
            return array
        if self._target is not None and self._numpy.can_cast(array.dtype, self._target, "safe"):
            return array.astype(self._target)
        raise self._refusal(f"{array.dtype} cannot be cast to it safely")

    def _converted(self, natural: Any) -> Any:
        """The array in the wanted dtype; None where a number would change.

        In this order: a dtype that fits is kept; text becomes wider text; other kinds than numbers are refused, and
        complex numbers where real ones are wanted. Then the numbers are converted and compared with what they were:
        fractions to the precision of the wanted dtype, everything else exactly. A relative tolerance without an
        absolute one (`atol=0`) is what refuses numbers that would become zero or infinity."""
        if self._fits(natural.dtype):
            return natural
        if self._is_text(natural.dtype) and self._numpy.can_cast(natural.dtype, self._target, "safe"):
            return natural.astype(self._target)
        if self._target is None or {natural.dtype.kind, self._target.kind} - set(_NUMBERS):
            return None
        if natural.dtype.kind == "c" and self._target.kind != "c":
            return None
        with self._numpy.errstate(all="ignore"):
            array = natural.astype(self._target)
            if natural.dtype.kind in _INEXACT and self._target.kind in _INEXACT:
                precision = self._numpy.finfo(self._target).eps
                same = self._numpy.allclose(array, natural, rtol=precision, atol=0, equal_nan=True)
            else:
                same = array.tolist() == natural.tolist()  # unlike NumPy, Python compares int and float exactly
        return array if same else None

    def _is_text(self, dtype: Any) -> bool:
        """Whether the dtype is text, and text is wanted."""
        return self._target is not None and self._target.kind == dtype.kind == "U"

    def _has_shape(self, shape: tuple[int, ...]) -> bool:
        if self._shape is None:
            return True
        wanted = self._shape
        if wanted and wanted[0] is ...:
            wanted = wanted[1:]
            shape = shape[max(len(shape) - len(wanted), 0) :]
        return len(shape) == len(wanted) and all(a is None or a == b for a, b in zip(wanted, shape, strict=True))

    def _refusal(self, why: str = "") -> Exception:
        from pydantic_core import PydanticCustomError

        text = "Input should be an array"
        text += f" of {self._dtype_text}" if self._dtype_text else ""
        text += f" with shape {_shape_text(self._shape)}" if self._shape is not None else ""
        text += f", but {why}" if why else ""
        return PydanticCustomError("array", "{text}", {"text": text})


def _dtype_rule(numpy: Any, dtype: Any) -> tuple[Callable[[Any], bool], Any, str | None]:
    """For the `dtype` of a spec: a function that says whether a dtype fits, the dtype to which others are converted
    (None for none), and the name of the rule in messages (None where every dtype fits).

    Four cases: no dtype given; an abstract one (`np.floating`), which a whole family fits; text without a length, which
    text of any length fits; and a concrete one, which fits only itself."""
    if dtype is None or dtype is Any or dtype is numpy.generic:
        return (lambda given: True), None, None
    if isinstance(dtype, type) and issubclass(dtype, numpy.generic) and dtype.__name__ in _ABSTRACT:
        default = _ABSTRACT[dtype.__name__]
        return (
            (lambda given: bool(numpy.issubdtype(given, dtype))),
            numpy.dtype(default) if default else None,
            dtype.__name__,
        )
    try:
        wanted = numpy.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as error:
        raise MarkError(f"ArraySpec: NumPy knows no dtype {dtype!r}: {error}") from error
    if wanted.itemsize == 0 and wanted.kind in "SU":  # text of any length
        return (lambda given: given.kind == wanted.kind), wanted, str(wanted)
    return (lambda given: given == wanted), wanted, str(wanted)


def _keeps_large_integers(numpy: Any, values: Any, natural: Any) -> bool:
    """Whether NumPy's own choice of a dtype (`natural`) left every number as it was. Integers beside fractions become
    float64, which rounds large ones; as an array of objects the given numbers are compared exactly. NaN counts as kept.
    """
    if natural.dtype.kind != "f" or not natural.size or not (numpy.abs(natural) >= _EXACT_UP_TO).any():
        return True
    given = numpy.asarray(values, dtype=object)
    return bool(((given == natural) | (given != given)).all())


def _shape_text(shape: tuple[Any, ...] | None) -> str:
    sizes = ["any" if size is None else "..." if size is ... else str(size) for size in shape or ()]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


class _ScalarSpec:
    """`np.float64` and other scalar types as a hint: a Python number is converted where its value stays the same."""

    __slots__ = ("_check", "_kind")

    def __init__(self, numpy: Any, kind: type) -> None:
        self._kind = kind
        self._check = _ArrayCheck(numpy, ArraySpec(kind, (None,)))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._validated)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        items: dict[str, Any] = self._check.json_schema()["items"]
        return items

    def _validated(self, value: Any) -> Any:
        from pydantic_core import PydanticCustomError

        if isinstance(value, self._kind):
            return value
        try:
            if isinstance(value, (bool, int, float, complex, str)):
                return self._check.from_list([value])[0]
        except PydanticCustomError:
            pass  # the message below fits one number better
        text = f"Input should be a {self._kind.__name__}, or a number that it can hold"
        raise PydanticCustomError("scalar", "{text}", {"text": text})
