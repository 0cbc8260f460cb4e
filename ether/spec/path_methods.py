"""Functions for what the registry names by path, by another name, with arguments of its own or with an outcome: read a
property, set it, call a method.

Promise: each call follows the path anew, so that a channel that the driver has made again is found. Coroutines are
awaited before anything is taken of their result. The trap: the class alone does not tell what stands at a path. The
signature of such a function is that of the method where the object shows it without running any code of the driver;
otherwise it takes what it is given, by position and by name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ether.config.path_text import ObjectPath, PathStep
from ether.spec.accessors import property_hint
from ether.spec.outcomes import AS_IT_IS, Outcome, is_quantity, number_in
from ether.spec.paths import NOT_KNOWN, follow, known_at, put
from ether.spec.signatures import UNKNOWN, signature_of
from ether.spec.wrapping import SETTER, AccessCall, CallbackSpec, Limit, PropertySpec

Accessor = Callable[[object], Callable[..., Any]]
"""Makes the function of an object."""


@dataclass(frozen=True, slots=True)
class PathMethod:
    """A method at a path, under `name`; with `args` or `kwargs` it takes no others."""

    cls: type
    path: ObjectPath
    name: str
    outcome: Outcome = AS_IT_IS
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    on_loop: bool = False
    """Whether the method needs a running event loop, although it is no `async def`."""
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """Those of the arguments that it has of its own."""

    @property
    def is_fixed(self) -> bool:
        """Whether it has arguments of its own."""
        return bool(self.args or self.kwargs)

    def __call__(self, obj: object) -> Callable[..., Any]:
        """The function of an object; None stands for any object of the class."""
        return self._of(obj, known_at(self.cls if obj is None else obj, self.path))

    def live(self, obj: object) -> Callable[..., Any]:
        """The same function, with the signature of what stands at the path now. Runs the driver's code on the way."""
        return self._of(obj, follow(obj, self.path))

    def _of(self, obj: object, known: Any) -> Callable[..., Any]:
        path, outcome, full = self.path, self.outcome, f"{self.cls.__name__}.{self.name}"
        args, kwargs, fixed = self.args, self.kwargs, self.is_fixed
        on_loop = self.on_loop

        def call(*given: Any, **named: Any) -> Any:
            method = follow(obj, path)
            if fixed:
                given, named = args, dict(kwargs)
            if on_loop:
                return _on_loop(method, given, named, outcome, full)
            return finished(method(*given, **named), outcome, full)

        if known is not NOT_KNOWN and callable(known):
            functools.update_wrapper(call, known)
        annotations = {} if fixed or self.outcome.changes else dict(getattr(call, "__annotations__", {}))
        if self.outcome.changes and not fixed:
            annotations = {k: v for k, v in getattr(call, "__annotations__", {}).items() if k != "return"}
        signature = signature_of(known) if known is not NOT_KNOWN and callable(known) else UNKNOWN
        call.__name__, call.__qualname__, call.__annotations__ = self.name, full, annotations
        call.__module__ = self.cls.__module__
        call.__signature__ = inspect.Signature() if fixed else signature  # type: ignore[attr-defined]
        return call


def path_reader(cls: type, wanted: PropertySpec) -> Accessor:
    """Reads what stands at a property's path: by itself, or by a method of it."""
    full, by = f"{cls.__name__}.{wanted.name}", wanted.read_by

    def of(obj: object) -> Callable[..., Any]:
        def read() -> Any:
            value = follow(obj, wanted.path)
            if by is not None:
                value = _method_of(value, by, wanted.path)(*by.args, **by.kwargs)
            return finished(value, wanted.outcome, full, wanted.limit.unit)

        read.__name__, read.__qualname__, read.__module__ = wanted.name, full, cls.__module__
        read.__annotations__ = {}
        return read

    return of


def path_setter(cls: type, wanted: PropertySpec) -> Accessor:
    """Sets what stands at a property's path: by itself, or by a method of it."""
    name, by = SETTER + wanted.name, wanted.set_by

    def of(obj: object) -> Callable[..., Any]:
        def write(value: Any) -> Any:
            if by is None:
                put(obj, wanted.path, value)
                return None
            method = _method_of(follow(obj, wanted.path), by, wanted.path)
            result = method(value, *by.args, **by.kwargs)
            return _nothing_after(result) if inspect.isawaitable(result) else None

        write.__name__, write.__qualname__, write.__module__ = name, f"{cls.__name__}.{name}", cls.__module__
        write.__annotations__ = {"value": _hint_at(obj, wanted)} if _hint_at(obj, wanted) is not Any else {}
        return write

    return of


def handed_over(cls: type, callback: CallbackSpec) -> Accessor:
    """The function that the driver calls: it returns what is to be published."""
    full = f"{cls.__name__}.{callback.name}"

    def of(obj: object) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            value: Any = {**dict(enumerate(args)), **kwargs} if args and kwargs else kwargs or list(args)
            if not kwargs and len(args) < 2:
                value = args[0] if args else None
            return callback.outcome.of(value, full)

        called.__name__, called.__qualname__, called.__module__ = callback.name, full, cls.__module__
        return called

    return of


def finished(result: Any, outcome: Outcome, name: str, unit: str = "") -> Any:
    """What is taken of a result: of a coroutine a coroutine, of a generator a generator that takes it. A quantity
    becomes its number in `unit`."""
    if inspect.isasyncgen(result):
        return _each_later(result, outcome, name, unit)
    if inspect.isgenerator(result):
        return _each(result, outcome, name, unit)
    if inspect.isawaitable(result):
        return _finished_later(result, outcome, name, unit)
    value = outcome.of(result, name)
    return number_in(value, unit, name) if unit and not outcome.unit and is_quantity(value) else value


async def _on_loop(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], outcome: Outcome, name: str
) -> Any:
    result = method(*args, **kwargs)
    if inspect.isawaitable(result):
        result = await result
    return finished(result, outcome, name)


async def _finished_later(result: Awaitable[Any], outcome: Outcome, name: str, unit: str) -> Any:
    return finished(await result, outcome, name, unit)


def _each(results: Generator[Any, Any, Any], outcome: Outcome, name: str, unit: str) -> Iterator[Any]:
    with contextlib.closing(results):
        for result in results:
            yield finished(result, outcome, name, unit)


async def _each_later(results: AsyncGenerator[Any, Any], outcome: Outcome, name: str, unit: str) -> AsyncIterator[Any]:
    async with contextlib.aclosing(results):
        async for result in results:
            yield finished(result, outcome, name, unit)


async def _nothing_after(result: Awaitable[Any]) -> None:
    """What a setter returns is for nobody."""
    await result


def _method_of(value: Any, by: AccessCall, path: ObjectPath) -> Callable[..., Any]:
    step = PathStep("name", by.method)
    method: Callable[..., Any] = follow(value, ObjectPath(f"{path.text}.{by.method}", (step,)))
    return method


def _hint_at(obj: object, wanted: PropertySpec) -> Any:
    """The hint of a property of an object that can be told without running any code."""
    if wanted.set_by is not None or wanted.path.steps[-1].kind != "name":
        return Any
    holder = known_at(obj, ObjectPath(wanted.path.text, wanted.path.steps[:-1]))
    return Any if holder in (None, NOT_KNOWN) else property_hint(type(holder), str(wanted.path.steps[-1].key))
