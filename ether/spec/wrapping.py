"""What the registry says of a driver beyond decorators, as values: limits, properties, and what is called when.

Promise: a value outside of its limits is refused before anything of the class runs, with the name, what was given, what
would be accepted and the unit. The trap: limits hold for what comes from outside (calls, messages, a safe state's own
list). What the class's own code calls by itself is its own affair.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ether.config.when import duration_s
from ether.errors import ArgumentProblem
from ether.spec.marks import Mark, MarkKind

SETTER = "set_"
"""A settable property `power` is set by the method `set_power`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a number may be, both ends included; None for no end. `unit` is for people."""

    low: float | None = None
    high: float | None = None
    unit: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Limit:
        """`{limits: [0, 80], unit: °C}`, as the registry writes it."""
        low, high = options.get("limits") or (None, None)
        return cls(low, high, options.get("unit", ""))

    @property
    def bounds(self) -> bool:
        """Whether there is anything to check."""
        return self.low is not None or self.high is not None

    def accepts(self, value: object) -> bool:
        """Whether a number, or every number of a list or an array, is within."""
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, (list, tuple)):
            return all(map(self.accepts, value))
        if type(value) is bool or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        above = self.low is None or number >= self.low
        return above and (self.high is None or number <= self.high) and number == number

    def problem(self, argument: str, shown: str) -> ArgumentProblem:
        """What to say of a value that is not accepted."""
        return ArgumentProblem(argument, shown, f"a number {self.text}")

    @property
    def text(self) -> str:
        """`from 0 to 80 °C`."""
        if self.low is None:
            words = f"of at most {self.high:g}"
        elif self.high is None:
            words = f"of at least {self.low:g}"
        else:
            words = f"from {self.low:g} to {self.high:g}"
        return f"{words} {self.unit}".rstrip()

    def schema(self, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """A JSON Schema that also says this."""
        said = {"minimum": self.low, "maximum": self.high, "unit": self.unit or None}
        base = dict(schema or ({"type": "number"} if self.bounds else {}))
        return base | {key: value for key, value in said.items() if value is not None}


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that an instance makes of its own device."""

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        return f"{self.method}({', '.join(given)})"


@dataclass(frozen=True, slots=True)
class SafeState:
    """What is called when whoever controls the device, the broker or the network is gone for longer than `after_s`."""

    after_s: float
    calls: tuple[PlannedCall, ...]
    watch: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
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
            bool(options.get("force")),
            bool(options.get("at_stop")),
        )


@dataclass(frozen=True, slots=True)
class Care:
    """What is called when."""

    on_connect: tuple[PlannedCall, ...] = ()
    on_stop: tuple[PlannedCall, ...] = ()
    safe_state: SafeState | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Care:
        """As the registry writes it."""
        safe = options.get("safe_state")
        return cls(
            planned(options.get("on_connect", ())),
            planned(options.get("on_stop", ())),
            SafeState.from_options(safe) if safe else None,
        )

    def over(self, other: Care) -> Care:
        """This, and what the other says where this says nothing."""
        return Care(
            self.on_connect or other.on_connect, self.on_stop or other.on_stop, self.safe_state or other.safe_state
        )


NO_CARE = Care()


def planned(calls: Any) -> tuple[PlannedCall, ...]:
    """Calls as the registry writes them."""
    return tuple(PlannedCall(c["method"], tuple(c.get("args", ())), dict(c.get("kwargs", {}))) for c in calls)


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """One property of a driver: the marks of its reader and of its setter, empty where it has none."""

    name: str
    reader: tuple[Mark, ...]
    setter: tuple[Mark, ...]
    limit: Limit

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> PropertySpec:
        """As the registry writes it."""
        get, put = options.get("get"), options.get("set")
        reader: list[Mark] = [] if get is None else [Mark(MarkKind.GET)]
        if get is not None and (get.get("topic") or get.get("every")):
            reader.append(Mark(MarkKind.PUB, get["topic"], get["qos"], save=get["save"], every=get["every"]))
        setter: list[Mark] = [] if put is None else [Mark(MarkKind.GET)]
        if put is not None and put.get("topic"):
            setter.append(Mark(MarkKind.SUB, put["topic"], put["qos"]))
        return cls(name, tuple(reader), tuple(setter), Limit.from_options(options))


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Everything that the registry says of one class."""

    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, Limit]] = field(default_factory=dict)
    properties: Mapping[str, PropertySpec] = field(default_factory=dict)
    care: Care = field(default_factory=Care)

    def over(self, other: Wrapping) -> Wrapping:
        """This, and what the other says of things that this does not mention."""
        return replace(
            self,
            marks={**other.marks, **self.marks},
            limits={**other.limits, **self.limits},
            properties={**other.properties, **self.properties},
            care=self.care.over(other.care),
        )
