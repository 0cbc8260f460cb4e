"""What a class offers, read from the class and the registry without touching either.

Inherited decorated methods count; a method that a subclass defines anew carries the marks of its new definition.
Where the registry names a decorator for a method, its entry takes the place of the code's marks of that kind, so
that a lab can re-route a class without editing it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ether.errors import MarkError
from ether.spec.marks import Mark, MarkKind, marks_of, underlying

_WITH_TOPIC = (MarkKind.PUB, MarkKind.SUB, MarkKind.SYNC)

Overlay = Mapping[str, tuple[Mark, ...]]
"""The registry's entry for one class: method name to marks."""


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """One marked method: its name, and its marks with every topic filled in."""

    name: str
    marks: tuple[Mark, ...]

    def of_kind(self, kind: MarkKind) -> tuple[Mark, ...]:
        """Its marks of one kind."""
        return tuple(mark for mark in self.marks if mark.kind is kind)

    @property
    def concurrency(self) -> int:
        """How many messages or calls it takes at the same time."""
        return max(mark.concurrency for mark in self.marks)

    @property
    def times(self) -> tuple[str, ...]:
        """When it is called by itself, as its marks say."""
        return tuple(dict.fromkeys(mark.every for mark in self.marks if mark.every))

    def topics(self, kind: MarkKind) -> tuple[str, ...]:
        """Its topics of one kind, each once, in order."""
        return tuple(dict.fromkeys(mark.topic for mark in self.of_kind(kind) if mark.topic))


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """A class as Ether sees it."""

    name: str
    class_path: str
    methods: tuple[MethodSpec, ...]

    def with_mark(self, kind: MarkKind) -> tuple[MethodSpec, ...]:
        """The methods that carry a mark of this kind, in the order of their definition."""
        return tuple(method for method in self.methods if method.of_kind(kind))


def class_path_of(cls: type) -> str:
    """`package.module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(cls: type, overlay: Overlay | None = None) -> ClassSpec:
    """The spec of a class; `overlay` is what the registry says about it. Raises `MarkError`."""
    overlay = overlay or {}
    _check_methods_exist(cls, overlay)
    methods = tuple(
        MethodSpec(name, marks) for name in _attribute_names(cls) if (marks := _marks(cls, name, overlay.get(name, ())))
    )
    return ClassSpec(cls.__name__, class_path_of(cls), methods)


def _attribute_names(cls: type) -> Iterable[str]:
    """Names in the order of definition, base classes first."""
    return dict.fromkeys(name for klass in reversed(cls.__mro__) for name in vars(klass))


def _marks(cls: type, name: str, listed: tuple[Mark, ...]) -> tuple[Mark, ...]:
    kinds = {mark.kind for mark in listed}
    decorated = marks_of(inspect.getattr_static(cls, name))
    marks = (*(mark for mark in decorated if mark.kind not in kinds), *listed)
    default = f"{cls.__name__}.{name}"
    return tuple(_with_topic(mark, default) for mark in marks)


def _with_topic(mark: Mark, default: str) -> Mark:
    if mark.topic is not None or mark.kind not in _WITH_TOPIC:
        return mark
    return replace(mark, topic=default)


def _check_methods_exist(cls: type, overlay: Overlay) -> None:
    for name in overlay:
        if not callable(underlying(inspect.getattr_static(cls, name, None))):
            nearest = difflib.get_close_matches(name, dir(cls), n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise MarkError(f"the registry names {name!r}, but {class_path_of(cls)} has no such method.{hint}")
