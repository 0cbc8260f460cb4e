"""Why instances do not start, with the place in the configuration at which each is described.

What is certain from the source files is said before anything of the user's runs, while the broker starts; what an
instance's own process finds out gets its file and line here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ether.config import EtherConfig
from ether.config.loading import line_at
from ether.errors import ConfigError, StartFailed
from ether.log import get_ether_logger
from ether.runs.plan.source_check import hidden_modules, instance_faults, located, registry_faults
from ether.system.processes import running_script

logger = get_ether_logger("Ether")

_PLACED = re.compile(r"ConfigError: ((?:args|kwargs|class_path|build|enter)\b[^:\s]*): ")
"""The beginning of a reason that names the key below the instance."""

_IN_ENTRY = re.compile(r"(?:MarkError|ConfigError): (methods|properties|callbacks) '([^']*)': ")
"""The beginning of a reason that names the key below the registry's entry of the class."""

_OF_A_MODULE = re.compile(r"^(ImportError|ModuleNotFoundError|AttributeError)\b", re.MULTILINE)
"""What is raised where another module was imported than the one that was meant."""


def check_sources(config: EtherConfig, session: str) -> None:
    """Raise what is certainly wrong with the classes of a configuration: `ConfigError` for entries of the registry,
    `StartFailed` for instances. Warns of entries that fit no instance."""
    if not config.instances:
        return
    faults, warnings = registry_faults(config)
    for warning in warnings:
        logger.warning("%s", warning)
    if faults:
        first, *others = [located(fault, config) for fault in faults]
        if others:
            first = ConfigError("\n  ".join([first.problem, *map(str, others)]), file=first.file, line=first.line,
                                path=first.path)  # fmt: skip
        raise first
    wrong = instance_faults(config, running_script())
    if wrong:
        raise StartFailed(session, {name: f"ConfigError: {located(fault, config)}" for name, fault in wrong.items()})


def placed(reasons: Mapping[str, str], config: EtherConfig) -> dict[str, str]:
    """The reasons, each with file and line of its instance, where the configuration has a file."""
    if config.written is None:
        return dict(reasons)
    keys = {instance.name_or(key): key for key, instance in config.instances.items()}
    found = {}
    for name, reason in reasons.items():
        instance = config.instances[keys[name]] if name in keys else None
        below, rest = _below(reason, instance.class_path) if instance is not None else ((), reason)
        place = ("instances", keys.get(name, ""), *below)
        entry = _IN_ENTRY.match(reason)
        if entry is not None and instance is not None and instance.class_path in config.registry:
            place = ("registry", instance.class_path, entry[1], entry[2])
        line = line_at(config, place) if name in keys else None
        where = f"{config.written.file}:{line}: {'.'.join(place)}"
        apart = "\n" if "\n" in rest.strip() else ": "
        found[name] = rest if line is None else f"{where}{apart}{rest}"
    return {name: f"{reason}{_hiding(reason, config.written.folder)}" for name, reason in found.items()}


def _hiding(reason: str, folder: str) -> str:
    """That a file in the user's folder has the name of a module of Python's own, where that may be the cause."""
    if not _OF_A_MODULE.search(reason):
        return ""
    hidden = [name for name in hidden_modules(folder) if re.search(rf"\b{name}\b", reason)]
    return "".join(
        f"\n{name} in {folder} hides the module of that name of Python's standard library: rename it" for name in hidden
    )


def _below(reason: str, class_path: str) -> tuple[tuple[str, ...], str]:
    """The key below the instance that a reason is about, and the rest of the reason."""
    if (named := _PLACED.match(reason)) is not None:
        return tuple(named[1].split(".")), f"ConfigError: {reason[named.end() :]}"
    return ("class_path",) if reason.startswith(f"ConfigError: {class_path}: ") else (), reason
