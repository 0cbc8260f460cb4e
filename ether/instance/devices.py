"""The devices that an instance's object uses: whether they are present, and the calls that care for them.

A device is found among the object's attributes and their attributes. It is any object whose class has a method
`watch_presence(callback)`, with a `presence` that has `online` and `reason`; the adapters of `hardware_adapters` do.
While one device is offline, the instance is announced as offline, with the reason; its return is announced, too. The
instance's methods can still be called meanwhile, and each decides itself what it raises.

`DeviceCalls` makes the calls that the configuration names for a device: `on_connect`, `on_stop`, `safe_state`.

The trap: the tree of attributes is the user's. It may change during the search, hold anything and contain cycles. So
the search calls nothing in it and compares nothing, and is bounded in depth and number.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, cast

from ether.config.path_text import parse_path
from ether.connection.failure_text import text_of
from ether.errors import MarkError, ValidationFailed
from ether.instance.drivers.building import Builder
from ether.instance.host import DeviceHost
from ether.spec.arguments import Arguments
from ether.spec.methods import MethodSpec
from ether.spec.path_methods import PathMethod
from ether.spec.paths import PathNotFound, follow
from ether.spec.wrapping import Limit, PlannedCall

_MAX_DEPTH = 4
_MAX_OBJECTS = 500


class DevicePresence(Protocol):
    """Whether a device is present; `since` in seconds of the epoch."""

    @property
    def online(self) -> bool:
        """True while the device can be used."""

    @property
    def reason(self) -> str:
        """Why it cannot be used."""

    @property
    def since(self) -> float:
        """When this began."""


class Device(Protocol):
    """An object that reports whether it is present."""

    @property
    def name(self) -> str:
        """A name for people."""

    @property
    def presence(self) -> DevicePresence:
        """Its presence now."""

    @property
    def closed(self) -> bool:
        """Whether it was closed on purpose: then its absence is not announced."""

    def watch_presence(self, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call `callback` whenever the presence changes; returns a function that ends this."""


class Devices:
    """The devices of one object. `changed` is called whenever their announcement changes."""

    def __init__(self, obj: object, changed: Callable[[], object]) -> None:
        self._object, self._changed = obj, changed
        self._lock = threading.Lock()
        self._known: dict[int, tuple[Device, Callable[[], None]]] = {}
        self._presences: dict[int, DevicePresence] = {}
        """The presence that each device reported last. Not its present one, whose reason may be that of the last
        attempt to reconnect: people want to read why the device went."""
        self._stopped = False

    def find(self) -> None:
        """Watch the devices that are not watched yet. Cheap, and to be repeated: an object may make devices late."""
        for device in found_below(self._object):
            with self._lock:
                if id(device) in self._known or self._stopped:
                    continue
                self._known[id(device)] = device, device.watch_presence(partial(self._on_presence, id(device)))
                presence = self._presences.setdefault(id(device), device.presence)
            if not presence.online:
                self._changed()

    def look_below(self, obj: object) -> None:
        """The instance has another object now: the devices of the one before count no longer."""
        with self._lock:
            self._object, known, self._known = obj, self._known, {}
            self._presences = {}
        for _, end in known.values():
            end()
        self.find()

    def _on_presence(self, key: int, presence: DevicePresence) -> None:
        """On a thread of the device."""
        with self._lock:
            self._presences[key] = presence
        self._changed()

    def about(self) -> dict[str, object]:
        """What is announced of the absent devices; empty while all are present."""
        with self._lock:
            presences = [(device, self._presences[key]) for key, (device, _) in self._known.items()]
        gone = [(device, presence) for device, presence in presences if not (presence.online or device.closed)]
        if not gone:
            return {}
        why = "; ".join(f"{device.name}: {presence.reason}" for device, presence in gone)
        return {"offline": {"why": why, "since": min(presence.since for _, presence in gone)}}

    def stop(self) -> None:
        """Watch the devices no longer. A second call does nothing."""
        with self._lock:
            self._stopped, known, self._known = True, self._known, {}
        for _, end in known.values():
            end()


