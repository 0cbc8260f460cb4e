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

from ether.config.path_text import ObjectPath, PathStep, parse_path
from ether.config.when import duration_s
from ether.errors import MarkError
from ether.spec.accessors import readable, settable
from ether.spec.alarm_rules import AlarmSpec
from ether.spec.marks import IGNORE, Mark, MarkKind, marks_of, underlying
from ether.spec.outcomes import AS_IT_IS
from ether.spec.path_methods import PathMethod, handed_over, path_reader, path_setter
from ether.spec.wrapping import NO_CARE, NO_LIMIT, SETTER, CallbackSpec, Care, Limit, PropertySpec, Wrapping

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
    path: ObjectPath | None = None
    """Where it stands, if the registry names it by a path, by another name or with an outcome."""
    is_callback: bool = False
    """Whether it is a function that is handed over to the driver, which calls it."""
    decorated: bool = False
    """Whether the class marks it itself. Then its return hint is a promise of its author to callers; that of a method
    which only the registry marks may be wrong, and nobody here can mend it."""

    def stands_at(self, path: ObjectPath) -> bool:
        """Whether it is what stands at a path, however that is written, with the arguments that it is given."""
        fixed = isinstance(self.accessor, PathMethod) and self.accessor.is_fixed
        return self.path is not None and self.path.steps == path.steps and not fixed

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
    def streams(self) -> bool:
        """Whether a thread of its own calls it again and again."""
        return any(mark.stream for mark in self.marks)

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
    callbacks: tuple[CallbackSpec, ...] = ()
    alarms: tuple[AlarmSpec, ...] = ()
    """Each under the name of the method, or of the property, whose values it looks at."""

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
    plain = [path for path in (*wrapping.marks, *wrapping.limits) if path.isidentifier()]
    _check_methods_exist(cls, plain)
    moved = {path for path in wrapping.marks if _is_moved(path, wrapping)}
    methods = [
        MethodSpec(name, marks, wrapping.limits.get(name, {}), decorated=bool(_decorated(cls, name)))
        for name in _attribute_names(cls)
        if name not in moved and (marks := _marks(cls, name, wrapping.marks.get(name, ())))
    ]
    methods += [_moved(cls, path, wrapping) for path in wrapping.marks if path in moved]
    methods = [part for method in methods for part in _split(cls, method, wrapping)]
    _check_limits_apply(cls, wrapping, {method.name for method in methods}, moved)
    properties = (*_marked_properties(cls, wrapping), *wrapping.properties.values())
    for wanted in properties:
        methods += _accessors(cls, wanted)
    for callback in wrapping.callbacks.values():
        methods.append(MethodSpec(callback.name, callback.marks, accessor=handed_over(cls, callback), is_callback=True))
    methods = [
        replace(method, marks=tuple(_with_wishes(mark, wrapping) for mark in method.marks)) for method in methods
    ]
    _check_names(cls, methods)
    callbacks = tuple(wrapping.callbacks.values())
    alarms = tuple(_alarms(cls, methods, wrapping))
    return ClassSpec(cls.__name__, class_path_of(cls), tuple(methods), properties, wrapping.care, callbacks, alarms)


def _alarms(cls: type, methods: Iterable[MethodSpec], wrapping: Wrapping) -> Iterator[AlarmSpec]:
    """The alarm of each property, and of each use of a method."""
    listed = list(methods)
    for written, options in wrapping.alarms.items():
        if written in wrapping.properties:
            names = [wrapping.properties[written].name]
        else:
            steps = parse_path(written).steps
            names = [m.name for m in listed if (m.path.steps == steps if m.path is not None else m.name == written)]
        if not names:
            raise MarkError(
                f"the registry has an alarm of {class_path_of(cls)}.{written}, which has no decorator: nothing calls it"
            )
        for name in names:
            unit = options.get("unit") or (wrapping.outcomes.get(written, AS_IT_IS).unit)
            yield AlarmSpec.from_options(name, options["alarm"], options.get("on_alarm"), unit)


def _is_moved(path: str, wrapping: Wrapping) -> bool:
    """Whether the registry's method is not simply the class's own, under its own name."""
    outcome = wrapping.outcomes.get(path)
    if path in wrapping.loops:
        return True
    return not path.isidentifier() or path in wrapping.names or (outcome is not None and outcome.changes)


