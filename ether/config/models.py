"""The configuration as values: which instances there are, and how classes without decorators are marked.

These models are the only description of the configuration; error messages and the JSON Schema are made from them. They
are frozen. Validation imports and opens nothing: of a class path only the spelling is checked. The trap: the docstrings
of models and the descriptions of fields are shown to users, in the JSON Schema and in error messages.
"""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from ether.config.broker import BrokerField, EmbeddedBroker
from ether.config.builds import check_objects
from ether.config.drivers import (
    DEAD_BAND_DESCRIPTION,
    KEEP_DESCRIPTION,
    MAX_AGE_DESCRIPTION,
    ON_DESCRIPTION,
    RESULT_DESCRIPTION,
    AlarmedPart,
    Alive,
    ArgumentOptions,
    Build,
    Callback,
    DeadBandWish,
    Enter,
    Identifier,
    KeepWish,
    MaxAge,
    OnConnect,
    OnError,
    OnStop,
    OnWish,
    PathText,
    PlainArgs,
    PlainKwargs,
    PropertyOptions,
    ResultWish,
    SafeState,
    Variables,
    WhenText,
)
from ether.config.names import check_name, class_path_of
from ether.config.part import ConfigPart, without_unsaid
from ether.config.plan import RunPlans
from ether.config.record import RecordField
from ether.config.when import duration_s
from ether.errors import ConfigError, InvalidName

NAME_KEYWORD = "ether_name"


def _empty_if_none(value: Any) -> Any:
    """`kwargs:` with nothing after the colon means no kwargs."""
    return {} if value is None else value


def _empty_list_if_none(value: Any) -> Any:
    return [] if value is None else value


def _list_of_names(value: Any) -> Any:
    """`after: camera` is short for `after: [camera]`."""
    return [value] if isinstance(value, str) else _empty_list_if_none(value)


def _each_use(value: Any) -> Any:
    """A decorator's options as the list of its uses; nothing after the colon means one use with the defaults."""
    if value is None:
        return [{}]
    return value if isinstance(value, (list, tuple)) else [value]


def _each_time(value: Any) -> Any:
    """`ether_every: 5s` is short for `ether_every: {every: 5s}`."""
    uses = value if isinstance(value, (list, tuple)) else [value]
    return [{"every": use} if isinstance(use, (str, int, float)) else use for use in uses]


def _check_duration(text: str | None) -> str | None:
    if text is not None:
        duration_s(text)
    return text


def _check_module(name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r:.80} is not the name of a module.")
    return name


def _objects_checked(value: Any) -> Any:
    check_objects(value)
    return value


def _check_given_name(kwargs: dict[str, Any]) -> dict[str, Any]:
    if NAME_KEYWORD in kwargs:
        try:
            check_name("instance", kwargs[NAME_KEYWORD])
        except InvalidName as error:
            raise ConfigError(str(error), path=NAME_KEYWORD) from error
    return kwargs


SessionName = Annotated[str, AfterValidator(partial(check_name, "session"))]
HostName = Annotated[str, AfterValidator(partial(check_name, "host"))]
InstanceName = Annotated[str, AfterValidator(partial(check_name, "instance"))]
ClassPath = Annotated[str, BeforeValidator(class_path_of)]
ModuleName = Annotated[str, AfterValidator(_check_module)]
EmptyIfNone = BeforeValidator(_empty_if_none)
TopicName = Annotated[str, Field(min_length=1)] | None
Qos = Literal[0, 1]
Ignored = Literal["ignore"] | None
IGNORE_DESCRIPTION = "ignore: callers get null instead of what the method returns, which may be no plain value"


class HangOptions(ConfigPart):
    """When an instance counts as hung, and what happens then."""

    silent_s: float = Field(
        1.5, ge=1.0, le=3600, description="seconds without a sign of life of its process; signs come twice a second"
    )
    busy_s: float | None = Field(
        None, gt=0, description="seconds that one message or call may take; left out, as long as it likes"
    )
    reaction: Literal["report", "restart"] = Field(
        "report", description="report: its state is hung until it answers again; restart: kill it and start it again"
    )


