"""Type hints as Ether uses them: resolved, prepared for pydantic, and turned into a validator.

`prepared` replaces the hints that pydantic cannot check, or would check harmfully: a function or module where a type
belongs (`np.array`) and a protocol without run-time checks become `Any`; an array gets its `ArraySpec`; `Iterable[int]`
becomes `Any`, because pydantic would pass on an iterator that can be read only once.

The trap: resolving hints and building validators runs code of the user's modules, which may raise any exception.
`adapter_of` raises `MarkError` then, and `resolved_hints` leaves out the hints that do not resolve.
"""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ether.errors import MarkError
from ether.spec.array_hints import ArraySpec, TakesArrays, numpy_hint
from ether.spec.library_hints import library_note
from ether.spec.plain_hints import core_schema_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import CoreSchema

Extra = Literal["ignore", "allow"]

_NOT_A_TYPE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    str,
    int,
    float,
)
_ONE_PASS = (
    collections.abc.Iterable,
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)
_AWAITABLE = (collections.abc.Awaitable, collections.abc.Coroutine)
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.MutableSequence)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNCHECKED = (Any, inspect.Parameter.empty, typing.NoReturn, typing.Never)


def place_of(method: Callable[..., Any]) -> str:
    """The file and line in which a method is defined; empty for one that is not written in Python."""
    code = getattr(inspect.unwrap(getattr(method, "__func__", method)), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def unresolved_hints(method: Callable[..., Any], resolved: Mapping[str, Any]) -> dict[str, str]:
    """The hints of a method's parameters that `resolved_hints` has left out, as they are written: of names that only a
    type checker sees, imported under `TYPE_CHECKING`."""
    annotations = getattr(inspect.unwrap(getattr(method, "__func__", method)), "__annotations__", {})
    return {name: str(hint) for name, hint in annotations.items() if name not in resolved and name != "return"}


def resolved_hints(method: Callable[..., Any]) -> dict[str, Any]:
    """The hints of a method, `return` included, without those that do not resolve."""
    try:
        return typing.get_type_hints(method, include_extras=True)
    except Exception:  # noqa: BLE001  a hint is an expression of the user's; resolved one by one, the others still do
        function = inspect.unwrap(getattr(method, "__func__", method))
        annotations = getattr(function, "__annotations__", {})
        names = getattr(function, "__globals__", {})
        return {name: hint for name, written in annotations.items() for hint in _resolved(name, written, names)}


def _resolved(name: str, written: object, names: dict[str, Any]) -> list[Any]:
    holder = types.SimpleNamespace(__annotations__={name: written})
    try:
        return [typing.get_type_hints(holder, names, include_extras=True)[name]]
    except Exception:  # noqa: BLE001  as above: this very hint does not resolve
        return []


def result_hint(method: Callable[..., Any]) -> Any:
    """The return hint of a method, for a coroutine that of its result; `Any` where there is none that resolves."""
    hint = resolved_hints(method).get("return", Any)
    return typing.get_args(hint)[-1] if typing.get_origin(hint) in _AWAITABLE else hint


def validator_of(hint: Any, *, extra: Extra = "ignore") -> Callable[[Any], Any] | None:
    """A function that converts a value to the hint's type or raises pydantic's `ValidationError`; None where the hint
    asks for nothing. Raises `MarkError` for a hint that pydantic cannot validate."""
    plain = core_schema_of(hint)
    if plain is not None:
        from pydantic_core import SchemaValidator

        return SchemaValidator(plain).validate_python
    adapter = adapter_of(hint, extra=extra)
    return None if adapter is None else adapter.validator.validate_python


def adapter_of(hint: Any, *, extra: Extra = "ignore") -> TypeAdapter[Any] | None:
    """Pydantic's adapter for a hint; None where the hint asks for nothing. Raises `MarkError` for a hint that pydantic
    cannot validate. `extra` says what happens to keys that a typed dict does not name.
    """
    fit = prepared(hint)
    if fit is Any:
        return None
    try:
        return _built(fit, extra)
    except Exception as error:  # a hint's own class takes part in building, and may raise anything
        raise MarkError(f"the type hint {inspect.formatannotation(hint)} cannot be validated: {error}") from error


def _built(hint: Any, extra: Extra) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    config = ConfigDict(arbitrary_types_allowed=True, extra=extra)
    # A dataclass, typed dict or model brings a configuration of its own, and pydantic refuses a second one; wrapped in
    # `Any` with `_Inside`, it is a part of something that takes ours.
    try:
        adapter = TypeAdapter[Any](hint, config=config)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        adapter = TypeAdapter[Any](typing.Annotated[Any, _Inside(hint)], config=config)
    if not adapter.pydantic_complete:  # so that a name that does not resolve raises now, not at the first message
        adapter.rebuild(raise_errors=True)
    return adapter


class _Inside:
    """A dataclass or typed dict as a part of another type. On its own, pydantic accepts no configuration for it; and
    without our configuration it refuses a field of an unknown type, such as an array."""

    __slots__ = ("_hint",)

    def __init__(self, hint: Any) -> None:
        self._hint = hint

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        schema: CoreSchema = handler.generate_schema(self._hint)
        return schema


class _AlsoByName:
    """An enum's member by its name, too, where no member has that as its value."""

    __slots__ = ("_enum",)

    def __init__(self, hint: type[enum.Enum]) -> None:
        self._enum = hint

    def _member(self, value: Any) -> Any:
        if not isinstance(value, str) or any(member.value == value for member in self._enum):
            return value
        if (member := self._enum.__members__.get(value)) is not None:
            return member
        names = ", ".join(self._enum.__members__)
        from pydantic_core import PydanticCustomError

        values = ", ".join(repr(member.value) for member in self._enum)
        raise PydanticCustomError(
            "enum", "Input should be {values}; or by name {names}", {"values": values, "names": names}
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self._member, handler(source))


def prepared(hint: Any) -> Any:
    """The hint as pydantic gets it, `Any` where it checks nothing. A hint that needs no change is returned as it is."""
    if _is_unchecked(hint):
        return Any
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return typing.Annotated[hint, _AlsoByName(hint)]
    array = numpy_hint(hint)
    if array is not None:
        return array
    if (note := library_note(hint, validator_of)) is not None:
        return typing.Annotated[hint, note]
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _prepared_annotated(hint, *parts)
    if origin is typing.Union or origin is types.UnionType:
        return _rebuilt(hint, parts, lambda new: typing.Union[new])  # noqa: UP007  a tuple of members
    if origin in _ONE_PASS:
        return Any
    if origin in _MAPPINGS or origin in _LISTS:
        container: Any = origin
        fit = _rebuilt(hint, parts, lambda new: container[new])
        return typing.Annotated[fit, TakesArrays()] if origin in _LISTS else fit
    return hint


def _is_unchecked(hint: Any) -> bool:
    if any(hint is nothing for nothing in _UNCHECKED) or isinstance(hint, _NOT_A_TYPE):
        return True
    return getattr(hint, "_is_protocol", False) is True and not getattr(hint, "_is_runtime_protocol", False)


def _prepared_annotated(hint: Any, base: Any, *notes: Any) -> Any:
    if any(isinstance(note, ArraySpec) for note in notes):
        return hint
    fit = prepared(base)
    return hint if fit is base else typing.Annotated[(fit, *notes)]


def _rebuilt(hint: Any, parts: tuple[Any, ...], build: Callable[[tuple[Any, ...]], Any]) -> Any:
    new = tuple(part if part is Ellipsis else prepared(part) for part in parts)
    return hint if all(a is b for a, b in zip(parts, new, strict=True)) else build(new)
