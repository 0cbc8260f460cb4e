"""The registry on its way from the configuration to an instance: as plain data between processes, as marks inside."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ether.logs import get_ether_logger
from ether.runtime.assembly import Registry
from ether.spec.marks import mark_from_options

if TYPE_CHECKING:  # an instance's process never needs the configuration's models
    from ether.config import EtherConfig

logger = get_ether_logger("Ether")

RegistryOptions = Mapping[str, Mapping[str, list[tuple[str, dict[str, Any]]]]]
"""Class path to method to (decorator, options)."""


def registry_options(config: EtherConfig) -> RegistryOptions:
    """The registry as plain data."""
    return {
        class_path: {method: list(listed.marks()) for method, listed in entry.methods.items()}
        for class_path, entry in config.registry.items()
    }


def warn_of_registry_typos(config: EtherConfig) -> None:
    """An entry that no instance names may be of a base class; one that is nearly an instance's class is not."""
    used = {instance.class_path for instance in config.instances.values()}
    for class_path in config.registry.keys() - used:
        if nearest := difflib.get_close_matches(class_path, used, n=1, cutoff=0.9):
            logger.warning("registry: no instance is a %s; did you mean %s?", class_path, nearest[0])


def registry_marks(options: RegistryOptions) -> Registry:
    """The registry as marks; raises `MarkError`."""
    return {
        class_path: {
            method: tuple(mark_from_options(decorator, chosen) for decorator, chosen in listed)
            for method, listed in methods.items()
        }
        for class_path, methods in options.items()
    }
