"""Properties of a driver as functions: a reader without arguments, and a setter with one, `value`.

Promise: the property itself decides what reading and setting do; no value is stored here. Hints come from the
property's own functions, or from the class's annotations. The trap: an attribute that `__init__` creates is visible on
the object alone, so `check_property` needs the object.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable
from typing import Any

from ether.errors import MarkError
from ether.spec.hints import resolved_hints
from ether.spec.wrapping import SETTER, PropertySpec


def readable(cls: type, name: str) -> Callable[[object], Callable[[], Any]]:
    """A function that makes the reader of an object's property."""
    hint = property_hint(cls, name)

    def of(obj: object) -> Callable[[], Any]:
        def read() -> Any:
            return getattr(obj, name)

        read.__annotations__ = {} if hint is Any else {"return": hint}
        _rename(read, name, cls, name)
        return read

    return of


def settable(cls: type, name: str) -> Callable[[object], Callable[[Any], None]]:
    """A function that makes the setter of an object's property."""
    hint = property_hint(cls, name)

    def of(obj: object) -> Callable[[Any], None]:
        def write(value: Any) -> None:
            setattr(obj, name, value)

        write.__annotations__ = {"return": None} if hint is Any else {"value": hint, "return": None}
        _rename(write, SETTER + name, cls, name)
        return write

    return of


def check_property(cls: type, wanted: PropertySpec, obj: object) -> None:
    """Raises `MarkError` where the registry's property does not exist, is a method, or lacks the access that is wanted.

    The class is looked at with `getattr_static`, because reading the attribute would run a property's getter, which may
    talk to the device. A name counts as present where the class has it (whatever its kind), where the object has it in
    its `__dict__`, or where the class has `__getattr__`, which may answer for any name.
    """
    static = inspect.getattr_static(cls, wanted.name, None)
    where = f"the registry names the property {wanted.name!r} of {cls.__module__}.{cls.__qualname__}"
    if callable(static) or isinstance(static, (staticmethod, classmethod)):
        raise MarkError(f"{where}, which is a method: it belongs under methods")
    if static is None and wanted.name not in getattr(obj, "__dict__", {}) and not hasattr(cls, "__getattr__"):
        nearest = difflib.get_close_matches(wanted.name, [*dir(cls), *getattr(obj, "__dict__", {})], n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise MarkError(f"{where}, but there is none.{hint}")
    if isinstance(static, property):
        if wanted.setter and static.fset is None:
            raise MarkError(f"{where} as settable, but it can only be read")
        if wanted.reader and static.fget is None:
            raise MarkError(f"{where} as readable, but it can only be set")


def _rename(function: Callable[..., Any], name: str, cls: type, attribute: str) -> None:
    function.__name__, function.__qualname__ = name, f"{cls.__qualname__}.{name}"
    function.__module__ = cls.__module__
    static = inspect.getattr_static(cls, attribute, None)
    function.__doc__ = inspect.getdoc(static) if isinstance(static, property) else None


def property_hint(cls: type, name: str) -> Any:
    static = inspect.getattr_static(cls, name, None)
    if isinstance(static, property):
        return resolved_hints(static.fget).get("return", Any) if static.fget is not None else Any
    try:
        return typing.get_type_hints(cls, include_extras=True).get(name, Any)
    except Exception:  # noqa: BLE001  a hint is an expression of the user's; without one, nothing is checked
        return Any