class DeviceOptions(ConfigPart):
    """What one device may do that is no host of an instance: users' topics, and calls."""

    publishes: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None, description="topics, + and # allowed, that it publishes on; mqtt:TOPIC outside of the session"
    )
    hears: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None, description="topics, + and # allowed, that it subscribes to"
    )
    calls: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None, description="what it calls: INSTANCE or INSTANCE.METHOD"
    )


class SecurityOptions(ConfigPart):
    """What devices may do that are no host of an instance."""

    guests: Literal["none", "read", "call", "all"] = Field(
        "call", description="none; read: hear data; call: also call methods; all: everything, as this machine"
    )
    devices: dict[HostName, DeviceOptions] = Field(
        default_factory=dict,
        description="by the name that `ether pair` gave it what a device may do; one with a password may do this alone",
    )


class EndOptions(ConfigPart):
    """How long the end of the instances may take."""

    work_s: float = Field(
        5.0,
        ge=0.5,
        le=3600,
        description="seconds, together, for handlers that are at work, threads and atexit functions; then they are left"
        " or killed",
    )
    save_s: float = Field(
        60.0,
        ge=0.5,
        le=86400,
        description="seconds for each of save_all, cleanup and shutdown, and for sending what was recorded; work_s cuts"
        " none of them short",
    )


def _texts_or_none(given: Any) -> Any:
    """One text, or a list of them."""
    return [given] if isinstance(given, str) else given


class EtherInstanceConfig(ConfigPart):
    """One instance: which class, and what its constructor is given."""

    class_path: ClassPath = Field(description="the class as package.module.Class; in Python the class itself will do")
    args: Annotated[tuple[Any, ...], BeforeValidator(_empty_list_if_none), AfterValidator(_objects_checked)] = Field(
        (), description="a list of positional arguments for the constructor"
    )
    kwargs: Annotated[
        dict[str, Any], EmptyIfNone, AfterValidator(_check_given_name), AfterValidator(_objects_checked)
    ] = Field({}, description=f"a mapping of keyword arguments for the constructor; {NAME_KEYWORD} names the instance")
    build: Build = Field(None, description="the factory that makes the object, where the class itself does not")
    enter: Enter = False
    env: Annotated[Variables, EmptyIfNone] = Field(
        {}, description="environment variables of its process, set before the class is imported; null removes one"
    )
    autorun: bool = Field(
        True, strict=True, description="true: start with the session; false: described, but not started"
    )

    concurrency: int = Field(1, ge=1, le=256, strict=True, description="how many messages and calls it takes at a time")
    keep: KeepWish = Field(
        None, description=f"{KEEP_DESCRIPTION}; for all subscriptions of the instance that do not say it themselves"
    )
    max_age: MaxAge = Field(
        None, description=f"{MAX_AGE_DESCRIPTION}; for all subscriptions of the instance that do not say it themselves"
    )

    restart: Literal["never", "on-failure", "always"] = Field(
        "never", description="whether it is started again when its process ends; on-failure: if not with exit code 0"
    )
    restart_limit: int = Field(
        5, ge=1, le=1000, strict=True, description="restarts within restart_window_s after which it counts as failed"
    )
    restart_window_s: float = Field(60.0, gt=0, description="seconds over which restarts are counted")
    after: Annotated[tuple[InstanceName, ...], BeforeValidator(_list_of_names)] = Field(
        (), description="a list of instances that must be ready before this one is built"
    )
    hang: Annotated[HangOptions, EmptyIfNone] = Field(
        HangOptions(), description="when it counts as hung, and what happens then"
    )
    detach: bool = Field(
        False,
        strict=True,
        description="true: processes that its code has started live on when it ends; false: they end with it",
    )
    fork: bool = Field(
        True,
        strict=True,
        description="false: its process is started by itself, not forked from the template process; for libraries that"
        " do not survive a fork. Only Linux has such a process",
    )
    host: HostName | None = Field(
        None, description="the machine whose agent runs it (`ether agent` there); left out, this one"
    )
    publishes: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None,
        description="topics that its code publishes on beside its decorators (ether.pub); for rights of its device",
    )
    hears: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None, description="topics, + and # allowed, that its code subscribes to beside its decorators (ether.subscribe)"
    )
    calls: Annotated[tuple[str, ...] | None, BeforeValidator(_texts_or_none)] = Field(
        None, description="what its code calls: SERVICE or SERVICE.METHOD"
    )
    on_connect: OnConnect = ()
    on_stop: OnStop = ()
    safe_state: SafeState = None
    on_error: OnError = None
    alive: Alive = None

    def name_or(self, key: str) -> str:
        """The name that `ether_name` gives, else `key`."""
        return str(self.kwargs.get(NAME_KEYWORD, key))

    @property
    def constructor_kwargs(self) -> dict[str, Any]:
        """`kwargs` without `ether_name`, which is for Ether and not for the class."""
        return {key: value for key, value in self.kwargs.items() if key != NAME_KEYWORD}


