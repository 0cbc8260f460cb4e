"""Proxies: local objects with the methods of a remote object, made from the remote object's announcement alone.

Promises: a proxy follows its instance: what that has gained by a restart can be called. Names, signatures and
docstrings are the remote method's own, so `help()`, `inspect.signature` and a notebook's completion are right. A call
that does not fit the remote signature is refused here, before anything is sent. Arguments travel by name. The time-
out belongs to the proxy (`ether.instance("camera1", timeout_s=5)`) and not to a call, because every keyword of a call
is the method's own.

The trap: announcements come from the network. Announced names only become attributes of a class made for this proxy,
never code. Names that Python itself would call (`__init__`, `__del__`) are left out.
"""

from __future__ import annotations

import difflib
import dis
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from keyword import iskeyword
from types import FrameType
from typing import Any

from ether.spec.descriptions import MethodDescription
from ether.spec.signatures import open_parameter

Call = Callable[[str, dict[str, Any]], Any]
"""Called with the method's name and its arguments by name; returns what the proxy's method returns."""

Renew = Callable[[], "Proxy | None"]
"""A proxy of the methods that the instance has now; None where nothing has changed."""

_ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_CACHE, _GET_AWAITABLE = dis.opmap.get("CACHE", 0), dis.opmap["GET_AWAITABLE"]
_FACTS = "_ether_proxy"
_MODULE = "ether"


@dataclass(frozen=True, slots=True)
class _Facts:
    name: str
    class_name: str
    methods: tuple[str, ...]
    state: Callable[[], str] | None
    renew: Renew | None


class Proxy:
    """Stands for an object in another process. It has the remote methods and nothing else."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return sorted(_facts(_renewed(self) or self).methods)

    def __repr__(self) -> str:
        facts = _facts(self)
        title = facts.name if facts.name == facts.class_name else f"{facts.name}: {facts.class_name}"
        state = facts.state() if facts.state is not None else ""
        return f"<{title} {state}>" if state else f"<{title}>"

    def __getattr__(self, name: str) -> Any:
        """A method that this proxy was made without: the instance may have been restarted with it since."""
        renewed = None if name.startswith("_") else _renewed(self)
        if renewed is not None and name in _facts(renewed).methods:
            return getattr(renewed, name)
        raise AttributeError(_no_such_method(_facts(renewed or self), name))


def make_proxy(
    call: Call,
    name: str,
    class_name: str,
    doc: str,
    methods: Mapping[str, MethodDescription],
    *,
    state: Callable[[], str] | None = None,
    renew: Renew | None = None,
) -> Proxy:
    """A proxy whose methods bind their arguments and pass them to `call`.

    `name` is the instance's name, or, where any instance of a class will do, the class's. Every `repr` calls `state`
    for the text after the class's name, such as "on bench-pc, ready". `renew` is asked where a method is missing, or
    arguments do not fit.
    """
    usable = {method: described for method, described in methods.items() if _is_usable(method)}
    title = class_name if class_name.isidentifier() else "Remote"
    body: dict[str, Any] = {
        "__slots__": (),
        "__module__": _MODULE,
        "__doc__": doc or None,
        _FACTS: _Facts(name, class_name, tuple(usable), state, renew),
    }
    for method, described in usable.items():
        body[method] = staticmethod(_remote_method(call, title, method, described, renew))
    proxy: Proxy = type(title, (Proxy,), body)()
    return proxy


def _facts(proxy: Proxy) -> _Facts:
    facts: _Facts = vars(type(proxy))[_FACTS]
    return facts


def _renewed(proxy: Proxy) -> Proxy | None:
    renew = _facts(proxy).renew
    return None if renew is None else renew()


def _is_usable(name: str) -> bool:
    special = name.startswith("__") and name.endswith("__")
    return name.isidentifier() and not iskeyword(name) and not special and name != _FACTS


def _no_such_method(facts: _Facts, name: str) -> str:
    nearest = difflib.get_close_matches(name, facts.methods, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    known = f" It has {', '.join(facts.methods)}." if facts.methods else " It has no methods to call."
    return f"{facts.name} ({facts.class_name}) has no method {name!r} to call.{hint or known}"


def _remote_method(
    call: Call, class_name: str, name: str, described: MethodDescription, renew: Renew | None
) -> Callable[..., Any]:
    signature = described.to_signature()
    qualified = f"{class_name}.{name}"

    def method(*args: Any, **kwargs: Any) -> Any:
        if _is_awaited(sys._getframe(1)):
            raise TypeError(
                f"{qualified}() waits for the answer itself, and returns a value: call it without `await`, or"
                f" `await ether.aget(…, {name!r}, …)`. Nothing was called"
            )
        try:
            params = _by_name(signature, args, kwargs)
        except TypeError as error:
            renewed = None if renew is None else renew()
            if renewed is not None and name in _facts(renewed).methods:
                return getattr(renewed, name)(*args, **kwargs)
            meant = _meant(signature, kwargs)
            hint = f" Did you mean {meant!r}?" if meant else ""
            if meant and "unexpected" not in str(error):
                wrong = next(name for name in kwargs if name not in signature.parameters)
                error = TypeError(f"{error}, and it takes no {wrong!r}")
            raise TypeError(f"{qualified}(): {error}.{hint} Its signature is {name}{signature}") from None
        return call(name, params)

    method.__name__, method.__qualname__, method.__module__ = name, qualified, _MODULE
    method.__doc__ = described.doc or None
    method.__annotations__ = _annotations(signature)
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


def _is_awaited(caller: FrameType) -> bool:
    """Whether the caller's next step is to await what it is given: `await cam.snap()` would fail behind the call, when
    the remote method has run. Only coroutines pay for the look."""
    code = caller.f_code
    if not code.co_flags & _ASYNCHRONOUS:
        return False
    following = code.co_code[caller.f_lasti + 2 :: 2]
    return next((op for op in following if op != _CACHE), None) == _GET_AWAITABLE


def _meant(signature: inspect.Signature, kwargs: dict[str, Any]) -> str | None:
    """The parameter that the first keyword without one was probably meant to be."""
    wrong = next((name for name in kwargs if name not in signature.parameters), None)
    return None if wrong is None else next(iter(difflib.get_close_matches(wrong, signature.parameters, n=1)), None)


def _annotations(signature: inspect.Signature) -> dict[str, Any]:
    annotations = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    annotations["return"] = signature.return_annotation
    return {name: text for name, text in annotations.items() if text is not inspect.Parameter.empty}


def _by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names; raises `TypeError` where they do not fit the signature."""
    params: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    given = signature.bind(*args, **kwargs).arguments
    tells_nothing = open_parameter(signature.parameters.values())
    for name, parameter in signature.parameters.items():
        if name not in given:
            _check_may_be_missing(parameter)
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            rest = given[name]
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            params[name] = given[name]
        elif name == tells_nothing:
            params[name] = list(given[name])
        elif given[name]:
            raise TypeError(f"arguments travel by name, and those of *{name} have none")
    if twice := sorted(params.keys() & rest.keys()):
        raise TypeError(f"{twice[0]!r} is given by position and by name, and arguments travel by name")
    return params | rest


def _check_may_be_missing(parameter: inspect.Parameter) -> None:
    """Raise `TypeError` for a required argument that was not given. `Signature.bind` does this itself, except that
    Python 3.13.0 binds `f(a=1)` to `f(a, /, **rest)` as if `a` had been given."""
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if parameter.default is inspect.Parameter.empty and parameter.kind not in any_number:
        raise TypeError(f"missing a required argument: {parameter.name!r}")
