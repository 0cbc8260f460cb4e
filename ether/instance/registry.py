"""The registry on its way from the configuration to an instance: as plain data between processes, as values inside."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ether.connection.assembly import Registry
from ether.log import get_ether_logger
from ether.spec.marks import mark_from_options
from ether.spec.wrapping import Care, Limit, PropertySpec, Wrapping

if TYPE_CHECKING:  # an instance's process never needs the configuration's models
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.config.models import RegistryEntry
    from ether.config.part import ConfigPart

logger = get_ether_logger("Ether")

RegistryOptions = Mapping[str, Mapping[str, Any]]
"""Class path to what is said of the class: its methods' decorators and arguments, its properties, calls."""

_CARE = ("on_connect", "on_stop", "safe_state")


def registry_options(config: EtherConfig, instance: EtherInstanceConfig | None = None) -> RegistryOptions:
    """The registry as plain data; what an instance says of itself goes before what is said of its class."""
    options = {class_path: _entry_options(entry) for class_path, entry in config.registry.items()}
    if instance is not None and (own := _care_options(instance)):
        options[instance.class_path] = {**options.get(instance.class_path, {}), **own}
    return options


def _entry_options(entry: RegistryEntry) -> dict[str, Any]:
    said: dict[str, Any] = {"methods": {name: list(listed.marks()) for name, listed in entry.methods.items()}}
    if limits := {name: _dumped(listed.arguments) for name, listed in entry.methods.items() if listed.arguments}:
        said["arguments"] = limits
    if entry.properties:
        said["properties"] = _dumped(entry.properties)
    return {**said, **_care_options(entry)}


def _care_options(part: ConfigPart) -> dict[str, Any]:
    dumped = part.model_dump(mode="json", include=set(_CARE))
    return {key: value for key, value in dumped.items() if value}


def _dumped(parts: Mapping[str, ConfigPart]) -> dict[str, Any]:
    return {name: part.model_dump(mode="json") for name, part in parts.items()}


def warn_of_registry_typos(config: EtherConfig) -> None:
    """An entry that no instance names may be of a base class; one that is nearly an instance's class is not."""
    used = {instance.class_path for instance in config.instances.values()}
    for class_path in config.registry.keys() - used:
        if nearest := difflib.get_close_matches(class_path, used, n=1, cutoff=0.9):
            logger.warning("registry: no instance is a %s; did you mean %s?", class_path, nearest[0])


def registry_marks(options: RegistryOptions) -> Registry:
    """The registry as values; raises `MarkError`."""
    return {class_path: _wrapping(entry) for class_path, entry in options.items()}


def _wrapping(entry: Mapping[str, Any]) -> Wrapping:
    return Wrapping(
        {
            method: tuple(mark_from_options(decorator, chosen) for decorator, chosen in listed)
            for method, listed in entry.get("methods", {}).items()
            if listed
        },
        {
            method: {argument: Limit.from_options(said) for argument, said in listed.items()}
            for method, listed in entry.get("arguments", {}).items()
        },
        {name: PropertySpec.from_options(name, said) for name, said in entry.get("properties", {}).items()},
        Care.from_options(entry),
    )