class TopicOptions(ConfigPart):
    """What `ether_sub` may be told."""

    topic: TopicName = Field(None, description="the topic; left out, it is ClassName.method")
    qos: Qos = Field(1, description="1 arrives at least once, 0 may be lost")
    keep: KeepWish = Field(None, description=KEEP_DESCRIPTION)
    max_age: MaxAge = Field(None, description=MAX_AGE_DESCRIPTION)


class StartOptions(ConfigPart):
    """What `ether_start` may be told."""

    keep: KeepWish = Field(None, description=KEEP_DESCRIPTION)
    max_age: MaxAge = Field(None, description=MAX_AGE_DESCRIPTION)


class PubOptions(ConfigPart):
    """What `ether_pub` may be told."""

    topic: TopicName = Field(None, description="the topic; left out, it is ClassName.method")
    qos: Qos = Field(1, description="1 arrives at least once, 0 may be lost")
    save: bool = Field(False, strict=True, description="true: what is published is brought to disk, too")
    every: WhenText | None = Field(None, description="when the method is called by itself, such as 0.5s")
    stream: bool = Field(
        False, strict=True,
        description="true: a thread of its own calls it as soon as the instance is ready, and again whenever it"
        " returns; what it returns or yields is published",
    )  # fmt: skip
    args: PlainArgs = Field((), description="a list of arguments with which it is called at its times; needs as")
    kwargs: PlainKwargs = Field({}, description="arguments by name with which it is called at its times; needs as")
    as_: Identifier | None = Field(None, alias="as", description="the name of this use, which has its own arguments")
    on: OnWish = Field(None, description=ON_DESCRIPTION)
    dead_band: DeadBandWish = Field(None, description=DEAD_BAND_DESCRIPTION)

    @model_validator(mode="after")
    def _check_own_times(self) -> PubOptions:
        if self.stream and self.every is not None:
            raise ConfigError("has both every and stream: a stream is called again as soon as it has returned.")
        if (self.args or self.kwargs) and not (self.every or self.stream):
            raise ConfigError("has arguments, and no time at which it is called with them: say every or stream, too.")
        if (self.args or self.kwargs) and self.as_ is None:
            raise ConfigError("has arguments of its own, so it needs a name: as: temperature.")
        return self


class EveryOptions(ConfigPart):
    """What `ether_every` may be told."""

    every: WhenText = Field(
        description="when the method is called, such as 0.5s, '*/5 * * * *' or 'at 2026-01-16 07:30'"
    )


Takes = Annotated[str | None, AfterValidator(_check_duration)]


class CallOptions(ConfigPart):
    """What `ether_get` and `ether_save` may be told."""

    concurrency: int | None = Field(
        None, ge=1, le=256, strict=True,
        description="how many calls may run at the same time, on threads of their own; left out, on the worker",
    )  # fmt: skip
    takes: Takes = Field(None, description="how long a call may take, such as 5min; callers wait as long, and 10 s")
    result: Ignored = Field(None, description=IGNORE_DESCRIPTION)


class SyncOptions(ConfigPart):
    """What `ether_sync` may be told."""

    topic: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="the topic of ether.sync(topic); left out, it is ClassName.method"
    )
    result: Ignored = Field(None, description=IGNORE_DESCRIPTION)


