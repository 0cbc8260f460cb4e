"""Makes a hosted object's publishing methods publish whenever they are called, also by the object itself.

The class stays untouched: the wrappers are attributes of the one object. An object without a `__dict__` (its class has
`__slots__`) gets a subclass of its own instead, with the same name, module and docstring. `Overrides.remove` undoes
both.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

Publish = Callable[[str, object], None]
"""Called with the method's name and what it returned."""


def publishing(name: str, method: Callable[..., Any], publish: Publish) -> Callable[..., Any]:
    """A wrapper that calls the method and publishes its result. Where the method raises, it publishes nothing."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            result = await method(*args, **kwargs)
            publish(name, result)
            return result

        return call_async

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        publish(name, result)
        return result

    return call


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
