"""What a class offers, read from the class and the registry without changing either.

Inherited decorated methods count; an overridden method has the marks of its new definition alone. Where the registry
names a decorator for a method, its entry replaces the code's marks of that kind, so that a lab can re-route a class
without editing it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ether.config.when import duration_s
from ether.errors import MarkError
from ether.spec.accessors import readable, settable
from ether.spec.marks import IGNORE, Mark, MarkKind, marks_of, underlying
from ether.spec.wrapping import NO_CARE, NO_LIMIT, SETTER, Care, Limit, PropertySpec, Wrapping

_WITH_TOPIC = (MarkKind.PUB, MarkKind.SUB, MarkKind.SYNC)

Overlay = Mapping[str, tuple[Mark, ...]]
"""The registry's entry for one class: method name to marks."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One marked method: its name, and its marks with every topic filled in.

    `limits` are those of its arguments, by name. For a property of the class, `accessor` makes the function of an
    object, and `reads` says whether that function reads the property or sets it. `result` has the unit of the value
    that it returns.
    """

    name: str
    marks: tuple[Mark, ...]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    accessor: Callable[[object], Callable[..., Any]] | None = None
    reads: bool = False
    result: Limit = NO_LIMIT
    decorated: bool = False
    """Whether the class marks it itself. Then its return hint is a promise of its author to callers; that of a method
    which only the registry marks may be wrong, and nobody here can mend it."""

    @property
    def ignores_result(self) -> bool:
        """Whether callers get None instead of what it returns (`result: ignore`)."""
        return any(mark.result == IGNORE for mark in self.marks)

    def function_of(self, obj: object) -> Callable[..., Any]:
        """The function to call, bound to an object."""
        function: Callable[..., Any] = getattr(obj, self.name) if self.accessor is None else self.accessor(obj)
        return function

    def of_kind(self, kind: MarkKind) -> tuple[Mark, ...]:
        """Its marks of one kind."""
        return tuple(mark for mark in self.marks if mark.kind is kind)

    @property
    def concurrency(self) -> int | None:
        """How many threads of its own it has; None where it runs on the instance's worker."""
        return max((mark.concurrency for mark in self.marks if mark.concurrency is not None), default=None)

    @property
    def takes_s(self) -> float | None:
        """How many seconds a call may take, as the method says; None where it says nothing."""
        return max((duration_s(mark.takes) for mark in self.marks if mark.takes is not None), default=None)

    @property
    def times(self) -> tuple[str, ...]:
        """When Ether calls it by itself, as written in its marks; empty for a method that is not scheduled."""
        return tuple(dict.fromkeys(mark.every for mark in self.marks if mark.every))

    @property
    def from_topic(self) -> frozenset[str]:
        """The names of its parameters that levels of its topics fill."""
        return frozenset(name for mark in self.of_kind(MarkKind.SUB) for name, _ in mark.places)

    def topics(self, kind: MarkKind) -> tuple[str, ...]:
        """Its topics of one kind, each once, in order."""
        return tuple(dict.fromkeys(mark.topic for mark in self.of_kind(kind) if mark.topic))


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class as Ether sees it."""

    name: str
    class_path: str
    methods: tuple[MethodSpec, ...]
    properties: tuple[PropertySpec, ...] = ()
    care: Care = NO_CARE

    def with_mark(self, kind: MarkKind) -> tuple[MethodSpec, ...]:
        """The methods that carry a mark of this kind, in the order of their definition."""
        return tuple(method for method in self.methods if method.of_kind(kind))


def class_path_of(cls: type) -> str:
    """`package.module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(cls: type, overlay: Overlay | None = None) -> ClassSpec:
    """The spec of a class; `overlay` has the registry's marks of its methods. Raises `MarkError`."""
    return describe_wrapped(cls, Wrapping(marks=overlay or {}))


def describe_wrapped(cls: type, wrapping: Wrapping) -> ClassSpec:
    """The spec of a class, with the whole registry entry of it. Raises `MarkError`."""
    _check_methods_exist(cls, [*wrapping.marks, *wrapping.limits])
    methods = [
        MethodSpec(name, marks, wrapping.limits.get(name, {}), decorated=bool(_decorated(cls, name)))
        for name in _attribute_names(cls)
        if (marks := _marks(cls, name, wrapping.marks.get(name, ())))
    ]
    _check_limits_apply(cls, wrapping, {method.name for method in methods})
    for wanted in wrapping.properties.values():
        methods += _accessors(cls, wanted)
    methods = [
        replace(method, marks=tuple(_with_wishes(mark, wrapping) for mark in method.marks)) for method in methods
    ]
    properties = tuple(wrapping.properties.values())
    return ClassSpec(cls.__name__, class_path_of(cls), tuple(methods), properties, wrapping.care)


def _accessors(cls: type, wanted: PropertySpec) -> Iterator[MethodSpec]:
    """A property's reader and setter, as methods."""
    if wanted.reader:
        marks = tuple(_with_topic(mark, f"{cls.__name__}.{wanted.name}") for mark in wanted.reader)
        unit = Limit(unit=wanted.limit.unit)
        yield MethodSpec(wanted.name, marks, accessor=readable(cls, wanted.name), reads=True, result=unit)
    if wanted.setter:
        name = SETTER + wanted.name
        if callable(getattr(cls, name, None)):
            raise MarkError(
                f"the registry makes the property {wanted.name!r} of {class_path_of(cls)} settable, but the class has a"
                f" method {name!r} already: list that one under methods"
            )
        yield MethodSpec(name, wanted.setter, {"value": wanted.limit}, settable(cls, wanted.name))


def _check_limits_apply(cls: type, wrapping: Wrapping, marked: set[str]) -> None:
    for name in wrapping.limits:
        if name not in marked:
            raise MarkError(
                f"the registry limits arguments of {class_path_of(cls)}.{name}, which"
                " has no decorator: nobody can call it"
            )


def _attribute_names(cls: type) -> Iterable[str]:
    """Names in the order of definition, base classes first."""
    return dict.fromkeys(name for klass in reversed(cls.__mro__) for name in vars(klass))


def _marks(cls: type, name: str, listed: tuple[Mark, ...]) -> tuple[Mark, ...]:
    kinds = {mark.kind for mark in listed}
    decorated = _decorated(cls, name)
    marks = (*(mark for mark in decorated if mark.kind not in kinds), *listed)
    default = f"{cls.__name__}.{name}"
    return tuple(_with_topic(mark, default) for mark in marks)


def _decorated(cls: type, name: str) -> tuple[Mark, ...]:
    """The marks that a method has by decorators in the source."""
    return marks_of(inspect.getattr_static(cls, name))


def _with_topic(mark: Mark, default: str) -> Mark:
    if mark.topic is not None or mark.kind not in _WITH_TOPIC:
        return mark
    return replace(mark, topic=default)


def _with_wishes(mark: Mark, wrapping: Wrapping) -> Mark:
    """A subscription with what the instance wants of waiting messages, where it says nothing itself."""
    if mark.kind is not MarkKind.SUB:
        return mark
    keep = wrapping.keep if mark.keep is None else mark.keep
    return replace(mark, keep=keep, max_age=mark.max_age or wrapping.max_age)


def _check_methods_exist(cls: type, names: Iterable[str]) -> None:
    for name in names:
        if not callable(underlying(inspect.getattr_static(cls, name, None))):
            nearest = difflib.get_close_matches(name, dir(cls), n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise MarkError(f"the registry names {name!r}, but {class_path_of(cls)} has no such method.{hint}")
