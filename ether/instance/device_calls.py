"""Calls that an instance makes of its own device: when it connects, when it stops, and to make it safe.

Promises: what cannot be called as written (no such method, wrong arguments, a value outside of its limits) is a
`MarkError` before anything starts, and not a surprise in an emergency. One call that fails is reported and does not
keep the next from being made. The trap: these methods need no decorator, so their names are looked up on the object
itself.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ether.connection.failure_text import text_of
from ether.errors import MarkError, ValidationFailed
from ether.spec.arguments import Arguments
from ether.spec.methods import MethodSpec
from ether.spec.wrapping import PlannedCall

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance


class DeviceCalls:
    """One instance's calls of its own device. Raises `MarkError`."""

    def __init__(self, instance: HostedInstance) -> None:
        self._instance = instance
        self._specs = {method.name: method for method in instance.spec.methods}
        care = instance.spec.care
        self._check("on_connect", care.on_connect)
        self._check("on_stop", care.on_stop)
        if care.safe_state is not None:
            self._check("safe_state", care.safe_state.calls)
            for name in care.safe_state.allow:
                self._function(name, "safe_state.allow")

    def connect(self) -> None:
        """Make the calls of `on_connect`; what they raise is the caller's."""
        for call in self._instance.spec.care.on_connect:
            self._instance.call_own(call.method, call.args, call.kwargs)

    def stop(self) -> tuple[list[str], dict[str, str]]:
        """Make the calls of an orderly stop; what ran, and what failed and why."""
        care = self._instance.spec.care
        safe = care.safe_state
        calls = (*(safe.calls if safe is not None and safe.at_stop else ()), *care.on_stop)
        failed = self.make(calls, "at the stop")
        return [call.method for call in calls if call.method not in failed], failed

    def make(self, calls: Iterable[PlannedCall], why: str) -> dict[str, str]:
        """Make calls, each whatever became of the one before; what failed, and why."""
        failed: dict[str, str] = {}
        for call in calls:
            try:
                self._instance.call_own(call.method, call.args, call.kwargs)
            except (Exception, SystemExit) as error:  # noqa: BLE001  part of the worker loop: this is user code
                failed[call.method] = f"{type(error).__name__}: {text_of(error)}"
                self._instance.report(f"{self._instance.spec.name}.{call} ({why})", error, {})
        return failed

    def _check(self, where: str, calls: Iterable[PlannedCall]) -> None:
        for call in calls:
            function = self._function(call.method, where)
            try:
                bound = inspect.signature(function).bind(*call.args, **call.kwargs)
            except TypeError as error:
                raise MarkError(f"{where}: {call}: {error}") from None
            except ValueError:  # some methods written in C do not say
                continue
            self._check_limits(where, call, function, bound)

    def _check_limits(
        self, where: str, call: PlannedCall, function: Callable[..., Any], bound: inspect.BoundArguments
    ) -> None:
        spec = self._specs.get(call.method, MethodSpec(call.method, ()))
        try:
            Arguments(function, call.method, spec.limits).check_within(_by_name(bound))
        except ValidationFailed as error:
            raise MarkError(f"{where}: {call}: {error}") from None

    def _function(self, name: str, where: str) -> Callable[..., Any]:
        cls = type(self._instance.object)
        function: Callable[..., Any] | None
        function = self._instance.function(name) if name in self._specs else getattr(self._instance.object, name, None)
        if not callable(function):
            nearest = difflib.get_close_matches(name, [*dir(cls), *self._specs], n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise MarkError(f"{where}: {cls.__module__}.{cls.__qualname__} has no method {name!r}.{hint}")
        return function


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    given = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
    return given
