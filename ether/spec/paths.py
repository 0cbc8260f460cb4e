"""Follows a path of the registry into an object, and makes functions that read, set or call what stands there.

Promises: `follow` reads what stands at the path now, each time: a channel that a driver makes anew is found; a path
that leads nowhere is one sentence that names the step and the nearest name. The first trap: reading an attribute may
run a property that talks to the device, so before it is connected only `known_at` may be used, which runs nothing.
The second: a path through a module would lead out of the driver to everything that it imports, so it is refused.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from ether.config.path_text import ObjectPath, PathStep
from ether.errors import EtherError

_SHOWN_NAMES = 8
NOT_KNOWN = object()
"""What stands at a path cannot be told without running the driver's code."""


class PathNotFound(EtherError, LookupError):
    """A path of the registry leads nowhere. `step` is the one that fails, `why` says what is there instead."""

    def __init__(self, path: str, step: str, why: str) -> None:
        self.path, self.step, self.why = path, step, why
        super().__init__(f"the path {path!r} leads nowhere: {why}")


def follow(root: object, path: ObjectPath, *, without_last: bool = False) -> Any:
    """What stands at a path; `without_last`: what its last step starts from. Raises `PathNotFound`, and whatever the
    driver's own properties raise."""
    value, walked = root, ""
    for step in path.steps[:-1] if without_last else path.steps:
        value = _next(value, step, path, walked)
        walked = f"{walked}{step}".lstrip(".")
    return value


def check_there(root: object, path: ObjectPath) -> None:
    """Raises `PathNotFound` where a path leads nowhere. The last step is not taken: reading it may talk to the device,
    and waits for its time."""
    holder, last = follow(root, path, without_last=True), path.steps[-1]
    walked = "".join(map(str, path.steps[:-1])).lstrip(".")
    if last.kind == "item":
        _next(holder, last, path, walked)
    elif last.kind == "name" and not _has(holder, str(last.key)):
        raise PathNotFound(path.text, str(last), _nothing_there(holder, str(last.key), walked))


def known_at(root: object, path: ObjectPath) -> Any:
    """What stands at a path, as far as that can be told without running any code of the driver; else `NOT_KNOWN`."""
    value: Any = root
    for step in path.steps:
        value = _still(value, step)
        if value is NOT_KNOWN:
            return NOT_KNOWN
    return value


def sets_at(root: object, path: ObjectPath) -> bool:
    """Whether what stands at a path is set, rather than called: an attribute, an item or a property, and no method."""
    if path.steps[-1].kind != "name":
        return path.steps[-1].kind == "item"
    holder, name = follow(root, path, without_last=True), str(path.steps[-1].key)
    found = inspect.getattr_static(holder, name, None)
    return isinstance(found, property) or hasattr(type(found), "__set__") or not callable(getattr(holder, name, None))


def put(root: object, path: ObjectPath, value: Any) -> None:
    """Set what stands at a path. Raises `PathNotFound`, and whatever the driver raises."""
    holder, last = follow(root, path, without_last=True), path.steps[-1]
    if last.kind == "item":
        holder[last.key] = value
    elif last.kind == "name":
        setattr(holder, str(last.key), value)
    else:
        raise PathNotFound(path.text, str(last), "it ends with a call, which cannot be set")


def _next(value: Any, step: PathStep, path: ObjectPath, walked: str) -> Any:
    if isinstance(value, ModuleType):
        raise PathNotFound(path.text, str(step), f"{walked or 'it'} is a module, which is no part of the device")
    if step.kind == "call":
        return _called(value, path, walked)
    if step.kind == "item":
        return _item(value, step, path, walked)
    name = str(step.key)
    try:
        return getattr(value, name)
    except AttributeError as error:
        if _has(value, name) and not hasattr(type(value), "__getattr__"):
            raise  # the driver's own property has failed
        raise PathNotFound(path.text, str(step), _nothing_there(value, name, walked)) from error


def _called(value: Any, path: ObjectPath, walked: str) -> Any:
    if not callable(value):
        raise PathNotFound(path.text, "()", f"{walked or 'it'} is a {type(value).__name__}, which cannot be called")
    return value()


def _item(value: Any, step: PathStep, path: ObjectPath, walked: str) -> Any:
    try:
        return value[step.key]
    except (IndexError, KeyError) as error:
        raise PathNotFound(path.text, str(step), _no_item(value, step, walked)) from error
    except TypeError as error:
        if hasattr(type(value), "__getitem__"):
            raise
        why = f"{walked or 'it'} is a {type(value).__name__}, which has no items"
        raise PathNotFound(path.text, str(step), why) from error


def _no_item(value: Any, step: PathStep, walked: str) -> str:
    where = walked or "it"
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        near = difflib.get_close_matches(str(step.key), keys, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" It has {_listed(keys)}."
        return f"{where} has no item {step.key!r}.{hint}"
    size = f", it has {len(value)}" if isinstance(value, Sequence) else ""
    return f"{where} has no item {step.key!r}{size}"


def _nothing_there(value: Any, name: str, walked: str) -> str:
    names = _names_of(value)
    near = difflib.get_close_matches(name, names, n=1)
    public = [each for each in names if not each.startswith("_")]
    hint = f" Did you mean {near[0]!r}?" if near else f" It has {_listed(public)}."
    return f"{walked or 'the object'}, a {type(value).__name__}, has no {name!r}.{hint}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return (", ".join(names[:_SHOWN_NAMES]) or "nothing") + more


def _names_of(value: Any) -> list[str]:
    try:
        return list(dir(value))
    except Exception:  # noqa: BLE001  a foreign __dir__; the names are for a hint alone
        return []


def _has(value: Any, name: str) -> bool:
    """Whether an object has an attribute, without reading it where its class defines it."""
    found = inspect.getattr_static(value, name, NOT_KNOWN)
    return found is not NOT_KNOWN or (hasattr(type(value), "__getattr__") and hasattr(value, name))


def _still(value: Any, step: PathStep) -> Any:
    """One step without running code: plain attributes and methods, and items of lists, tuples and dicts."""
    if step.kind == "item":
        if type(value) in (list, tuple, dict):
            try:
                return value[step.key]
            except (LookupError, TypeError):
                return NOT_KNOWN
        return NOT_KNOWN
    if step.kind == "call" or isinstance(value, ModuleType):
        return NOT_KNOWN
    name = str(step.key)
    found = inspect.getattr_static(value, name, NOT_KNOWN)
    if found is NOT_KNOWN or not hasattr(type(found), "__get__"):
        return found
    if inspect.isfunction(found) or isinstance(found, (staticmethod, classmethod)):
        return found.__get__(value, type(value))
    return found if callable(found) and not hasattr(type(found), "__set__") else NOT_KNOWN
