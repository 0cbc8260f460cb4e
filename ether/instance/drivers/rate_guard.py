"""Refuses setpoints that would change a device faster than the registry allows (`max_rate`).

It stands at the instance that owns the device, behind the conversion of units and the limits, so that no caller can go
around it. What the instance calls by itself (`on_connect`, `safe_state`) is never refused, and counts: a safe state
must be able to switch off at once, and what is set after it is measured from there. After an own call of any other
method nobody knows what is in force: what can be read is read again, the rest is measured from its next value.

Promises: where a property can be read, the first value and the first one after a failure are measured from what the
device says; where that cannot be read, nothing is set. Where two threads set at the same time, both values count. The
trap: the first value of an argument of a method has nothing to be measured from, and is accepted.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ether.config.path_text import parse_path
from ether.errors import ArgumentProblem, ValidationFailed
from ether.spec.arguments import shown
from ether.spec.methods import ClassSpec, MethodSpec
from ether.spec.rate_rules import ChangeRange, numbers_of
from ether.spec.signatures import signature_of
from ether.spec.wrapping import SETTER, Limit

now_s = time.monotonic


class RateGuard:
    """The limits of change of one instance."""

    def __init__(self, name: str, spec: ClassSpec, function: Callable[[str], Callable[..., Any]],
                 read: Callable[[str], Any]) -> None:  # fmt: skip
        """`function` gives a method by its name, `read` reads a property without publishing it."""
        self._name, self._function, self._read = name, function, read
        self.methods: dict[str, MethodSpec] = {
            method.name: method for method in spec.methods if any(limit.max_rate for limit in method.limits.values())
        }
        """The methods whose changes are limited, by name."""
        readable = {method.name for method in spec.methods if method.reads}
        self._readers = {name: name.removeprefix(SETTER) for name in self.methods if name.startswith(SETTER)}
        self._readers = {name: reader for name, reader in self._readers.items() if reader in readable}
        self._harmless = frozenset(readable)
        """What changes nothing at the device."""
        self._unsure = set(self._readers)
        """The setters whose device is to be read before the next value."""
        self._forgotten = 0
        """How often everything was forgotten: a reading from before says nothing."""
        self._open: Counter[str] = Counter()
        """How many settings of a method are under way."""
        self._blurred: set[str] = set()
        """The methods of which several were, or during which everything was forgotten: which came last is not known."""
        self._ranges: dict[tuple[str, str, int], ChangeRange] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def around(
        self, method: str, positional: Sequence[Any], named: Mapping[str, Any], *, checked: bool
    ) -> contextlib.AbstractContextManager[None]:
        """As `setting`, for any method, given by its name or its path."""
        name = self._known(method)
        return contextlib.nullcontext() if name is None else self.setting(name, positional, named, checked=checked)

    def around_care(
        self, method: str, positional: Sequence[Any], named: Mapping[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """Around a call that cares for the device: never refused. One of a method without a limit of change may have
        set anything."""
        if self.methods and method not in self._harmless and self._known(method) is None:
            return self._forgetting()
        return self.around(method, positional, named, checked=False)

    def _known(self, method: str) -> str | None:
        if method in self.methods or not self.methods or method.isidentifier():
            return method if method in self.methods else None
        path = parse_path(method)
        return next((known for known, spec in self.methods.items() if spec.stands_at(path)), None)

    @contextlib.contextmanager
    def _forgetting(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """The device may have been switched off, or set by something else: what can be read is read again. What was in
        force until now still counts for its time."""
        with self._lock:
            self._forgotten += 1
            self._unsure = set(self._readers)
            self._blurred |= {name for name, number in self._open.items() if number}
            now = now_s()
            for (method, _, _), changes in self._ranges.items():
                if method not in self._blurred:
                    changes.lose(now)

    @contextlib.contextmanager
    def setting(
        self, method: str, positional: Sequence[Any], named: Mapping[str, Any], *, checked: bool
    ) -> Iterator[None]:
        """Around the call of a method: raises `ValidationFailed` for a change that is too large, unless it is not
        `checked`; and notes what is in force then."""
        values, unknown = self._values(method, positional, named)
        if unknown and checked:
            raise ValidationFailed(f"{self._name}.{method}", unknown)
        if checked and method in self._unsure:
            self._ask(method)
        with self._lock:
            now, ranges = now_s(), self._ranges_of(method, values, checked=checked)
            if checked:
                self._check(method, values, ranges, now)
            for argument, numbers in values.items():
                for changes, number in zip(ranges[argument], numbers, strict=True):
                    changes.begin(now, number)
            if self._open[method]:
                self._blurred.add(method)
            self._open[method] += 1
        done = False
        try:
            yield
            done = True
        finally:
            with self._lock:
                self._ended(method, values if done else {}, ranges)
                if not done:
                    self._unsure |= self._readers.keys() & {method}
                if unknown:
                    self._lose(method, [problem.argument for problem in unknown])

    def _ended(self, method: str, values: Mapping[str, list[float]], ranges: Mapping[str, list[ChangeRange]]) -> None:
        """A setting is over. Where nothing else was under way, its values alone are in force. Under the lock."""
        self._open[method] -= 1
        if method not in self._blurred:
            for argument, numbers in values.items():
                for changes, number in zip(ranges[argument], numbers, strict=True):
                    changes.done(number)
        elif not self._open[method]:
            self._blurred.discard(method)
            self._unsure |= self._readers.keys() & {method}

    def _lose(self, method: str, arguments: Sequence[str]) -> None:
        """These arguments were set, and nobody knows to what. Under the lock."""
        self._unsure |= self._readers.keys() & {method}
        now = now_s()
        for (known, argument, _), changes in self._ranges.items():
            if known == method and argument in arguments and method not in self._blurred:
                changes.lose(now)

    def _ask(self, method: str) -> None:
        """Learn from the device what is in force. Raises what reading raises, and for no number."""
        reader, forgotten = self._readers[method], self._forgotten
        value = self._read(reader)
        limit = self.methods[method].limits["value"]
        numbers = numbers_of(value, limit.unit)
        if numbers is None:
            accepted = f"a number that changes at most {_rate_text(limit)}, and {reader} is {shown(value)} now"
            raise ValidationFailed(f"{self._name}.{method}", [ArgumentProblem("value", "a change", accepted)])
        with self._lock:
            now = now_s()
            for changes, number in zip(
                self._ranges_of(method, {"value": numbers}, checked=False)["value"], numbers, strict=True
            ):
                changes.begin(now, number)
                if not self._open[method]:
                    changes.done(number)
            if forgotten == self._forgotten and not self._open[method]:
                self._unsure.discard(method)

    def _values(
        self, method: str, positional: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[dict[str, list[float]], list[ArgumentProblem]]:
        """The numbers of the arguments whose changes are limited; and those that are set to what is not known. One
        that is left to its default of None sets nothing."""
        try:
            bound = signature_of(self._function(method)).bind(*positional, **named)
        except TypeError:  # the call fails of itself
            return {}, []
        left = set(bound.signature.parameters) - set(bound.arguments)
        bound.apply_defaults()
        given = dict(bound.arguments)
        more: tuple[Any, ...] = ()
        for name, parameter in bound.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                more = given.pop(name)
        values: dict[str, list[float]] = {}
        unknown: list[ArgumentProblem] = []
        for argument, limit in self.methods[method].limits.items():
            if limit.max_rate is None or (argument in left and given.get(argument) is None):
                continue
            if argument not in given:
                if more:  # it may be one of those
                    accepted = f"by name, because its changes are limited to {_rate_text(limit)}"
                    unknown.append(ArgumentProblem(argument, shown(list(more)), accepted))
            elif (numbers := numbers_of(given[argument], limit.unit)) is not None:
                values[argument] = numbers
            else:
                accepted = f"a number, because its changes are limited to {_rate_text(limit)}"
                unknown.append(ArgumentProblem(argument, shown(given[argument]), accepted))
        return values, unknown

    def _ranges_of(
        self, method: str, values: Mapping[str, list[float]], *, checked: bool
    ) -> dict[str, list[ChangeRange]]:
        """For each number of an argument its range. Another number of numbers than before is refused, or begins anew
        where it is not `checked`."""
        ranges: dict[str, list[ChangeRange]] = {}
        for argument, numbers in values.items():
            limit, size = self.methods[method].limits[argument], self._sizes.get((method, argument))
            assert limit.max_rate is not None
            if size is not None and size != len(numbers):
                if checked:
                    accepted = f"{size} numbers, as before, because changes are limited to {_rate_text(limit)}"
                    problem = ArgumentProblem(argument, shown(numbers), accepted)
                    raise ValidationFailed(f"{self._name}.{method}", [problem])
                for number in range(size):
                    self._ranges.pop((method, argument, number), None)
            self._sizes[method, argument] = len(numbers)
            ranges[argument] = [
                self._ranges.setdefault(
                    (method, argument, number),
                    ChangeRange(limit.max_rate.amount + limit.dead_band, limit.max_rate.within_s),
                )
                for number in range(len(numbers))
            ]
        return ranges

    def _check(
        self, method: str, values: Mapping[str, list[float]], ranges: Mapping[str, list[ChangeRange]], now: float
    ) -> None:
        problems = []
        for argument, numbers in values.items():
            limit = self.methods[method].limits[argument]
            for changes, number in zip(ranges[argument], numbers, strict=True):
                if not changes.accepts(now, number):
                    low, high = changes.was(now) or (number, number)
                    was = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                    accepted = f"a change of at most {_rate_text(limit)}; in that time it was {was}"
                    problems.append(ArgumentProblem(argument, f"{number:g}", accepted))
        if problems:
            raise ValidationFailed(f"{self._name}.{method}", problems)


def _rate_text(limit: Limit) -> str:
    assert limit.max_rate is not None
    return f"{limit.max_rate.amount:g} {limit.unit}".rstrip() + f" within {limit.max_rate.within_s:g} s"
