"""The devices of an instance's object: whether they are there, for everybody to see.

What tells of itself is looked for among the object's attributes, and theirs: anything whose class has a method
`watch_presence(callback)`, and a `presence` with `online` and `reason`, as the adapters of `hardware_adapters` do.
While one of them is offline the instance is: it is announced, with the reason, and so is its return. Its methods may
be called meanwhile, and say themselves what they cannot do.

The trap: the tree of attributes is the user's, and may change while it is looked at, hold anything and lead in circles.
So nothing of it is called or compared, and its size is bounded.
"""

from __future__ import annotations

import difflib
import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ether.connection.failure_text import text_of
from ether.errors import MarkError, ValidationFailed
from ether.spec.arguments import Arguments
from ether.spec.methods import MethodSpec
from ether.spec.wrapping import PlannedCall

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

_DEEPEST = 4
_MOST = 500


class DevicePresence(Protocol):
    """Whether a device is there; `since` in seconds of the epoch."""

    @property
    def online(self) -> bool:
        """True while it can be used."""

    @property
    def reason(self) -> str:
        """Why not."""

    @property
    def since(self) -> float:
        """Since when."""


class Device(Protocol):
    """What tells whether it is there."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def presence(self) -> DevicePresence:
        """As it is now."""

    @property
    def closed(self) -> bool:
        """Whether it was closed on purpose: then its absence is no news."""

    def watch_presence(self, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call back whenever that changes; returns what ends it."""


class Devices:
    """Those of one object. `changed` is called whenever what is to be announced is another."""

    def __init__(self, obj: object, changed: Callable[[], object]) -> None:
        self._object, self._changed = obj, changed
        self._lock = threading.Lock()
        self._known: dict[int, tuple[Device, Callable[[], None]]] = {}
        self._told: dict[int, DevicePresence] = {}
        """Of each as it was told last: why it went, not why it is still away."""
        self._stopped = False

    def find(self) -> None:
        """Watch those that are not watched yet; cheap, and to be repeated: some are made late."""
        for device in found_below(self._object):
            with self._lock:
                if id(device) in self._known or self._stopped:
                    continue
                self._known[id(device)] = device, device.watch_presence(partial(self._tell, id(device)))
                presence = self._told.setdefault(id(device), device.presence)
            if not presence.online:
                self._changed()

    def _tell(self, key: int, presence: DevicePresence) -> None:
        """On a thread of the device."""
        with self._lock:
            self._told[key] = presence
        self._changed()

    def about(self) -> dict[str, object]:
        """What is announced of those that are gone; empty while all are there."""
        with self._lock:
            told = [(device, self._told[key]) for key, (device, _) in self._known.items()]
        gone = [(device, presence) for device, presence in told if not (presence.online or device.closed)]
        if not gone:
            return {}
        why = "; ".join(f"{device.name}: {presence.reason}" for device, presence in gone)
        return {"offline": {"why": why, "since": min(presence.since for _, presence in gone)}}

    def stop(self) -> None:
        """Watch no more. Twice is fine."""
        with self._lock:
            self._stopped, known, self._known = True, self._known, {}
        for _, end in known.values():
            end()


def found_below(root: object) -> list[Device]:
    """The devices among an object, its attributes and theirs."""
    found: list[Device] = []
    seen: set[int] = set()
    waiting: deque[tuple[object, int]] = deque([(root, 0)])
    while waiting and len(seen) < _MOST:
        here, depth = waiting.popleft()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if callable(getattr(type(here), "watch_presence", None)):
            found.append(here)  # type: ignore[arg-type]
        elif depth < _DEEPEST:
            waiting.extend((each, depth + 1) for each in _parts(here) if not _is_plain(each))
    return found


def _parts(here: object) -> Iterator[object]:
    parts: Iterable[object] = ()
    if isinstance(here, dict):
        parts = here.values()
    elif isinstance(here, (list, tuple)):
        parts = here
    elif isinstance(here, type) or type(here).__module__ in ("builtins", "threading", "logging"):
        return
    elif isinstance(held := getattr(here, "__dict__", None), Mapping):
        parts = held.values()
    try:
        yield from tuple(parts)[:_MOST]
    except RuntimeError:  # it grew while it was copied: the next look finds more
        return


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, complex, type))


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
