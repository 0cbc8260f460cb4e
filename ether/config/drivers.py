"""What the YAML may say of a driver beyond decorators: limits and units, properties, and the calls at connect, at stop
and in the safe state.

The models are turned into plain data, which `ether.spec.wrapping` reads, because an instance's process does not load
pydantic. The trap: `after: 2` without a unit is refused; a reader of a safe state must not have to guess the unit.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ether.config.change import check_dead_band, check_on
from ether.config.keep import keep_count
from ether.config.part import ConfigPart
from ether.config.when import duration_s, parse_when
from ether.errors import ConfigError

LIMITS_RULE = "expected a list of the lowest and the highest value, such as [0, 80]; null for none, as in [0, null]."
SAFE_AFTER_MIN_S = 0.5


def _check_identifier(name: str) -> str:
    if not name.isidentifier():
        raise ConfigError(f"{name!r:.80} is not a name that an attribute, a method or an argument can have.")
    return name


def _check_limits(value: Any) -> Any:
    """`[low, high]` as a tuple, each end a number or None. `type(bound)`, not `isinstance`: True and False are integers
    to Python. NaN is refused because every comparison with it is false, so that a limit of NaN would never refuse."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ConfigError(f"found {value!r:.60}; {LIMITS_RULE}")
    for bound in value:
        if bound is not None and (type(bound) not in (int, float) or math.isnan(bound)):
            raise ConfigError(f"found {bound!r:.60} in {value!r:.60}; {LIMITS_RULE}")
    low, high = value
    if low is not None and high is not None and low > high:
        raise ConfigError(f"found {value!r:.60}: the first is higher than the second; {LIMITS_RULE}")
    return tuple(value)


def _check_when(text: Any) -> Any:
    parse_when(text)
    return text


def _check_keep(keep: Any) -> Any:
    keep_count(keep)
    return keep


def _check_max_age(text: Any) -> Any:
    if text is not None:
        duration_s(text)
    return text


def _check_after(text: Any) -> Any:
    if (seconds := duration_s(text)) < SAFE_AFTER_MIN_S:
        raise ConfigError(f"found {text!r} ({seconds:g} s); the shortest is {SAFE_AFTER_MIN_S:g} s.")
    return text


def _call(value: Any) -> Any:
    """`open` is short for `{method: open}`."""
    return {"method": value} if isinstance(value, str) else value


def _calls(value: Any) -> Any:
    if value is None:
        return []
    return value if isinstance(value, (list, tuple)) else [value]


def _switch(value: Any) -> Any:
    """`get: true`, or nothing after the colon, means the defaults; `false` means no access."""
    return {} if value is True or value is None else None if value is False else value


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else [] if value is None else value


Identifier = Annotated[str, AfterValidator(_check_identifier)]
Bound = float | int | None
Limits = Annotated[tuple[Bound, Bound] | None, BeforeValidator(_check_limits)]
WhenText = Annotated[str, BeforeValidator(_check_when)]
KeepWish = Annotated[
    Literal["all", "latest"] | Annotated[int, Field(ge=1)] | None,
    BeforeValidator(_check_keep),
]
MaxAge = Annotated[str | None, BeforeValidator(_check_max_age)]
KEEP_DESCRIPTION = (
    "what is handled of the messages that wait: all (the default), latest, or a number, the newest of each topic and"
    " source"
)
MAX_AGE_DESCRIPTION = "how old a message may be when its turn comes, such as 0.5s; left out, any age"
OnWish = Annotated[Literal["change"] | None, BeforeValidator(check_on)]
DeadBandWish = Annotated[float | dict[str, float] | None, BeforeValidator(check_dead_band)]
ON_DESCRIPTION = "change: only values that differ from the one published last; left out, every value"
DEAD_BAND_DESCRIPTION = "by how much a number must differ to count as changed, such as 0.5 or {temperature: 0.5}"
AfterText = Annotated[str, BeforeValidator(_check_after)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Topic = Annotated[str, Field(min_length=1)]


class ArgumentOptions(ConfigPart):
    """One argument of a method, or the value of a property."""

    limits: Limits = Field(
        None, description="[lowest, highest]; a value outside is refused before it reaches the device"
    )
    unit: str = Field("", description="its unit, such as W or °C, for whoever looks at the description")


class PropertyReading(ConfigPart):
    """How a property is read."""

    topic: Topic | None = Field(None, description="where it is published; left out, ClassName.property")
    every: WhenText | None = Field(None, description="when it is read and published, such as 0.5s")
    qos: Literal[0, 1] = Field(1, description="1 arrives at least once, 0 may be lost")
    save: bool = Field(False, strict=True, description="true: what is published is brought to disk, too")
    on: OnWish = Field(None, description=ON_DESCRIPTION)
    dead_band: DeadBandWish = Field(None, description=DEAD_BAND_DESCRIPTION)


class PropertyWriting(ConfigPart):
    """How a property is set, beside by calling `set_<property>`."""

    topic: Topic | None = Field(None, description="messages on this topic set it, too")
    qos: Literal[0, 1] = Field(1, description="1 arrives at least once, 0 may be lost")
    keep: KeepWish = Field(None, description=KEEP_DESCRIPTION)
    max_age: MaxAge = Field(None, description=MAX_AGE_DESCRIPTION)


class PropertyOptions(ArgumentOptions):
    """One property of a driver. `get` makes it readable by its name, `set` settable by `set_<name>`."""

    get: Annotated[PropertyReading | None, BeforeValidator(_switch)] = Field(
        PropertyReading(), description="true (the default), false, or a mapping: where and when it is published"
    )
    set: Annotated[PropertyWriting | None, BeforeValidator(_switch)] = Field(
        None, description="true, false (the default), or a mapping: which topic sets it, too"
    )


class CallOfMethod(ConfigPart):
    """One call that an instance makes of its own device."""

    method: Identifier = Field(description="a method of the class, or set_<property> of a settable property")
    args: Annotated[tuple[Any, ...], BeforeValidator(_calls)] = Field((), description="a list of arguments")
    kwargs: dict[str, Any] = Field({}, description="a mapping of arguments by name")


Calls = Annotated[tuple[Annotated[CallOfMethod, BeforeValidator(_call)], ...], BeforeValidator(_calls)]


class SafeStateOptions(ConfigPart):
    """What an instance does to its device when nobody is there any more."""

    after: AfterText = Field(description="how long broker, network or controller may be gone, such as 2s")
    calls: Annotated[Calls, Field(min_length=1)] = Field(description="what is called then, in this order")
    watch: Names = Field((), description="instances that control this one: it is safe when one of them is gone, too")
    allow: Names = Field((), description="methods that run all the same while the device is in its safe state")
    refuse: Names = Field(
        (), description="methods whose ticks end, too, although they take no argument and publish what they return"
    )
    force: bool = Field(
        False, strict=True, description="true: where the worker hangs, call from another thread, beside what it does"
    )
    at_stop: bool = Field(False, strict=True, description="true: also when the instance is stopped in order")


OnConnect = Annotated[Calls, Field(description="what is called once, before the instance is ready, in this order")]
OnStop = Annotated[Calls, Field(description="what is called last, before the process ends, in this order")]
SafeState = Annotated[
    SafeStateOptions | None, Field(description="what is called when controller, broker or network are gone")
]
