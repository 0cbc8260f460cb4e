"""The registry (what the configuration says about classes) on its way to an instance: plain data between processes,
`Wrapping` values inside a process.

The trap: an instance's process must not load the configuration's pydantic models, so they are imported as types only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ether.connection.assembly import Registry
from ether.spec.marks import mark_from_options
from ether.spec.outcomes import Outcome
from ether.spec.wrapping import CallbackSpec, Care, Limit, PropertySpec, Wrapping

if TYPE_CHECKING:
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.config.models import RegistryEntry
    from ether.config.part import ConfigPart

RegistryOptions = Mapping[str, Mapping[str, Any]]
"""For each class path the entry of the class: its methods' decorators and arguments, its properties, its device's
calls."""

_CARE = ("on_connect", "on_stop", "safe_state", "enter", "on_error", "alive")
_OWN = (*_CARE, "keep", "max_age")
"""What an instance may say beside the entry of its class."""


def registry_options(config: EtherConfig, instance: EtherInstanceConfig | None = None) -> RegistryOptions:
    """The registry as plain data. Settings of the instance take precedence over those of its class."""
    options = {class_path: _entry_options(entry) for class_path, entry in config.registry.items()}
    if instance is not None and (own := _options_among(_OWN, instance)):
        options[instance.class_path] = {**options.get(instance.class_path, {}), **own}
    return options


def _entry_options(entry: RegistryEntry) -> dict[str, Any]:
    options: dict[str, Any] = {"methods": {name: list(method.marks()) for name, method in entry.methods.items()}}
    if limits := {name: _dumped(method.arguments) for name, method in entry.methods.items() if method.arguments}:
        options["arguments"] = limits
    if entry.properties:
        options["properties"] = _dumped(entry.properties)
    if named := {path: method.as_ for path, method in entry.methods.items() if method.as_}:
        options["names"] = named
    if loops := [path for path, method in entry.methods.items() if method.loop]:
        options["loops"] = loops
    if outcomes := {
        path: cast("ConfigPart", method.result).model_dump(mode="json")
        for path, method in entry.methods.items()
        if method.result not in (None, "ignore")
    }:
        options["outcomes"] = outcomes
    if alarms := {path: method.plain({"alarm", "on_alarm"}) for path, method in entry.methods.items() if method.alarm}:
        options["alarms"] = alarms
    if entry.callbacks:
        options["callbacks"] = _dumped(entry.callbacks)
    return {**options, **_options_among(_CARE, entry)}


def _options_among(keys: tuple[str, ...], part: ConfigPart) -> dict[str, Any]:
    dumped = part.plain(set(keys))
    return {key: value for key, value in dumped.items() if value}


def _dumped(parts: Mapping[str, ConfigPart]) -> dict[str, Any]:
    return {name: part.plain() for name, part in parts.items()}


def registry_marks(options: RegistryOptions) -> Registry:
    """The registry as values. Raises `MarkError`."""
    return {class_path: _wrapping(entry) for class_path, entry in options.items()}


def _wrapping(entry: Mapping[str, Any]) -> Wrapping:
    return Wrapping(
        {
            method: tuple(mark_from_options(decorator, options) for decorator, options in marks)
            for method, marks in entry.get("methods", {}).items()
            if marks
        },
        {
            method: {argument: Limit.from_options(options) for argument, options in arguments.items()}
            for method, arguments in entry.get("arguments", {}).items()
        },
        {name: PropertySpec.from_options(name, options) for name, options in entry.get("properties", {}).items()},
        Care.from_options(entry),
        entry.get("keep"),
        entry.get("max_age"),
        dict(entry.get("names", {})),
        {path: Outcome.from_options(options) for path, options in entry.get("outcomes", {}).items()},
        frozenset(entry.get("loops", ())),
        {path: CallbackSpec.from_options(path, options) for path, options in entry.get("callbacks", {}).items()},
        {
            **entry.get("alarms", {}),
            **{path: options for path, options in entry.get("properties", {}).items() if options.get("alarm")},
        },
    )
