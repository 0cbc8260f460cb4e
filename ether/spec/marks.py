"""Marks: what a decorator (or the registry) says about one method.

A mark is a value. A decorator stores it in an attribute of the function, the registry keeps it beside the class;
nothing else about a class changes, so that it works the same without Ether.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ether.config.change import DeadBand, parse_change
from ether.config.keep import Keep, parse_keep
from ether.config.topic_parts import Places, parse_topic
from ether.config.when import duration_s, parse_when
from ether.errors import ConfigError, MarkError

ATTRIBUTE = "__ether_marks__"
START_TOPIC = "start"
_FIELD_NAMES = {"as": "name"}
"""Options whose names are words of Python's."""
IGNORE = "ignore"
"""What a method returns is for nobody: it may be an object of the driver's own."""


class MarkKind(enum.Enum):
    """What a marked method is for."""

    PUB = "ether_pub"
    SUB = "ether_sub"
    GET = "ether_get"
    SAVE = "ether_save"
    SYNC = "ether_sync"
    EVERY = "ether_every"
    INIT = "ether_init"
    SAVE_ALL = "ether_save_all"
    CLEANUP = "ether_cleanup"
    SHUTDOWN = "ether_shutdown"


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark.

    `topic`: None stands for the default, `ClassName.method`; only PUB, SUB and SYNC have a topic. `save`: published
    values are recorded durably, too. `concurrency`: on how many threads of its own the method runs, outside of the
    instance's worker; None: on the worker. `every`: when Ether calls the method by itself, as written for
    `ether.config.when`; only PUB and EVERY have it. `on` and `dead_band`: which of the returned values are published,
    as written for `ether.config.change`; only PUB has them. `keep` and `max_age`: what is handled of the messages that
    wait, as written for `ether.config.keep`, None where nothing is said; only SUB has them. `takes`: how long a call
    may take, a duration such as `5min`; only GET and SAVE have it. A SUB's `topic` may have named levels
    (`plant/pump/{id}/state`): it becomes the filter, and `places` says where the names stand. `result`: `IGNORE` where
    callers get None; only GET, SAVE and SYNC have it. `stream`: a thread
    of its own calls the method again and again; `args` and `kwargs`: what Ether calls it with, under the `name` of this
    use; only PUB has these."""

    kind: MarkKind
    topic: str | None = None
    qos: int = 1
    concurrency: int | None = None
    save: bool = False
    every: str | None = None
    keep: str | int | None = None
    max_age: str | None = None
    on: str | None = None
    dead_band: DeadBand | None = None
    takes: str | None = None
    places: Places = ()
    result: str | None = None
    stream: bool = False
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.kind is MarkKind.SUB and self.topic is not None and not self.places:
            try:
                topic_filter, places = parse_topic(self.topic)
            except ConfigError as error:
                raise MarkError(f"{self.kind.value}: {error}") from None
            object.__setattr__(self, "topic", topic_filter)
            object.__setattr__(self, "places", places)
        if self.qos not in (0, 1):
            raise MarkError(f"{self.kind.value}: qos is 0 (may be lost) or 1 (at least once), not {self.qos!r}")
        if self.concurrency is not None and (not isinstance(self.concurrency, int) or self.concurrency < 1):
            raise MarkError(f"{self.kind.value}: concurrency is a number from 1, not {self.concurrency!r}")
        if self.every is not None or self.kind is MarkKind.EVERY:
            try:
                parse_when(self.every)
            except ConfigError as error:
                raise MarkError(f"{self.kind.value}: {error}") from None
        name = ""
        try:
            parse_keep(self.keep, self.max_age)
            parse_change(self.on, self.dead_band)
            name = "takes: "
            if self.takes is not None:
                duration_s(self.takes)
        except ConfigError as error:
            raise MarkError(f"{self.kind.value}: {name}{error}") from None

    @property
    def kept(self) -> Keep:
        """What is handled of the messages that wait."""
        return parse_keep(self.keep, self.max_age)

    @property
    def only_changes(self) -> DeadBand | None:
        """The dead band where only changes are published, 0.0 for any change; None where every value is."""
        return parse_change(self.on, self.dead_band)


def mark_from_options(decorator: str, options: Mapping[str, Any]) -> Mark:
    """The mark that a registry entry `decorator: {options}` stands for; raises `MarkError`."""
    if decorator == "ether_start":
        return Mark(MarkKind.SUB, START_TOPIC, **options)
    options = {_FIELD_NAMES.get(key, key): value for key, value in options.items()}
    options["args"] = tuple(options.get("args") or ())
    try:
        return Mark(MarkKind(decorator), **options)
    except ValueError:
        known = ", ".join(sorted([*(kind.value for kind in MarkKind), "ether_start"]))
        raise MarkError(f"there is no decorator {decorator!r}; there are {known}") from None
    except TypeError as error:
        raise MarkError(f"{decorator} does not take these options: {dict(options)!r} ({error})") from None


def marks_of(function: object) -> tuple[Mark, ...]:
    """The marks that decorators stored on a function, in the order of the source: the topmost decorator first."""
    marks: tuple[Mark, ...] = getattr(underlying(function), ATTRIBUTE, ())
    return marks


def add_mark(function: Callable[..., Any], mark: Mark) -> None:
    """Store a mark on a function, before those that it has. Raises `MarkError` for any other object."""
    target = underlying(function)
    if isinstance(target, (type, str, property)) or not callable(target):
        below = ": put it below @property, above its def" if isinstance(target, property) else ""
        raise MarkError(f"@{mark.kind.value} marks methods; {function!r} is a {type(function).__name__}{below}")
    try:
        setattr(target, ATTRIBUTE, (mark, *marks_of(target)))
    except AttributeError:
        raise MarkError(f"@{mark.kind.value} cannot mark {function!r}: it takes no attributes") from None


def underlying(function: object) -> object:
    """The plain function inside a staticmethod or classmethod."""
    return function.__func__ if isinstance(function, (staticmethod, classmethod)) else function
