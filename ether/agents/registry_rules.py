"""What a registry that comes with a request may say about the classes of this machine.

A registry makes methods callable whose source does not say so. On the machine where the YAML stands that is its owner's
own word. An agent gets it from the network, where whoever may publish could mark any method of an allowed class, and
call it. So there the marks in the source count, and those of a registry only for the classes under the roots that the
machine's owner names with `--allow-registry`; and never those of names that begin with `_`, which are the class's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ether.config.builds import factories_in, import_paths
from ether.config.drivers import ResultOptions
from ether.config.models import EtherInstanceConfig, RegistryEntry
from ether.config.path_text import parse_path
from ether.errors import EtherError


class MarksNotAllowed(EtherError, PermissionError):
    """A registry marks what this machine's owner has not opened. `names` are the methods and properties."""

    def __init__(self, class_path: str, names: list[str], why: str) -> None:
        self.class_path, self.names, self.why = class_path, tuple(names), why
        super().__init__(f"{class_path} may not be marked from elsewhere here ({', '.join(names)}): {why}")


def permitted_registry(
    class_path: str,
    registry: Mapping[str, RegistryEntry],
    instance: EtherInstanceConfig,
    allows: Callable[[str], bool],
) -> frozenset[str]:
    """The class paths whose entries hold here. A request brings the whole registry of its configuration: entries of
    other classes that the owner has not opened are left out. Raises `MarksNotAllowed` where the requested class itself
    would be marked and may not be. `allows` tells whether the owner lets a class be marked."""
    entry = registry.get(class_path)
    own = sorted({*_named(instance), *(_named(entry) if entry is not None else ())})
    if own and not allows(class_path):
        raise MarksNotAllowed(
            class_path,
            own,
            "the marks in its source count. Its owner can allow more with `ether agent --allow-registry ROOT`.",
        )
    if factories := sorted(
        call
        for call in factories_in(_given(instance, registry.values()))
        if any(part.startswith("_") for part in parse_path(call).names)
    ):
        raise MarksNotAllowed(class_path, factories, "names that begin with _ are the class's own.")
    if instance.env:
        raise MarksNotAllowed(class_path, sorted(instance.env), "environment variables are this machine's own.")
    holds = frozenset(path for path, entry in registry.items() if path == class_path or allows(path))
    for path, names in [(class_path, own), *((path, _named(registry[path])) for path in sorted(holds))]:
        if private := sorted(
            name
            for name in (*names, *(_taken(registry[path]) if path in registry else ()))
            if any(part.startswith("_") for part in parse_path(name).names)
        ):
            raise MarksNotAllowed(path, private, "names that begin with _ are the class's own.")
    return holds


def named_objects(instance: EtherInstanceConfig, registry: Mapping[str, RegistryEntry]) -> set[str]:
    """The dotted names of everything that an instance and the registry's entries would import beside the class: objects
    among arguments, and those that a factory belongs to. Each is code that runs here."""
    return set(import_paths(_given(instance, registry.values())))


def _given(instance: EtherInstanceConfig, entries: Iterable[RegistryEntry]) -> list[Any]:
    """Everything in which objects may stand."""
    values: list[Any] = [instance.args, instance.kwargs]
    if instance.build is not None:
        values += [instance.build.of, instance.build.args, instance.build.kwargs]
    parts: list[EtherInstanceConfig | RegistryEntry] = [instance, *entries]
    for part in parts:
        calls = [*part.on_connect, *part.on_stop, *(part.safe_state.calls if part.safe_state else ())]
        values += [given for call in calls for given in (call.args, call.kwargs)]
        if isinstance(part, RegistryEntry):
            values += [given for callback in part.callbacks.values() for given in (callback.args, callback.kwargs)]
    return values


def _named(part: RegistryEntry | EtherInstanceConfig) -> Iterator[str]:
    """The methods and properties that an entry of the registry, or an instance, opens or has called."""
    if isinstance(part, RegistryEntry):
        yield from (name for name, method in part.methods.items() if any(method.marks()))
        for path, wanted in part.properties.items():
            yield path
            ways = [by.call for by in (wanted.get, wanted.set) if by is not None]
            yield from (f"{path}.{call}" for call in ways if call and call != "__call__")
        yield from part.callbacks
    elif part.build is not None and part.build.call is not None:
        yield part.build.call
    calls: list[Any] = [*part.on_connect, *part.on_stop, *(part.safe_state.calls if part.safe_state else ())]
    yield from (str(call.method) for call in calls)
    if part.alive is not None:
        yield part.alive.method


def _taken(entry: RegistryEntry) -> Iterator[str]:
    """What an entry takes of results, as paths from them."""
    results = [
        *(method.result for method in entry.methods.values()),
        *(wanted.result for wanted in entry.properties.values()),
        *(callback.result for callback in entry.callbacks.values()),
    ]
    for result in results:
        if isinstance(result, ResultOptions):
            yield f"result{result.value}"
            if result.field:
                yield f"result.{result.field}"
