"""Makes the object of an instance: by its class, by a function or a factory of the class, or by a method of another
object; with arguments that may be objects themselves (`ether.config.builds`).

Promise: what cannot be found, called, or does not take its arguments is a `ConfigError` at its place below the
instance; what foreign code raises is raised as it is. The trap: everything here runs foreign code, and may hang; the
launcher's time-out for the start covers that.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ether.config.builds import BUILD, CALL, OF, PLAIN, USE, is_object
from ether.config.path_text import parse_path
from ether.connection.assembly import Registry, describe_with_registry
from ether.errors import ConfigError
from ether.instance.async_runner import CoroutineRunner
from ether.instance.class_loading import find_maker, find_target
from ether.spec.methods import ClassSpec, class_path_of
from ether.spec.paths import PathNotFound, follow

BadCall = Callable[[str, inspect.Signature, Sequence[Any], Mapping[str, Any]], ConfigError | None]
"""Words the fault of arguments that a signature does not take; None where it finds none."""


def _no_fault(title: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    return None


@dataclass(slots=True)
class Builder:
    """Makes objects. `script` is the file that the main program runs."""

    script: str | None = None
    bad_call: BadCall = _no_fault

    def instance(
        self,
        target: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        build: Mapping[str, Any] | None,
    ) -> Any:
        """The object of an instance whose `class_path` leads to `target`; `build` as the configuration says it."""
        if not build or not build.get(CALL):
            return self._called(target, _title(target), self.plain(args, "args"), self.plain(kwargs, "kwargs"), "")
        holder = self.made(build[OF], f"build.{OF}") if build.get(OF) else target
        method = _method_of(holder, str(build[CALL]), f"build.{CALL}")
        own = bool(build.get("args") or build.get("kwargs"))
        place = "build." if own else ""
        given = self.plain((build.get("args") or ()) if own else args, f"{place}args")
        named = self.plain((build.get("kwargs") or {}) if own else kwargs, f"{place}kwargs")
        return self._called(method, f"{_title(holder)}.{build[CALL]}", given, named, place)

    def plain(self, value: Any, place: str) -> Any:
        """A value in which each object is made."""
        if is_object(value):
            return self.made(value, place)
        if isinstance(value, Mapping):
            return {key: self.plain(each, f"{place}.{key}") for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)([self.plain(each, f"{place}.{number}") for number, each in enumerate(value)])
        return value

    def made(self, value: Mapping[str, Any], place: str) -> Any:
        """One object."""
        if PLAIN in value:
            return value[PLAIN]
        if USE in value:
            return self._found(str(value[USE]), f"{place}.{USE}")
        if OF in value:
            target, title = self.made(value[OF], f"{place}.{OF}"), str(value[CALL])
        else:
            target, title = self._found(str(value[BUILD]), f"{place}.{BUILD}"), str(value[BUILD])
        if value.get(CALL):
            target = _method_of(target, str(value[CALL]), f"{place}.{CALL}")
            title = str(value[CALL]) if OF in value else f"{title}.{value[CALL]}"
        args = self.plain(value.get("args") or (), f"{place}.args")
        return self._called(target, title, args, self.plain(value.get("kwargs") or {}, f"{place}.kwargs"), f"{place}.")

    def _found(self, path: str, place: str) -> Any:
        try:
            return find_target(path, self.script)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.problem}", path=place, nearest=error.nearest) from error

    def _called(
        self, target: Any, title: str, args: Sequence[Any], kwargs: Mapping[str, Any], place: str
    ) -> Any:  # fmt: skip
        if not callable(target):
            raise ConfigError(f"{title} is a {type(target).__name__}, which cannot be called", path=f"{place}call")
        try:
            return target(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # it was called
            try:
                signature = inspect.signature(target)
            except (ValueError, TypeError):  # some callables written in C have no signature
                raise error from None
            fault = self.bad_call(title, signature, args, kwargs)
            if fault is None:
                raise
            raise ConfigError(fault.problem, path=f"{place}{fault.path or 'args'}") from error


@dataclass(slots=True)
class Entered:
    """A context manager that was entered for an instance, until `leave()`."""

    manager: Any
    run: Callable[[Any], Any]
    """Runs a coroutine to its end."""
    obj: Any = field(init=False)
    """What entering has returned: the device."""

    def __post_init__(self) -> None:
        cls = type(self.manager)
        if callable(getattr(cls, "__enter__", None)):
            self.obj = cls.__enter__(self.manager)
        elif callable(getattr(cls, "__aenter__", None)):
            self.obj = self.run(cls.__aenter__(self.manager))
        else:
            raise ConfigError(f"a {cls.__qualname__} is no context manager: it has no __enter__", path="enter")
        self.obj = self.manager if self.obj is None else self.obj

    def leave(self) -> None:
        """Leave it. Raises whatever it raises."""
        cls = type(self.manager)
        if callable(getattr(cls, "__enter__", None)):
            cls.__exit__(self.manager, None, None, None)
        else:
            self.run(cls.__aexit__(self.manager, None, None, None))


@dataclass(slots=True)
class BuiltObject:
    """The object of an instance, and how it was made, so that it can be made again."""

    obj: Any
    cls: type
    spec: ClassSpec
    coroutines: CoroutineRunner
    entered: Entered | None
    again: Callable[[], BuiltObject]

    def leave(self) -> None:
        """Leave the object, where it was entered. A second call does nothing. Raises whatever leaving raises."""
        entered, self.entered = self.entered, None
        if entered is not None:
            entered.leave()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the configuration says that an instance's object is made."""

    name: str
    class_path: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    build: Mapping[str, Any] | None
    registry: Registry

    def made(self, builder: Builder, coroutines: CoroutineRunner | None = None) -> BuiltObject:
        """The object. Raises `ConfigError`, `MarkError`, and whatever foreign code raises. A class whose entry of the
        registry is wrong is not called at all, where that can be told before."""
        target = find_maker(self.class_path, builder.script)
        runner = coroutines or CoroutineRunner(self.name)
        spec = self._described(target) if isinstance(target, type) and self._tells_before(target) else None
        if self.build and self.build.get("loop"):
            obj = runner.run(self._instance_later(builder, target))
        else:
            obj = builder.instance(target, self.args, self.kwargs, self.build)
        cls = target if isinstance(target, type) and isinstance(obj, target) else type(obj)
        entered = Entered(obj, runner.run) if self._enters(cls) else None
        if entered is not None and entered.obj is not obj:
            obj = entered.obj
            cls = type(obj)
        if spec is None or spec.class_path != class_path_of(cls):
            spec = self._described(cls)
        return BuiltObject(obj, cls, spec, runner, entered, lambda: self.made(builder, runner))

    async def _instance_later(self, builder: Builder, target: Callable[..., Any]) -> Any:
        """Makes the object where a loop runs: some constructors ask for it."""
        return builder.instance(target, self.args, self.kwargs, self.build)

    def _tells_before(self, target: type) -> bool:
        """Whether the class is certainly that of the object."""
        return not self.build and "__new__" not in _defined(target) and not self._enters(target)

    def _enters(self, cls: type) -> bool:
        paths = [*map(class_path_of, cls.__mro__), self.class_path]
        return any(self.registry[path].care.enter for path in paths if path in self.registry)

    def _described(self, cls: type) -> ClassSpec:
        return describe_with_registry(cls, self.class_path, self.registry)


def _title(target: Any) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))


def _method_of(holder: Any, call: str, place: str) -> Any:
    try:
        return follow(holder, parse_path(call))
    except PathNotFound as error:
        near = difflib.get_close_matches(call, dir(holder), n=1)
        problem = f"{_title(holder)} has no method {call!r}."
        raise ConfigError(problem, path=place, nearest=near[0] if near else None) from error


def _defined(cls: type) -> set[str]:
    """The names that a class and its bases define, those of `object` apart."""
    return {name for base in cls.__mro__ if base is not object for name in vars(base)}
