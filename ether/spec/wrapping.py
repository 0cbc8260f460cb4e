"""The registry's entry of a class, as values: marks, limits, properties, and calls at connect, at stop and in the safe
state.

Promise: a value outside its limits is refused before any code of the class runs; the error names the argument, the
value given, the accepted range and its unit. The trap: limits hold for values from outside (calls, messages, the calls
of a safe state). Calls that the class's own code makes are not checked.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ether.config.path_text import ObjectPath, parse_path
from ether.config.rates import Rate, parse_rate
from ether.config.when import duration_s
from ether.errors import ArgumentProblem
from ether.spec.marks import Mark, MarkKind
from ether.spec.outcomes import AS_IT_IS, Outcome

SETTER = "set_"
"""A settable property `power` is set by the method `set_power`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The range of a number, both ends included; None for no end. `unit` is the driver's: what comes in another
    one is converted to it before (`ether.spec.units`)."""

    low: float | None = None
    high: float | None = None
    unit: str = ""
    max_rate: Rate | None = None
    dead_band: float = 0.0
    """What counts as no change beside `max_rate`, such as the rounding of what a device reads back."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Limit:
        """`{limits: [0, 80], unit: °C}`, as the registry writes it."""
        low, high = options.get("limits") or (None, None)
        low, high = (bound if end is None else end for bound, end in
                     ((low, options.get("min")), (high, options.get("max"))))  # fmt: skip
        rate = options.get("max_rate")
        return cls(
            low,
            high,
            options.get("unit", ""),
            None if rate is None else parse_rate(rate),
            options.get("dead_band") or 0.0,
        )

    @property
    def bounds(self) -> bool:
        """Whether not every value is accepted."""
        return self.low is not None or self.high is not None or self.max_rate is not None

    def accepts(self, value: object) -> bool:
        """Whether a number, or every number of a list or an array, is in the range. NaN, booleans and texts are not."""
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            return all(map(self.accepts, value))
        if type(value) is bool or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        is_above = self.low is None or number >= self.low
        if self.max_rate is not None and math.isinf(number):
            return False
        return is_above and (self.high is None or number <= self.high) and number == number  # NaN differs from itself

    def problem(self, argument: str, shown: str) -> ArgumentProblem:
        """The problem with a value that is not accepted; `shown` is the value as text."""
        return ArgumentProblem(argument, shown, f"a number {self.text}")

    @property
    def text(self) -> str:
        """`from 0 to 80 °C`."""
        if self.low is None and self.high is None:
            return f"in {self.unit}" if self.unit else "that is finite"
        if self.low is None:
            words = f"of at most {self.high:g}"
        elif self.high is None:
            words = f"of at least {self.low:g}"
        else:
            words = f"from {self.low:g} to {self.high:g}"
        return f"{words} {self.unit}".rstrip()

    def schema(self, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """A JSON Schema with this range and unit added."""
        added = {"minimum": self.low, "maximum": self.high, "unit": self.unit or None}
        added["max_rate"] = None if self.max_rate is None else self.max_rate.text
        base = dict(schema or ({"type": "number"} if self.bounds else {}))
        return base | {key: value for key, value in added.items() if value is not None}


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that an instance makes of its own device."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    kept_as: str | None = None
    """The name under which the object keeps what the call returns, for paths that begin with it."""

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.method}({', '.join(given)})"


@dataclass(frozen=True, slots=True)
class SafeState:
    """What an instance calls when the device's controller, the broker or the network is gone for longer than `after_s`.

    `watch`: other instances whose loss counts, too. `allow`: methods that run even in the safe state. `refuse`: methods
    whose ticks do not go on, although they only publish. `force`: call from another thread where the worker hangs.
    `at_stop`: call at an orderly stop, too.
    """

    after_s: float
    calls: tuple[PlannedCall, ...]
    watch: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    refuse: tuple[str, ...] = ()
    force: bool = False
    at_stop: bool = False

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SafeState:
        """As the registry writes it."""
        return cls(
            duration_s(options["after"]),
            planned(options["calls"]),
            tuple(options.get("watch", ())),
            tuple(options.get("allow", ())),
            tuple(options.get("refuse", ())),
            bool(options.get("force")),
            bool(options.get("at_stop")),
        )


@dataclass(frozen=True, slots=True)
class OnError:
    """Which exceptions of a driver mean that its device is gone: `after` failures in a row, `within_s` of each other
    where that is said; and what is done `then`."""

    errors: tuple[str, ...]
    then: str
    after: int = 3
    within_s: float | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> OnError:
        """As the registry writes it."""
        within = options.get("within")
        return cls(
            tuple(options["errors"]), options["then"], options["after"], None if within is None else duration_s(within)
        )


@dataclass(frozen=True, slots=True)
class Alive:
    """The question by which an instance learns whether its device is there, and how often it is asked."""

    call: PlannedCall
    every: str

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Alive:
        """As the registry writes it."""
        return cls(planned([options])[0], options["every"])