def _moved(cls: type, written: str, wrapping: Wrapping) -> MethodSpec:
    """A method that the registry names by a path, by another name or with an outcome."""
    path = parse_path(written)
    name = wrapping.names.get(written, path.as_name)
    listed = wrapping.marks[written]
    own = _marks(cls, written, listed, name) if path.is_plain else listed
    marks = tuple(_with_topic(mark, f"{cls.__name__}.{mark.name or name}") for mark in own)
    outcome = wrapping.outcomes.get(written, AS_IT_IS)
    accessor = PathMethod(cls, path, name, outcome, on_loop=written in wrapping.loops)
    return MethodSpec(name, marks, wrapping.limits.get(written, {}), accessor, path=path)


def _split(cls: type, method: MethodSpec, wrapping: Wrapping) -> Iterator[MethodSpec]:
    """A method, and each of its uses that has arguments of its own as a method by itself."""
    own = [mark for mark in method.marks if mark.name is not None]
    rest = tuple(mark for mark in method.marks if mark.name is None)
    if rest or not own:
        yield replace(method, marks=rest)
    path = method.path or ObjectPath(method.name, (PathStep("name", method.name),))
    for mark in own:
        assert mark.name is not None
        outcome = wrapping.outcomes.get(path.text, AS_IT_IS)
        on_loop = path.text in wrapping.loops
        accessor = PathMethod(cls, path, mark.name, outcome, mark.args, mark.kwargs, on_loop, method.limits)
        yield MethodSpec(mark.name, (mark,), accessor=accessor, path=path)


def _check_names(cls: type, methods: Iterable[MethodSpec]) -> None:
    seen: dict[str, MethodSpec] = {}
    for method in methods:
        if method.name in seen:
            raise MarkError(
                f"the registry gives {class_path_of(cls)} the name {method.name!r} twice; give one of them another by"
                " as:"
            )
        seen[method.name] = method


def _marked_properties(cls: type, wrapping: Wrapping) -> Iterator[PropertySpec]:
    """The properties whose functions are marked in the source; those that the registry names are the registry's."""
    for name in _attribute_names(cls):
        static = inspect.getattr_static(cls, name)
        if isinstance(static, property) and name not in wrapping.properties:
            reader, setter = marks_of(static.fget), marks_of(static.fset)
            if reader or setter:
                yield PropertySpec(ObjectPath(name, (PathStep("name", name),)), name, reader, setter, NO_LIMIT)


def _accessors(cls: type, wanted: PropertySpec) -> Iterator[MethodSpec]:
    """A property's reader and setter, as methods."""
    path = None if wanted.is_plain else wanted.path
    if wanted.reader:
        marks = tuple(_with_topic(mark, f"{cls.__name__}.{wanted.name}") for mark in wanted.reader)
        unit = Limit(unit=wanted.limit.unit)
        read = readable(cls, wanted.name) if wanted.is_plain else path_reader(cls, wanted)
        yield MethodSpec(wanted.name, marks, accessor=read, reads=True, result=unit, path=path)
    if wanted.setter:
        name = SETTER + wanted.name
        if callable(getattr(cls, name, None)):
            raise MarkError(
                f"the registry makes the property {wanted.name!r} of {class_path_of(cls)} settable, but the class has a"
                f" method {name!r} already: list that one under methods"
            )
        marks = tuple(_with_topic(mark, f"{cls.__name__}.{name}") for mark in wanted.setter)
        write = settable(cls, wanted.name) if wanted.is_plain else path_setter(cls, wanted)
        yield MethodSpec(name, marks, {"value": wanted.limit}, write, path=path)


def _check_limits_apply(cls: type, wrapping: Wrapping, marked: set[str], moved: set[str]) -> None:
    for name in wrapping.limits:
        if name not in marked and name not in moved:
            raise MarkError(
                f"the registry limits arguments of {class_path_of(cls)}.{name}, which"
                " has no decorator: nobody can call it"
            )


def _attribute_names(cls: type) -> Iterable[str]:
    """Names in the order of definition, base classes first."""
    return dict.fromkeys(name for klass in reversed(cls.__mro__) for name in vars(klass))


def _marks(cls: type, name: str, listed: tuple[Mark, ...], known_as: str = "") -> tuple[Mark, ...]:
    kinds = {mark.kind for mark in listed}
    decorated = _decorated(cls, name)
    marks = (*(mark for mark in decorated if mark.kind not in kinds), *listed)
    return tuple(_with_topic(mark, f"{cls.__name__}.{mark.name or known_as or name}") for mark in marks)


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
