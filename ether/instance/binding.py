"""Makes a hosted object's publishing methods publish whenever they are called, also by the object itself.

The class stays untouched: the wrappers are attributes of the one object. An object without a `__dict__` (its class has
`__slots__`) gets a subclass of its own instead, with the same name, module and docstring. `Overrides.remove` undoes
both.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import Any

from ether.instance.streams import STREAMS, Stream

Publish = Callable[..., None]
"""Called with the method's name, what it returned, and what `begin` has returned, if there is one. Of what a generator
yields the last is left out, because the generator goes on."""


def publishing(
    name: str, method: Callable[..., Any], publish: Publish, begin: Callable[[str], object] | None = None
) -> Callable[..., Any]:
    """A wrapper that calls the method and publishes its result. Where the method raises, it publishes nothing. What a
    generator yields is published as it is yielded, to whoever runs through it. `begin` is called with the method's name
    before the method."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            begun = () if begin is None else (begin(name),)
            result = await method(*args, **kwargs)
            if isinstance(result, STREAMS):
                return _publishing_each(name, result, publish)
            publish(name, result, *begun)
            return result

        return call_async

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = () if begin is None else (begin(name),)
        result = method(*args, **kwargs)
        if isinstance(result, STREAMS):
            return _publishing_each(name, result, publish)
        if inspect.iscoroutine(result):
            return _publishing_later(name, result, publish, begun)
        publish(name, result, *begun)
        return result

    return call


async def _publishing_later(
    name: str, coroutine: Coroutine[Any, Any, Any], publish: Publish, begun: tuple[object, ...]
) -> Any:
    """Of a method that is no `async def` itself, and returns what another one has begun."""
    result = await coroutine
    if isinstance(result, STREAMS):
        return _publishing_each(name, result, publish)
    publish(name, result, *begun)
    return result


def _publishing_each(name: str, stream: Stream, publish: Publish) -> Stream:
    if isinstance(stream, AsyncGenerator):
        return _publishing_each_async(name, stream, publish)
    return _publishing_each_now(name, stream, publish)


def _publishing_each_now(name: str, stream: Generator[Any, Any, Any], publish: Publish) -> Generator[Any, Any, Any]:
    try:
        value = next(stream)
        while True:
            publish(name, value)
            value = stream.send((yield value))
    except StopIteration as end:
        return end.value
    finally:
        stream.close()  # also where whoever runs through it stops early


async def _publishing_each_async(
    name: str, stream: AsyncGenerator[Any, Any], publish: Publish
) -> AsyncGenerator[Any, Any]:
    async with contextlib.aclosing(stream):
        async for value in stream:
            publish(name, value)
            yield value


class Overrides:
    """Wrappers that replace methods of one object, until `remove()`."""

    def __init__(self, obj: object, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._object = obj
        self._class = type(obj)
        self._names: tuple[str, ...] = ()
        if hasattr(obj, "__dict__"):
            for name, method in methods.items():
                object.__setattr__(obj, name, method)
            self._names = tuple(methods)
        elif methods:
            object.__setattr__(obj, "__class__", _subclass(self._class, methods))

    def remove(self) -> None:
        """Restore the object's own methods. A second call does nothing."""
        for name in self._names:
            vars(self._object).pop(name, None)
        if type(self._object) is not self._class:
            object.__setattr__(self._object, "__class__", self._class)
        self._names = ()


def _subclass(cls: type, methods: Mapping[str, Callable[..., Any]]) -> type:
    body: dict[str, Any] = {name: staticmethod(method) for name, method in methods.items()}
    body |= {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), body)
