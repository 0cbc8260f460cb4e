"""Functions that are handed over to a driver: what the driver calls them with is published.

Promises: the driver's thread gets None and no exception, whatever becomes of the message; after the instance's end
nothing is published, and one line of the log says so. The trap: some drivers keep callbacks weakly, so they are kept
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ether.errors import MarkError
from ether.instance.drivers.building import Builder
from ether.instance.host import DriverHost
from ether.spec.paths import PathNotFound, check_there, follow, put, sets_at
from ether.spec.wrapping import CALLBACK, CallbackSpec


class Callbacks:
    """The functions of one instance."""

    def __init__(self, host: DriverHost) -> None:
        self._host = host
        self.builder = Builder()
        self._kept: list[Callable[..., None]] = []
        self._said = False

    def hand_over(self) -> None:
        """Set each function, or call the method that takes it. Raises `MarkError` for a path that leads nowhere, and
        whatever the driver raises."""
        self._kept.clear()
        for callback in self._host.spec.callbacks:
            function = self._function(callback.name)
            self._kept.append(function)
            try:
                self._hand_over(callback, function)
            except PathNotFound as error:
                raise MarkError(f"callbacks {callback.path.text!r}: {error.why}") from error

    def _hand_over(self, callback: CallbackSpec, function: Callable[..., None]) -> None:
        obj, path = self._host.object, callback.path
        check_there(obj, path)
        given = bool(callback.args or callback.kwargs)
        if not given and sets_at(obj, path):
            put(obj, path, function)
            return
        method = follow(obj, path)
        if not callable(method):
            raise MarkError(
                f"callbacks {path.text!r}: a {type(method).__name__} stands there, which cannot be called with args"
            )
        args = self.builder.plain(callback.args, "args") if given else (CALLBACK,)
        kwargs = self.builder.plain(callback.kwargs, "kwargs")
        positional = [function if each == CALLBACK else each for each in args]
        method(*positional, **{name: function if each == CALLBACK else each for name, each in kwargs.items()})

    def _function(self, name: str) -> Callable[..., None]:
        host = self._host

        def callback(*args: Any, **kwargs: Any) -> None:
            if not host.closed:
                host.taken_by_driver(name, args, kwargs)
            elif not self._said:
                self._said = True
                host.logger.warning("%s: %s was called after the end; nothing is published", host.name, name)

        callback.__name__ = callback.__qualname__ = name
        return callback