@dataclass(frozen=True, slots=True)
class Care:
    """The calls that an instance makes of its own device: once connected, before its process ends, when safe."""

    on_connect: tuple[PlannedCall, ...] = ()
    on_stop: tuple[PlannedCall, ...] = ()
    safe_state: SafeState | None = None
    enter: bool = False
    """Whether the object is a context manager that is to be entered."""
    on_error: OnError | None = None
    alive: Alive | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Care:
        """As the registry writes it."""
        safe = options.get("safe_state")
        return cls(
            planned(options.get("on_connect", ())),
            planned(options.get("on_stop", ())),
            SafeState.from_options(safe) if safe else None,
            bool(options.get("enter")),
            OnError.from_options(options["on_error"]) if options.get("on_error") else None,
            Alive.from_options(options["alive"]) if options.get("alive") else None,
        )

    def over(self, other: Care) -> Care:
        """This, completed by the other where this is empty."""
        return Care(
            self.on_connect or other.on_connect,
            self.on_stop or other.on_stop,
            self.safe_state or other.safe_state,
            self.enter or other.enter,
            self.on_error or other.on_error,
            self.alive or other.alive,
        )


NO_CARE = Care()


def planned(calls: Any) -> tuple[PlannedCall, ...]:
    """The calls of a registry's list."""
    return tuple(
        PlannedCall(c["method"], tuple(c.get("args", ())), dict(c.get("kwargs", {})), c.get("as")) for c in calls
    )


@dataclass(frozen=True, slots=True)
class AccessCall:
    """A method of what stands at a property's path, by which it is read or set."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_options(cls, options: Mapping[str, Any] | None) -> AccessCall | None:
        """As the registry writes it; None where the property is read or set by itself."""
        if not options or not options.get("call"):
            return None
        return cls(options["call"], tuple(options.get("args") or ()), dict(options.get("kwargs") or {}))


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """One property of a driver: the marks of its reader and of its setter, empty where it has none. `path` leads to it,
    `name` is how callers name it."""

    path: ObjectPath
    name: str
    reader: tuple[Mark, ...]
    setter: tuple[Mark, ...]
    limit: Limit
    read_by: AccessCall | None = None
    set_by: AccessCall | None = None
    outcome: Outcome = AS_IT_IS

    @property
    def is_plain(self) -> bool:
        """Whether it is a property of the class itself, under its own name, read and set by itself."""
        return (
            self.path.is_plain
            and self.path.text == self.name
            and not (self.read_by or self.set_by or self.outcome.changes)
        )

    @classmethod
    def from_options(cls, written: str, options: Mapping[str, Any]) -> PropertySpec:
        """As the registry writes it."""
        path = parse_path(written)
        get, put = options.get("get"), options.get("set")
        reader: list[Mark] = [] if get is None else [Mark(MarkKind.GET)]
        if get is not None and (get.get("topic") or get.get("every")):
            changes = {"on": get.get("on"), "dead_band": get.get("dead_band")}
            reader.append(Mark(MarkKind.PUB, get["topic"], get["qos"], save=get["save"], every=get["every"], **changes))
        setter: list[Mark] = [] if put is None else [Mark(MarkKind.GET)]
        if put is not None and put.get("topic"):
            wishes = {"keep": put.get("keep"), "max_age": put.get("max_age")}
            setter.append(Mark(MarkKind.SUB, put["topic"], put["qos"], **wishes))
        return cls(
            path,
            options.get("as") or path.as_name,
            tuple(reader),
            tuple(setter),
            Limit.from_options(options),
            AccessCall.from_options(get),
            AccessCall.from_options(put),
            Outcome.from_options(options.get("result")),
        )


CALLBACK = "$callback"
"""Stands among the arguments of a call for the function that is handed over."""


@dataclass(frozen=True, slots=True)
class CallbackSpec:
    """A function that publishes what the driver calls it with: set at `path`, or handed to the method there."""

    path: ObjectPath
    name: str
    marks: tuple[Mark, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = AS_IT_IS

    @classmethod
    def from_options(cls, written: str, options: Mapping[str, Any]) -> CallbackSpec:
        """As the registry writes it."""
        path = parse_path(written)
        return cls(
            path,
            options.get("as") or path.as_name,
            (Mark(MarkKind.PUB, options["topic"], options.get("qos", 1), save=bool(options.get("save"))),),
            tuple(options.get("args") or ()),
            dict(options.get("kwargs") or {}),
            Outcome.from_options(options.get("result")),
        )


@dataclass(frozen=True, slots=True)
class Wrapping:
    """The registry's entry of one class: by method name its marks and its limits, its properties, its calls. `keep` and
    `max_age` are those of an instance, for its subscriptions that say nothing themselves."""

    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, Limit]] = field(default_factory=dict)
    properties: Mapping[str, PropertySpec] = field(default_factory=dict)
    care: Care = field(default_factory=Care)
    keep: str | int | None = None
    max_age: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """How callers name methods that are not called by their own name or path."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    loops: frozenset[str] = frozenset()
    """The methods that are called on the event loop."""
    callbacks: Mapping[str, CallbackSpec] = field(default_factory=dict)
    alarms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """For methods and properties, as the registry names them, their `alarm`, `on_alarm` and `unit` as written."""

    def over(self, other: Wrapping) -> Wrapping:
        """This, completed by the other's entries for names that this does not have."""
        return replace(
            self,
            marks={**other.marks, **self.marks},
            limits={**other.limits, **self.limits},
            properties={**other.properties, **self.properties},
            care=self.care.over(other.care),
            keep=other.keep if self.keep is None else self.keep,
            max_age=self.max_age or other.max_age,
            names={**other.names, **self.names},
            outcomes={**other.outcomes, **self.outcomes},
            loops=other.loops | self.loops,
            callbacks={**other.callbacks, **self.callbacks},
            alarms={**other.alarms, **self.alarms},
        )