def found_below(root: object) -> list[Device]:
    """The devices among an object, its attributes and their attributes; breadth first, so that near ones are found
    before the bound is reached."""
    found: list[Device] = []
    seen: set[int] = set()
    waiting: deque[tuple[object, int]] = deque([(root, 0)])
    while waiting and len(seen) < _MAX_OBJECTS:
        node, depth = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if callable(getattr(type(node), "watch_presence", None)):
            found.append(node)  # type: ignore[arg-type]
        elif depth < _MAX_DEPTH:
            waiting.extend((part, depth + 1) for part in _parts(node) if not _is_plain(part))
    return found


def _parts(node: object) -> Iterator[object]:
    """The values of a container or of an object's attributes. Reads `__dict__` only: properties could run user code."""
    parts: Iterable[object] = ()
    if isinstance(node, dict):
        parts = node.values()
    elif isinstance(node, (list, tuple)):
        parts = node
    elif isinstance(node, type) or type(node).__module__ in ("builtins", "threading", "logging"):
        return
    elif isinstance(attributes := getattr(node, "__dict__", None), Mapping):
        parts = attributes.values()
    try:
        yield from tuple(parts)[:_MAX_OBJECTS]
    except RuntimeError:  # it grew while it was copied; the next search finds the rest
        return


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, complex, type))


