"""The decorators. They only mark a function, and return the same function object.

Each can be used bare (`@ether_pub`) or called (`@ether_pub(topic="data")`), on functions, `async def`, static and class
methods. One method may have several: `ether_sub` with `ether_pub` makes a pipeline stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ether.config.change import DeadBand
from ether.errors import MarkError
from ether.errors.keywords import names_keywords
from ether.spec.marks import START_TOPIC, Mark, MarkKind, add_mark

F = TypeVar("F", bound=Callable[..., Any])


@overload
def ether_pub(function: F, /) -> F: ...
@overload
def ether_pub(
    *,
    topic: str | None = None,
    qos: int = 1,
    save: bool = False,
    every: str | None = None,
    on: str | None = None,
    dead_band: DeadBand | None = None,
) -> Callable[[F], F]: ...
@names_keywords("@ether_pub")
def ether_pub(
    function: Any = None,
    /,
    *,
    topic: str | None = None,
    qos: int = 1,
    save: bool = False,
    every: str | None = None,
    on: str | None = None,
    dead_band: DeadBand | None = None,
) -> Any:
    """Publish the method's return value on `topic` (default: `ClassName.method`); None is an empty message, and
    `ether.NOTHING` is none at all. A method that yields publishes each value as it is yielded.

    With `on="change"` only a value that differs from the one published last is published. `dead_band` says by how much
    numbers must differ for that: `0.5`, or `{"temperature": 0.5}` for the keys of a dict.

    A message with `qos` 1 arrives at least once while sender, broker and receiver live; with 0 it may be lost. With
    `save` it ends up on disk exactly once, whatever is killed meanwhile (docs/saving.md). With `every`, the method is
    also called by itself, as by `ether_every`.
    """
    return _apply(Mark(MarkKind.PUB, topic, qos, save=save, every=every, on=on, dead_band=dead_band), function)


@names_keywords("@ether_every")
def ether_every(when: str, /) -> Callable[[F], F]:
    """Call the method repeatedly while the instance is ready: with a period (`"5s"`, `"200ms"`, `"10Hz"`), at times as
    in a crontab (`"*/5 * * * *"`), or once (`"at 2026-01-16 07:30"`).

    Periods begin at once and do not drift. A tick that cannot run in time is missed: it is counted and logged, and not
    made up for. Raises `MarkError` for anything else than such a text.
    """
    if not isinstance(when, str):
        raise MarkError('write @ether_every("5s"): a number and its unit, in quotes')
    mark = Mark(MarkKind.EVERY, every=when)
    return lambda decorated: _marked(mark, decorated)


@overload
def ether_sub(function: F, /) -> F: ...
@overload
def ether_sub(
    *, topic: str | None = None, qos: int = 1, keep: str | int | None = None, max_age: str | None = None
) -> Callable[[F], F]: ...
@names_keywords("@ether_sub")
def ether_sub(
    function: Any = None,
    /,
    *,
    topic: str | None = None,
    qos: int = 1,
    keep: str | int | None = None,
    max_age: str | None = None,
) -> Any:
    """Call the method with every message on `topic` (default `ClassName.method`; `+` and `#` are wildcards).

    A dict is mapped to the arguments by name; any other payload goes to the sole parameter, or to the one named `root`.
    Arguments are validated against the type hints.

    `keep` says what is handled of the messages that wait while the method is busy: `"all"` (the default), `"latest"`,
    or the newest `10`, of each topic and source. With `max_age` (`"0.5s"`) a message that is older when its turn comes
    is not handled. What is skipped is counted and shown.
    """
    return _apply(Mark(MarkKind.SUB, topic, qos, keep=keep, max_age=max_age), function)


@overload
def ether_start(function: F, /) -> F: ...
@overload
def ether_start(*, keep: str | int | None = None, max_age: str | None = None) -> Callable[[F], F]: ...
@names_keywords("@ether_start")
def ether_start(function: Any = None, /, *, keep: str | int | None = None, max_age: str | None = None) -> Any:
    """Call the method on `ether.start()`. Short for `ether_sub(topic="start")`, whose `keep` and `max_age` it takes."""
    return _apply(Mark(MarkKind.SUB, START_TOPIC, keep=keep, max_age=max_age), function)


@overload
def ether_get(function: F, /) -> F: ...
@overload
def ether_get(*, concurrency: int | None = None, takes: str | None = None) -> Callable[[F], F]: ...
@names_keywords("@ether_get")
def ether_get(function: Any = None, /, *, concurrency: int | None = None, takes: str | None = None) -> Any:
    """Let other programs call the method with `ether.get(…)`. The caller receives the return value, or a `RemoteError`
    for the exception that the method raises.

    `concurrency` is the number of calls of this method that may run at the same time, on threads of their own, beside
    the instance's worker; with 1 it is one thread. Left out, calls run on the worker, in turn with its messages.

    `takes` is how long a call may take, such as `"5min"`. Callers that give no time-out of their own wait so long, and
    10 s more; a call that takes longer is told apart from one that hangs.
    """
    return _apply(Mark(MarkKind.GET, concurrency=concurrency, takes=takes), function)


@overload
def ether_save(function: F, /) -> F: ...
@overload
def ether_save(*, concurrency: int | None = None, takes: str | None = None) -> Callable[[F], F]: ...
@names_keywords("@ether_save")
def ether_save(function: Any = None, /, *, concurrency: int | None = None, takes: str | None = None) -> Any:
    """Let other programs call the method durably with `ether.save(…)`. The caller receives a dict whose `status` is
    `success` or `error`. `concurrency` and `takes` are as for `ether_get`."""
    return _apply(Mark(MarkKind.SAVE, concurrency=concurrency, takes=takes), function)


@overload
def ether_sync(function: F, /) -> F: ...
@overload
def ether_sync(*, topic: str | None = None) -> Callable[[F], F]: ...
@names_keywords("@ether_sync")
def ether_sync(function: Any = None, /, *, topic: str | None = None) -> Any:
    """Run the method on `ether.sync(topic)` (default topic: `ClassName.method`), together with those of all other
    instances. The caller waits for all of them."""
    return _apply(Mark(MarkKind.SYNC, topic), function)


@overload
def ether_init(function: F, /) -> F: ...
@overload
def ether_init() -> Callable[[F], F]: ...
@names_keywords("@ether_init")
def ether_init(function: Any = None, /) -> Any:
    """Call the method once, after the instance has connected and before it counts as ready."""
    return _apply(Mark(MarkKind.INIT), function)


@overload
def ether_save_all(function: F, /) -> F: ...
@overload
def ether_save_all() -> Callable[[F], F]: ...
@names_keywords("@ether_save_all")
def ether_save_all(function: Any = None, /) -> Any:
    """Call the method on `ether.save_all()`, and at shutdown after the work in flight is finished."""
    return _apply(Mark(MarkKind.SAVE_ALL), function)


@overload
def ether_cleanup(function: F, /) -> F: ...
@overload
def ether_cleanup() -> Callable[[F], F]: ...
@names_keywords("@ether_cleanup")
def ether_cleanup(function: Any = None, /) -> Any:
    """Call the method on `ether.cleanup()` and at shutdown, after every `ether_save_all`."""
    return _apply(Mark(MarkKind.CLEANUP), function)


@overload
def ether_shutdown(function: F, /) -> F: ...
@overload
def ether_shutdown() -> Callable[[F], F]: ...
@names_keywords("@ether_shutdown")
def ether_shutdown(function: Any = None, /) -> Any:
    """Call the method as the last one, just before the instance's process ends."""
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
