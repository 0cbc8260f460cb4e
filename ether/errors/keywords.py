"""Public functions that name the nearest keyword where a call does not fit them, also for words that other tools use.

Python's own text names an inner class and no nearest keyword: `Calling.get() got an unexpected keyword argument
'timout_s'`. Promise: signatures, hints and docstrings stay; a call that fits costs one call of a function more. The
trap: a `TypeError` may also come from within the function. It is told apart by its traceback, which then goes deeper.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ether.errors.base import EtherError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "timeout_s": ("timeout", "wait", "wait_s", "deadline", "deadline_s", "seconds", "patience", "max_wait",
                  "timeout_ms", "timeout_sec", "secs"),
    "params": ("args", "arguments", "kwargs", "payload", "data", "body", "parameters"),
    "data": ("payload", "message", "msg", "value", "body", "content"),
    "value": ("payload", "data", "message", "result"),
    "topic": ("channel", "subject", "queue", "routing_key", "name", "stream", "event"),
    "name": ("topic", "key", "label", "title", "instance", "service"),
    "service": ("instance", "name", "target", "server", "class_name"),
    "method": ("function", "func", "name", "procedure", "call", "command"),
    "config": ("file", "path", "yaml", "configuration", "config_file", "settings", "filename"),
    "session": ("session_name", "name", "lab", "namespace", "room"),
    "broker": ("host", "url", "address", "server", "hostname", "broker_url", "uri"),
    "restart": ("reset", "force", "reload"),
    "takeover": ("force", "replace", "overwrite", "exist_ok"),
    "sim": ("simulate", "simulated", "simulation", "mock", "dry_run"),
    "save": ("record", "persist", "durable", "store"),
    "keep": ("queue_size", "maxsize", "maxlen", "buffer", "history", "conflate", "latest"),
    "max_age": ("ttl", "expires", "expiry", "lifespan", "stale_after", "max_age_s"),
    "every": ("interval", "period", "rate", "freq", "frequency", "hz", "schedule", "cron"),
    "concurrency": ("threads", "workers", "max_workers", "max_concurrency", "parallel"),
    "since": ("start", "begin", "after", "from_", "start_time"),
    "until": ("end", "stop", "before", "to", "end_time"),
    "where": ("filter", "query", "condition", "predicate"),
    "condition": ("predicate", "where", "until", "filter", "check"),
    "speed": ("rate", "speedup", "factor"),
    "as_topic": ("to", "topic_as", "target_topic"),
    "reason": ("why", "message", "text"),
    "text": ("message", "msg", "description"),
    "fraction": ("progress", "percent", "value", "done"),
    "call_id": ("id", "call", "handle", "future"),
    "obj": ("object", "instance", "target"),
    "dead_band": ("deadband", "threshold", "tolerance", "delta"),
    "resume": ("restart", "continue_"),
}  # fmt: skip
"""For each keyword what other tools, or people, call the same. Taken only where the function has the keyword."""


class WrongCall(EtherError, TypeError):
    """A call that does not fit the function. `function` is its name; `nearest` the keyword that was probably meant."""

    def __init__(self, function: str, problem: str, takes: str, nearest: str | None = None) -> None:
        self.function, self.problem, self.nearest = function, problem, nearest
        hint = f" Did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"{function}() {problem}.{hint} It is {takes}")


def probably_meant(word: str, known: list[str]) -> str | None:
    """The keyword that a free name was probably meant to be, by its letters alone; None for most words."""
    import difflib

    return next(iter(difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.8)), None)


def nearest_keyword(word: str, known: list[str]) -> str | None:
    """The keyword that was probably meant: by its letters, or as other tools call it."""
    import difflib  # loaded only where there is a mistake

    meant = [keyword for keyword in known if word.lower() in OTHER_WORDS.get(keyword, ())]
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.75)
    return next(iter([*near, *meant, *difflib.get_close_matches(word.lower(), known, n=1)]), None)


def names_keywords(title: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: a call that does not fit raises `WrongCall`, under this title of the function."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if "timeout_s" in kwargs and not _is_duration(kwargs["timeout_s"]):
                raise WrongCall(title, f"takes seconds from 0 as timeout_s, not {kwargs['timeout_s']!r}", f"{title}(…)")
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                    raise _wrong_call(title, function, args, kwargs, error) from None
                raise

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await call(*args, **kwargs)  # type: ignore[misc]

        return call_async if inspect.iscoroutinefunction(function) else call  # type: ignore[return-value]

    return wrap


def _is_duration(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and value >= 0)


def named_keywords(title: str) -> Callable[[type[T]], type[T]]:
    """A class decorator: the same for all public methods of a class, its bases' included."""

    def wrap(cls: type[T]) -> type[T]:
        for name in dir(cls):
            found = inspect.getattr_static(cls, name)
            if name.startswith("_") or not isinstance(found, (staticmethod, type(wrap))):
                continue
            wrapped: Any = names_keywords(f"{title}.{name}")
            if isinstance(found, staticmethod):
                setattr(cls, name, staticmethod(wrapped(found.__func__)))
            else:
                setattr(cls, name, wrapped(found))
        return cls

    return wrap


def _wrong_call(
    title: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> WrongCall:
    signature = inspect.signature(function)
    hidden = ("self", "function")  # the object, and the function that a decorator is put on
    parameters = [p for p in signature.parameters.values() if p.name not in hidden]
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes = f"{title}({', '.join(_shown(p) for p in parameters)})"
    wrong = next((name for name in kwargs if name not in known), None)
    if wrong is not None:
        return WrongCall(title, f"takes no {wrong!r}", takes, nearest_keyword(wrong, known))
    try:
        signature.bind(*args, **kwargs)
    except TypeError as problem:
        text = str(problem).replace("missing a required argument:", "lacks the argument")
        return WrongCall(title, f"does not fit: {text}", takes)
    return WrongCall(title, str(error), takes)


def _shown(parameter: inspect.Parameter) -> str:
    """A parameter with its default, without its hint."""
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" * (parameter.kind is parameter.VAR_KEYWORD)
    default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
    return f"{stars}{parameter.name}{default}"