class NoOptions(ConfigPart):
    """A decorator that takes no options: `{}`, or nothing after the colon."""


TopicUses = Annotated[tuple[TopicOptions, ...], BeforeValidator(_each_use), Field(min_length=1)]
StartUse = Annotated[tuple[StartOptions, ...], BeforeValidator(_each_use), Field(min_length=1, max_length=1)]
PubUses = Annotated[tuple[PubOptions, ...], BeforeValidator(_each_use), Field(min_length=1)]
CallUse = Annotated[tuple[CallOptions, ...], BeforeValidator(_each_use), Field(min_length=1, max_length=1)]
SyncUses = Annotated[tuple[SyncOptions, ...], BeforeValidator(_each_use), Field(min_length=1)]
EveryUses = Annotated[tuple[EveryOptions, ...], BeforeValidator(_each_time), Field(min_length=1)]
OneUse = Annotated[tuple[NoOptions, ...], BeforeValidator(_each_use), Field(min_length=1, max_length=1)]


class RegistryMethod(AlarmedPart):
    """The decorators of one method. Each is the list of its uses; an empty one was not given."""

    ether_pub: PubUses = Field((), description="publish what the method returns")
    ether_sub: TopicUses = Field((), description="call the method with every message on a topic")
    ether_get: CallUse = Field((), description="answer ether.get(...) with what the method returns")
    ether_save: CallUse = Field((), description="answer ether.save(...) with a status")
    ether_sync: SyncUses = Field((), description="call the method on ether.sync(topic), which waits for all")
    ether_every: EveryUses = Field((), description="call the method again and again, at set times")
    ether_start: StartUse = Field((), description="call the method on ether.start()")
    ether_init: OneUse = Field((), description="call the method once, before the instance is ready")
    ether_save_all: OneUse = Field((), description="call the method on ether.save_all() and at shutdown")
    ether_cleanup: OneUse = Field((), description="call the method on ether.cleanup() and at shutdown")
    ether_shutdown: OneUse = Field((), description="call the method last, before the process ends")

    arguments: Annotated[dict[Identifier, ArgumentOptions], EmptyIfNone] = Field(
        {}, description="limits and units of its arguments, by name"
    )
    as_: Identifier | None = Field(
        None, alias="as", description="its name for callers; left out, the name itself, of a path one made of it"
    )
    result: ResultWish = Field(None, description=f"{RESULT_DESCRIPTION}; for all decorators of the method")

    loop: bool = Field(
        False,
        strict=True,
        description="true: it is called on the instance's event loop, which it needs although it is no async def",
    )

    def marks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each use of each decorator that was given: the decorator's name, and the options by name."""
        for decorator in DECORATORS:
            for use in getattr(self, decorator):
                options = without_unsaid(use.model_dump(by_alias=True))
                if self.result == "ignore" and "result" in type(use).model_fields:
                    options["result"] = self.result
                yield decorator, options


DECORATORS = tuple(name for name in RegistryMethod.model_fields if name.startswith("ether_"))


def _check_marked(method: RegistryMethod) -> RegistryMethod:
    if not any(method.marks()) and not method.arguments and not method.alarm:
        decorators = ", ".join(DECORATORS)
        raise ConfigError(f"no decorator is given; expected at least one of {decorators}.")
    return method


class RegistryEntry(ConfigPart):
    """What is said of one class whose source stays as it is."""

    methods: Annotated[
        dict[PathText, Annotated[RegistryMethod, EmptyIfNone, AfterValidator(_check_marked)]], EmptyIfNone
    ] = Field({}, description="a mapping from method names, or paths, to their decorators")
    properties: Annotated[dict[PathText, Annotated[PropertyOptions, EmptyIfNone]], EmptyIfNone] = Field(
        {}, description="a mapping from names of properties, or paths, to how they are read and set"
    )
    callbacks: Annotated[dict[PathText, Callback], EmptyIfNone] = Field(
        {}, description="a mapping from paths to topics: a function that publishes is set there, or handed over"
    )
    enter: Enter = False
    on_connect: OnConnect = ()
    on_stop: OnStop = ()
    safe_state: SafeState = None
    on_error: OnError = None
    alive: Alive = None


