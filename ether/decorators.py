"""The decorators. They only mark: the function that comes out is the function that went in.

Each works bare (`@ether_pub`) or called (`@ether_pub(topic="data")`), on functions, `async def`, static and class
methods, and several may share one method: `ether_sub` with `ether_pub` makes a pipeline stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ether.errors import MarkError
from ether.spec.marks import START_TOPIC, Mark, MarkKind, add_mark

F = TypeVar("F", bound=Callable[..., Any])


@overload
def ether_pub(function: F, /) -> F: ...
@overload
def ether_pub(
    *, topic: str | None = None, qos: int = 1, save: bool = False, every: str | None = None
) -> Callable[[F], F]: ...
def ether_pub(
    function: Any = None,
    /,
    *,
    topic: str | None = None,
    qos: int = 1,
    save: bool = False,
    every: str | None = None,
) -> Any:
    """Publish what the method returns to `topic` (default `ClassName.method`); `None` is an empty message.

    `qos` 1 arrives at least once while sender and broker live, 0 may be lost. With `save` it is on disk in the end,
    once, whatever is killed meanwhile (docs/saving.md). `every`: call it by itself, as `ether_every` does.
    """
    return _apply(Mark(MarkKind.PUB, topic, qos, save=save, every=every), function)


def ether_every(when: str, /) -> Callable[[F], F]:
    """Call the method again and again while the instance is ready: `@ether_every("5s")`, `"200ms"`, `"10Hz"`; as cron
    does: `"*/5 * * * *"`; once: `"at 2026-01-16 07:30"`.

    Periods begin at once and do not drift. A tick that cannot be run in time is missed: counted, logged, never made
    up for. Raises `MarkError` for what is no such text.
    """
    if not isinstance(when, str):
        raise MarkError('write @ether_every("5s"): a number and its unit, in quotes')
    mark = Mark(MarkKind.EVERY, every=when)
    return lambda decorated: _marked(mark, decorated)


@overload
def ether_sub(function: F, /) -> F: ...
@overload
def ether_sub(*, topic: str | None = None, qos: int = 1) -> Callable[[F], F]: ...
def ether_sub(function: Any = None, /, *, topic: str | None = None, qos: int = 1) -> Any:
    """Call the method with every message on `topic` (default `ClassName.method`; `+` and `#` are wildcards).

    A dict maps to arguments by name; anything else goes to the sole parameter or to the one named `root`.
    """
    return _apply(Mark(MarkKind.SUB, topic, qos), function)


@overload
def ether_start(function: F, /) -> F: ...
@overload
def ether_start() -> Callable[[F], F]: ...
def ether_start(function: Any = None, /) -> Any:
    """Call the method on `ether.start()`: the same as `ether_sub(topic="start")`."""
    return _apply(Mark(MarkKind.SUB, START_TOPIC), function)


@overload
def ether_get(function: F, /) -> F: ...
@overload
def ether_get(*, concurrency: int = 1) -> Callable[[F], F]: ...
def ether_get(function: Any = None, /, *, concurrency: int = 1) -> Any:
    """Answer `ether.get(…)`: the caller receives what the method returns, or a `RemoteError` with what it raises.

    `concurrency`: how many calls of this method may run at the same time, on threads of their own where more than 1.
    """
    return _apply(Mark(MarkKind.GET, concurrency=concurrency), function)


@overload
def ether_save(function: F, /) -> F: ...
@overload
def ether_save(*, concurrency: int = 1) -> Callable[[F], F]: ...
def ether_save(function: Any = None, /, *, concurrency: int = 1) -> Any:
    """Answer `ether.save(…)`: the caller receives a dict that says `success` or `error`, whatever the method did."""
    return _apply(Mark(MarkKind.SAVE, concurrency=concurrency), function)


@overload
def ether_sync(function: F, /) -> F: ...
@overload
def ether_sync(*, topic: str | None = None) -> Callable[[F], F]: ...
def ether_sync(function: Any = None, /, *, topic: str | None = None) -> Any:
    """Take part in `ether.sync(topic)` (default `ClassName.method`), which waits for all who do."""
    return _apply(Mark(MarkKind.SYNC, topic), function)


@overload
def ether_init(function: F, /) -> F: ...
@overload
def ether_init() -> Callable[[F], F]: ...
def ether_init(function: Any = None, /) -> Any:
    """Call the method once in the instance's process, when it is connected and before it counts as ready."""
    return _apply(Mark(MarkKind.INIT), function)


@overload
def ether_save_all(function: F, /) -> F: ...
@overload
def ether_save_all() -> Callable[[F], F]: ...
def ether_save_all(function: Any = None, /) -> Any:
    """Call the method on `ether.save_all()` and, when work in flight has drained, at shutdown."""
    return _apply(Mark(MarkKind.SAVE_ALL), function)


@overload
def ether_cleanup(function: F, /) -> F: ...
@overload
def ether_cleanup() -> Callable[[F], F]: ...
def ether_cleanup(function: Any = None, /) -> Any:
    """Call the method on `ether.cleanup()` and at shutdown, after every `ether_save_all`."""
    return _apply(Mark(MarkKind.CLEANUP), function)


@overload
def ether_shutdown(function: F, /) -> F: ...
@overload
def ether_shutdown() -> Callable[[F], F]: ...
def ether_shutdown(function: Any = None, /) -> Any:
    """Call the method last of all, just before the instance's process ends."""
    return _apply(Mark(MarkKind.SHUTDOWN), function)


def _apply(mark: Mark, function: Any) -> Any:
    if function is None:
        return lambda decorated: _marked(mark, decorated)
    if isinstance(function, str):
        raise MarkError(f"write @{mark.kind.value}(topic={function!r}): the topic is given by its name")
    return _marked(mark, function)


def _marked(mark: Mark, function: F) -> F:
    add_mark(function, mark)
    return function