class DeviceCalls:
    """The calls that one instance makes to care for its device: `on_connect`, `on_stop` and `safe_state`."""

    def __init__(self, host: DeviceHost) -> None:
        """Raises `MarkError` for a call that the object cannot take."""
        self._host = host
        self.builder = Builder()
        """Makes the objects among the arguments of the calls."""
        self._kept: set[str] = set()
        self._specs = {method.name: method for method in host.spec.methods}
        care = host.spec.care
        self._check("on_connect", care.on_connect)
        self._check("on_alarm", self._of_alarms)
        self._check("on_stop", care.on_stop)
        if care.safe_state is not None:
            self._check("safe_state", care.safe_state.calls)
            for where, names in (("allow", care.safe_state.allow), ("refuse", care.safe_state.refuse)):
                for name in names:
                    self._function(name, f"safe_state.{where}")

    @property
    def _of_alarms(self) -> list[PlannedCall]:
        return [call for alarm in self._host.spec.alarms for call in alarm.calls]

    def connect(self) -> None:
        """Make the calls of `on_connect`, and keep what they return where the registry names it. Raises whatever they
        raise."""
        for number, call in enumerate(self._host.spec.care.on_connect):
            if not call.method.isidentifier():
                self._check("on_connect", (call,), connected=True)
            place = f"on_connect.{number}"
            args, kwargs = self.builder.plain(call.args, place), self.builder.plain(call.kwargs, place)
            result = self._host.call_own(call.method, args, kwargs)
            if call.kept_as is not None:
                self._keep(call.kept_as, result)

    def _keep(self, name: str, value: object) -> None:
        obj = self._host.object
        if inspect.getattr_static(obj, name, self) not in (self, None) and name not in self._kept:
            raise MarkError(f"on_connect: as: {name}: the object has a {name!r} of its own; choose another name")
        try:
            object.__setattr__(obj, name, value)
        except (AttributeError, TypeError):
            kind = type(obj).__qualname__
            raise MarkError(f"on_connect: as: {name}: an object of {kind} takes no attribute") from None
        self._kept.add(name)

    def check_paths(self) -> None:
        """Check the calls that lead into the object, now that it is connected: a mistake in `safe_state` must not show
        when it is needed. Raises `MarkError`."""
        care = self._host.spec.care
        safe = care.safe_state.calls if care.safe_state is not None else ()
        for where, calls in (("on_stop", care.on_stop), ("safe_state", safe), ("on_alarm", self._of_alarms)):
            self._check(where, [call for call in calls if not call.method.isidentifier()], connected=True)
        for method in self._host.spec.methods:
            own = method.accessor
            if isinstance(own, PathMethod) and own.is_fixed and own.limits:
                call = PlannedCall(own.path.text, own.args, own.kwargs)
                function = self._at_path(call.method, method.name)
                self._check_call(method.name, call, function, own.limits)

    def stop(self) -> tuple[list[str], dict[str, str]]:
        """Make the calls of an orderly stop. Returns the methods that ran, and the reasons of those that failed."""
        care = self._host.spec.care
        safe = care.safe_state
        calls = (*(safe.calls if safe is not None and safe.at_stop else ()), *care.on_stop)
        failed = self.make(calls, "at the stop")
        return [call.method for call in calls if call.method not in failed], failed

    def end_quietly(self) -> None:
        """Make the calls of `on_stop` for a device that is gone. What they raise is expected, and for nobody."""
        for call in self._host.spec.care.on_stop:
            try:
                args, kwargs = self.builder.plain(call.args, ""), self.builder.plain(call.kwargs, "")
                self._host.call_own(call.method, args, kwargs)
            except BaseException:  # noqa: BLE001  the device is gone
                continue

    def make(self, calls: Iterable[PlannedCall], why: str) -> dict[str, str]:
        """Make all of these calls, even after one has failed. Returns the reasons of those that failed, by method."""
        failed: dict[str, str] = {}
        for call in calls:
            try:
                place = call.method
                args, kwargs = self.builder.plain(call.args, place), self.builder.plain(call.kwargs, place)
                self._host.call_own(call.method, args, kwargs)
            except BaseException as error:  # noqa: BLE001  part of the worker loop: this is user code
                failed[call.method] = f"{type(error).__name__}: {text_of(error)}"
                self._host.report(f"{self._host.spec.name}.{call} ({why})", error, {})
        return failed

    def _check(self, where: str, calls: Iterable[PlannedCall], *, connected: bool = False) -> None:
        """Check calls before anything runs: a mistake in `safe_state` must not show when it is needed. What a path
        leads to is known when the device is connected."""
        for call in calls:
            if not call.method.isidentifier() and not connected:
                continue
            path = parse_path(call.method)
            by_path = (m for m in self._specs.values() if m.stands_at(path))
            spec = self._specs.get(call.method) or next(by_path, MethodSpec(call.method, ()))
            self._check_call(where, call, self._function(call.method, where), spec.limits)

    def _check_call(
        self, where: str, call: PlannedCall, function: Callable[..., Any], limits: Mapping[str, Limit]
    ) -> None:
        try:
            bound = inspect.signature(function).bind(*call.args, **call.kwargs)
        except TypeError as error:
            raise MarkError(f"{where}: {call}: {error}") from None
        except ValueError:  # some methods written in C have no signature
            return
        try:
            Arguments(function, call.method, limits).check_within(_by_name(bound))
        except ValidationFailed as error:
            raise MarkError(f"{where}: {call}: {error}") from None

    def _function(self, name: str, where: str) -> Callable[..., Any]:
        cls = type(self._host.object)
        if not name.isidentifier():
            return self._at_path(name, where)
        function: Callable[..., Any] | None
        function = self._host.function(name) if name in self._specs else getattr(self._host.object, name, None)
        if not callable(function):
            nearest = difflib.get_close_matches(name, [*dir(cls), *self._specs], n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise MarkError(f"{where}: {cls.__module__}.{cls.__qualname__} has no method {name!r}.{hint}")
        return function

    def _at_path(self, text: str, where: str) -> Callable[..., Any]:
        try:
            found = follow(self._host.object, parse_path(text))
        except PathNotFound as error:
            raise MarkError(f"{where}: {error}") from error
        if not callable(found):
            raise MarkError(f"{where}: {text} is a {type(found).__name__}, which cannot be called")
        return cast("Callable[..., Any]", found)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    given = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(name, {}))
    return given