def _check_distinct(instances: dict[str, EtherInstanceConfig]) -> dict[str, EtherInstanceConfig]:
    keys: dict[str, str] = {}
    for key, instance in instances.items():
        name = instance.name_or(key)
        if name in keys:
            raise ConfigError(
                f"instances {keys[name]!r} and {key!r} are both named {name!r}. An instance is named by its key,"
                f" or by {NAME_KEYWORD} in its kwargs; names are distinct.",
                path=key,
            )
        keys[name] = key
    return instances


def _check_order(instances: dict[str, EtherInstanceConfig]) -> dict[str, EtherInstanceConfig]:
    """Each `after` must name an instance, and no instances may wait for each other in a circle."""
    names = {instance.name_or(key): key for key, instance in instances.items()}
    for key, instance in instances.items():
        for other in instance.after:
            if other not in names:
                nearest = next(iter(difflib.get_close_matches(other, names, n=1)), None)
                raise ConfigError(f"there is no instance {other!r} to wait for.", path=f"{key}.after", nearest=nearest)
    waits = {name: set(instances[key].after) for name, key in names.items()}
    try:
        graphlib.TopologicalSorter(waits).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(f"these wait for each other: {circle}.", path=f"{names[error.args[1][0]]}.after") from error
    return instances


class Written(NamedTuple):
    """A configuration file as it was written: its name, its text, and its folder."""

    file: str
    text: str
    folder: str = ""


class EtherConfig(ConfigPart):
    """A whole configuration. Everything has a default: an empty one starts a session without instances."""

    session: SessionName | None = Field(
        None, description="the name under which programs find this session; left out, one is made up"
    )
    broker: BrokerField = Field(
        EmbeddedBroker(), description="embedded, a mapping of its settings, or the URL of a broker that runs already"
    )
    instances: Annotated[
        dict[InstanceName, EtherInstanceConfig],
        EmptyIfNone,
        AfterValidator(_check_distinct),
        AfterValidator(_check_order),
    ] = Field({}, description="a mapping from names to the instances of the session")
    registry: Annotated[dict[ClassPath, RegistryEntry], EmptyIfNone] = Field(
        {}, description="a mapping from class paths to the marks of classes without decorators"
    )

    record: RecordField = Field(
        None,
        description="what is recorded to disk: all, a list of topics, or a mapping; left out, what asks to be",
    )

    security: SecurityOptions | None = Field(
        None, description="what devices may do that no `host:` names; with it every device has rights, and no more"
    )

    begin_within_s: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="seconds after which an instance that is ready begins its ticks although others that the program"
        " starts are not ready; 0: at once",
    )

    end: Annotated[EndOptions, EmptyIfNone] = Field(
        EndOptions(), description="how long the end of the instances may take"
    )

    preload: Annotated[tuple[ModuleName, ...], BeforeValidator(_list_of_names)] = Field(
        (),
        description="a list of modules that are imported once, in the process from which the instances of this machine"
        " are forked (Linux), and not in each of them",
    )
    plan: RunPlans = Field({}, description="a mapping from the names of runs to their trials, for ether plan")
    simulate: str | dict[str, Any] | None = Field(
        None,
        description="the simulated lab that stands for the bench in a run with --sim: a mapping, or the name of a YAML"
        " file that holds one",
    )

    _written: Written | None = PrivateAttr(None)

    @property
    def written(self) -> Written | None:
        """The file from which this was read; None where it did not come from a file."""
        return self._written

    def read_from(self, written: Written | None) -> EtherConfig:
        """A copy that knows the file from which it was read."""
        known = self.model_copy()
        known._written = written
        return known

    def __eq__(self, other: object) -> bool:
        """Equal content counts; the file from which it was read does not."""
        return isinstance(other, EtherConfig) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    def named_instances(self) -> dict[str, EtherInstanceConfig]:
        """The instances under their final names (`ether_name`, else the key), in the order of the file."""
        return {instance.name_or(key): instance for key, instance in self.instances.items()}
