"""What the YAML may say of a driver beyond decorators: limits and units, properties, and the calls at connect, at stop
and in the safe state.

The models are turned into plain data, which `ether.spec.wrapping` reads, because an instance's process does not load
pydantic. The trap: `after: 2` without a unit is refused; a reader of a safe state must not have to guess the unit.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ether.config.builds import check_call, check_objects, import_paths, is_object
from ether.config.change import check_dead_band, check_on
from ether.config.keep import keep_count
from ether.config.part import ConfigPart
from ether.config.path_text import parse_path, parse_rest
from ether.config.rates import parse_rate
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


def _check_bound(bound: Any) -> Any:
    """One end of a range, as `_check_limits`."""
    if bound is not None and (type(bound) not in (int, float) or math.isnan(bound)):
        raise ConfigError(f"found {bound!r:.60}; expected a number.")
    return bound


def _check_rate(text: Any) -> Any:
    if text is not None:
        parse_rate(text)
    return text


def _check_band(band: Any) -> Any:
    if isinstance(band, dict):
        raise ConfigError(f"found {band!r:.60}; expected a number from 0, such as 0.5.")
    return check_dead_band(band)


def _check_path(text: str) -> str:
    parse_path(text)
    return text


def _check_objects(value: Any) -> Any:
    check_objects(value)
    return value


def _no_objects(value: Any) -> Any:
    if found := next(import_paths(value), None):
        raise ConfigError(
            f"found an object ({found}) among arguments that are used again and again; these take plain values. An"
            " object is made once: among the arguments of the instance, or by on_connect."
        )
    return value


def _result(value: Any) -> Any:
    """`value.magnitude` is short for `{value: .magnitude}`, `[ok, frame]` for `{names: [ok, frame]}`."""
    if isinstance(value, (list, tuple)):
        return {"names": value}
    if isinstance(value, str) and value != IGNORE_RESULT:
        if not value.startswith("value"):
            raise ConfigError(
                f"found {value!r:.60}; expected ignore, or a path that begins with value, such as value.magnitude or"
                " value[1]."
            )
        return {"value": value[len("value") :]}
    return value


def _check_rest(text: str) -> str:
    parse_rest(text)
    return text


def _check_field(name: str) -> str:
    parse_rest(f".{name}")
    return name


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


IGNORE_RESULT = "ignore"
Identifier = Annotated[str, AfterValidator(_check_identifier)]
Bound = float | int | None
RateWish = Annotated[str | None, BeforeValidator(_check_rate)]
OneBand = Annotated[float | None, BeforeValidator(_check_band)]
OneBound = Annotated[Bound, BeforeValidator(_check_bound)]
PathText = Annotated[str, AfterValidator(_check_path)]
Named = Annotated[Identifier | None, Field(alias="as")]
PlainArgs = Annotated[tuple[Any, ...], BeforeValidator(lambda value: _calls(value)), AfterValidator(_no_objects)]
PlainKwargs = Annotated[
    dict[str, Any], BeforeValidator(lambda value: {} if value is None else value), AfterValidator(_no_objects)
]
GivenArgs = Annotated[tuple[Any, ...], BeforeValidator(lambda value: _calls(value)), AfterValidator(_check_objects)]
GivenKwargs = Annotated[
    dict[str, Any], BeforeValidator(lambda value: {} if value is None else value), AfterValidator(_check_objects)
]
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


class ResultOptions(ConfigPart):
    """What becomes of a result before it is published, recorded or answered. The steps are made in this order."""

    value: Annotated[str, AfterValidator(_check_rest)] = Field(
        "", description="the way into it, such as .magnitude, [1] or .tolist()"
    )
    field: Annotated[Identifier, AfterValidator(_check_field)] | None = Field(
        None, description="the attribute that is taken, such as registers"
    )
    item: int | str | None = Field(None, description="the item that is taken: a number from 0, or a key")
    unit: str = Field("", description="the unit to which a quantity is converted; then its number is taken")
    names: Annotated[tuple[Identifier, ...], BeforeValidator(lambda value: _names(value))] = Field(
        (), description="names for the items of a tuple; the result is a mapping of these"
    )


ResultWish = Annotated[Literal["ignore"] | ResultOptions | None, BeforeValidator(_result)]
RESULT_DESCRIPTION = (
    "ignore: callers get null instead of what the method returns, which may be no plain value; value.magnitude,"
    " value[0], a list of names or a mapping: what is taken of it"
)


def _level(value: Any) -> Any:
    """`60` is short for `[null, 60]`: what is above is that level."""
    if value is None or isinstance(value, (list, tuple)):
        return _check_limits(value)
    try:
        return None, _check_bound(value)
    except ConfigError:
        raise ConfigError(f"found {value!r:.60}; {LEVEL_RULE}") from None


LEVEL_RULE = "expected the highest value that is well, such as 60, or the lowest and the highest, such as [10, 60]."
Level = Annotated[tuple[Bound, Bound] | None, BeforeValidator(_level)]


class AlarmOptions(ConfigPart):
    """When a value is a warning or an alarm."""

    warn: Level = Field(None, description="above it is a warning; [lowest, highest]: outside of them")
    alarm: Level = Field(None, description="above it is an alarm; [lowest, highest]: outside of them")
    latch: bool = Field(
        False, strict=True, description="true: an alarm stays, also when the value is well again, until acknowledged"
    )
    dead_band: OneBand = Field(None, description="by how much a value must be inside again to be well, such as 0.5")

    @model_validator(mode="after")
    def _check_order(self) -> AlarmOptions:
        if self.warn is None and self.alarm is None:
            raise ConfigError("has neither warn nor alarm; expected one of them, such as {warn: 60, alarm: 80}.")
        (low, high), (lowest, highest) = self.warn or (None, None), self.alarm or (None, None)
        if (high is not None and highest is not None and high > highest) or (
            low is not None and lowest is not None and low < lowest
        ):
            raise ConfigError("warns only where it is an alarm already; warn comes before alarm.")
        return self


class AlarmCall(ConfigPart):
    """A call that an instance makes of its own device when a value becomes an alarm."""

    call: PathText = Field(description="a method of the class or the path of one, or set_<property>")
    args: PlainArgs = Field((), description="a list of arguments")
    kwargs: PlainKwargs = Field({}, description="a mapping of arguments by name")


class AlarmedPart(ConfigPart):
    """What may have an alarm: a property, a method."""

    alarm: AlarmOptions | None = Field(None, description="when what it returns is a warning or an alarm")
    on_alarm: Annotated[
        tuple[Annotated[AlarmCall, BeforeValidator(lambda value: _factory(value))], ...],
        BeforeValidator(lambda value: _calls(value)),
    ] = Field((), description="what is called on the device when it becomes an alarm")

    @model_validator(mode="after")
    def _check_alarm(self) -> AlarmedPart:
        if self.on_alarm and (self.alarm is None or self.alarm.alarm is None):
            raise ConfigError("has on_alarm, and lacks the alarm: that it belongs to, such as alarm: {alarm: 80}.")
        return self


class ArgumentOptions(ConfigPart):
    """One argument of a method, or the value of a property."""

    limits: Limits = Field(
        None, description="[lowest, highest]; a value outside is refused before it reaches the device"
    )
    min: OneBound = Field(None, description="the lowest value, as the first of limits")
    max: OneBound = Field(None, description="the highest value, as the second of limits")
    unit: str = Field(
        "", description="the driver's unit, such as W or °C; values that come in another one are converted to it"
    )

    max_rate: RateWish = Field(
        None, description="how much it may change in which time, such as 5/s; a larger change is refused"
    )
    dead_band: OneBand = Field(None, description="beside max_rate: by how much more it may change, such as 0.1")

    @model_validator(mode="after")
    def _check_range(self) -> ArgumentOptions:
        if self.dead_band is not None and self.max_rate is None:
            raise ConfigError("has a dead_band without max_rate, which it belongs to; that of what is published stands"
                              " below get.")  # fmt: skip
        if self.limits is not None and (self.min is not None or self.max is not None):
            raise ConfigError("has both limits and min or max; say the range once.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"min {self.min:g} is higher than max {self.max:g}.")
        return self


class PropertyReading(ConfigPart):
    """How a property is read."""

    topic: Topic | None = Field(None, description="where it is published; left out, ClassName.property")
    every: WhenText | None = Field(None, description="when it is read and published, such as 0.5s")
    qos: Literal[0, 1] = Field(1, description="1 arrives at least once, 0 may be lost")
    save: bool = Field(False, strict=True, description="true: what is published is brought to disk, too")
    on: OnWish = Field(None, description=ON_DESCRIPTION)
    dead_band: DeadBandWish = Field(None, description=DEAD_BAND_DESCRIPTION)
    call: Identifier | None = Field(None, description="the method of what stands there that reads it, such as get")
    args: PlainArgs = Field((), description="a list of arguments for that method")
    kwargs: PlainKwargs = Field({}, description="a mapping of arguments for that method")


class PropertyWriting(ConfigPart):
    """How a property is set, beside by calling `set_<property>`."""

    call: Identifier | None = Field(
        None, description="the method of what stands there that sets it, such as set; it gets the value first"
    )
    args: PlainArgs = Field((), description="a list of further arguments for that method, behind the value")
    kwargs: PlainKwargs = Field({}, description="a mapping of further arguments for that method")

    topic: Topic | None = Field(None, description="messages on this topic set it, too")
    qos: Literal[0, 1] = Field(1, description="1 arrives at least once, 0 may be lost")
    keep: KeepWish = Field(None, description=KEEP_DESCRIPTION)
    max_age: MaxAge = Field(None, description=MAX_AGE_DESCRIPTION)


class PropertyOptions(ArgumentOptions, AlarmedPart):
    """One property of a driver. `get` makes it readable by its name, `set` settable by `set_<name>`."""

    as_: Named = Field(None, description="its name for callers; left out, the name itself, of a path one made of it")
    result: ResultWish = Field(None, description=RESULT_DESCRIPTION)
    get: Annotated[PropertyReading | None, BeforeValidator(_switch)] = Field(
        PropertyReading(), description="true (the default), false, or a mapping: where and when it is published"
    )
    set: Annotated[PropertyWriting | None, BeforeValidator(_switch)] = Field(
        None, description="true, false (the default), or a mapping: which topic sets it, too"
    )

    @model_validator(mode="after")
    def _check_is_used(self) -> PropertyOptions:
        if self.alarm is not None and self.get is None:
            raise ConfigError("has an alarm of what is read, and get: false.")
        if self.max_rate is not None and self.set is None:
            raise ConfigError("has max_rate, which limits what is set, and lacks set: true.")
        return self


class CallOfMethod(ConfigPart):
    """One call that an instance makes of its own device."""

    method: PathText = Field(
        description="a method of the class or the path of one, or set_<property> of a settable property"
    )
    args: GivenArgs = Field((), description="a list of arguments")
    kwargs: GivenKwargs = Field({}, description="a mapping of arguments by name")
    as_: Named = Field(None, description="the name under which what it returns is kept, for paths; at on_connect alone")


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


def _topic_alone(value: Any) -> Any:
    """`when_pressed: button/pressed` is short for `when_pressed: {topic: button/pressed}`."""
    return {"topic": value} if isinstance(value, str) else value


class CallbackOptions(ConfigPart):
    """A function that is handed over to the driver: what the driver calls it with is published. Where the path leads to
    a method, that is called with it; else it is set."""

    topic: Topic = Field(description="where it is published")
    qos: Literal[0, 1] = Field(1, description="1 arrives at least once, 0 may be lost")
    save: bool = Field(False, strict=True, description="true: what is published is brought to disk, too")
    as_: Named = Field(None, description="its name; left out, one made of the path")
    result: ResultWish = Field(None, description=RESULT_DESCRIPTION)
    args: GivenArgs = Field((), description="a list of arguments for the method; $callback stands for the function")
    kwargs: GivenKwargs = Field({}, description="arguments by name for the method; $callback stands for the function")


class BuildOptions(ConfigPart):
    """How the object is made, where not by calling the class with `args` and `kwargs`."""

    call: str | None = Field(None, description="a factory of the class, or a method of the object below of:")
    loop: bool = Field(
        False, strict=True, description="true: it is made on the instance's event loop, which its constructor needs"
    )
    of: dict[str, Any] | None = Field(
        None, description="another object, {build: package.Class, …}, that has the method"
    )
    args: GivenArgs = Field((), description="a list of arguments; left out, those of the instance")
    kwargs: GivenKwargs = Field({}, description="a mapping of arguments; left out, those of the instance")

    @model_validator(mode="after")
    def _check_recipe(self) -> BuildOptions:
        if self.call is None and self.loop and self.of is None:
            return self
        if self.call is None:
            raise ConfigError("lacks call, the factory; expected {call: open_tcpip}, with of: for another object's.")
        check_call(self.call, "call")
        if self.of is not None:
            if not is_object(self.of):
                raise ConfigError("expected {build: package.Class, args: […]}.", path="of")
            check_objects(self.of, "of")
        return self


def _factory(value: Any) -> Any:
    """`build: open_tcpip` is short for `build: {call: open_tcpip}`."""
    return {"call": value} if isinstance(value, str) else value


def _variables(value: Any) -> Any:
    """Numbers are written as text; null removes a variable."""
    if not isinstance(value, dict):
        return value
    return {name: str(given) if type(given) in (int, float) else given for name, given in value.items()}


Build = Annotated[BuildOptions | None, BeforeValidator(_factory)]
Callback = Annotated[CallbackOptions, BeforeValidator(_topic_alone)]
Variables = Annotated[dict[str, str | None], BeforeValidator(_variables)]
Enter = Annotated[
    bool,
    Field(
        strict=True,
        description="true: the object is a context manager; it is entered before anything else, and left last",
    ),
]


class OnErrorOptions(ConfigPart):
    """What happens when the driver says, by its exceptions, that its device is gone."""

    errors: Annotated[Names, Field(min_length=1)] = Field(
        ("OSError", "EOFError", "termios.error"),
        description="exceptions that say so, by their name or package.Class; those that inherit from them count, too",
    )
    then: Literal["reconnect", "rebuild", "restart"] = Field(
        "rebuild",
        description="reconnect: on_stop and on_connect again; rebuild: the object is made again, too; restart: the"
        " process ends, and is started again as restart: says",
    )
    after: int = Field(3, ge=1, le=1000, strict=True, description="so many failures in a row")
    within: Annotated[str | None, BeforeValidator(_check_max_age)] = Field(
        None, description="so many failures within this time, such as 10s; left out, however long it takes"
    )


class AliveOptions(ConfigPart):
    """A question that is asked of the device again and again, to learn whether it is there."""

    method: PathText = Field(description="a method of the class, or the path of one, that asks the device something")
    args: PlainArgs = Field((), description="a list of arguments")
    kwargs: PlainKwargs = Field({}, description="a mapping of arguments by name")
    every: WhenText = Field("5s", description="how often, such as 5s")


OnError = Annotated[
    OnErrorOptions | None, Field(description="which exceptions mean that the device is gone, and what is done then")
]
Alive = Annotated[
    AliveOptions | None,
    BeforeValidator(_call),
    Field(description="a method that is called again and again: without an answer the device is offline"),
]
OnConnect = Annotated[Calls, Field(description="what is called once, before the instance is ready, in this order")]
OnStop = Annotated[Calls, Field(description="what is called last, before the process ends, in this order")]
SafeState = Annotated[
    SafeStateOptions | None, Field(description="what is called when controller, broker or network are gone")
]
