"""The signature of any callable, also of those that have none.

Methods of classes written in C often tell nothing of their parameters, and the wrapper of a decorator in Python may
tell only `(*args, **kwargs)`. Both are called by position and by name, with what they are given (`open_parameter`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

UNKNOWN = inspect.Signature([inspect.Parameter("args", _VARIADIC[0]), inspect.Parameter("kwargs", _VARIADIC[1])])
"""Of a callable without a signature."""


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a callable; `UNKNOWN` where it has none."""
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        return UNKNOWN


def open_parameter(parameters: Iterable[inspect.Parameter]) -> str | None:
    """The name of `*args` where there is nothing else to be told of the parameters; None otherwise."""
    parameters = list(parameters)
    names = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    return names[0] if names and all(p.kind in _VARIADIC for p in parameters) else None
