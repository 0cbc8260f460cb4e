"""The instances of a configuration for `ether plan`: their classes are imported and described, never instantiated.

Promises: no object is made, so no port is opened and nothing moves; each class that cannot be imported is one fault.
The trap: importing a module runs its top level. What a module does there happens in `ether plan`, too, as in `ether
run`.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ether.config import EtherConfig, EtherInstanceConfig
from ether.config.yaml_source import read_yaml
from ether.connection.assembly import describe_with_registry
from ether.errors import ConfigError, MarkError
from ether.instance.class_loading import find_maker
from ether.instance.registry import registry_marks, registry_options
from ether.protocol.topic_typo_rules import TopicUse, topic_typos
from ether.runs.plan.call_rules import (
    Place,
    PlanFault,
    PlannedInstance,
    constructor_fault,
    own_call_faults,
    unbound,
)
from ether.runs.plan.plan_rules import watch_faults
from ether.runs.plan.source_check import missing_module_text, registry_faults
from ether.spec.arguments import Arguments
from ether.spec.marks import MarkKind
from ether.spec.methods import ClassSpec

_CARE = ("on_connect", "on_stop", "safe_state")


@dataclass(slots=True)
class PlannedLab:
    """The instances of a configuration, their faults, what is probably a mistake (`warnings`), and notes on what cannot
    be checked from this machine (`unseen`)."""

    config: EtherConfig
    instances: dict[str, PlannedInstance] = field(default_factory=dict)
    faults: list[PlanFault] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    simulated: bool = False

    @classmethod
    def of(cls, config: EtherConfig, *, simulated: bool = False) -> PlannedLab:
        """Import and check every class. With `simulated`, device files need not exist."""
        lab = cls(config, simulated=simulated)
        for key, instance in config.instances.items():
            lab._take(instance.name_or(key), ("instances", key), instance)
        for key, instance in config.instances.items():
            lab.faults += lab._watch_faults(instance, ("instances", key))
        faults, warnings = registry_faults(config)
        known = {fault.place[:2] for fault in lab.faults}
        lab.faults += [fault for fault in faults if fault.place[:2] not in known]
        lab.warnings += [*warnings, *map(str, topic_typos(lab._uses(MarkKind.PUB), lab._uses(MarkKind.SUB)))]
        return lab

    def _uses(self, kind: MarkKind) -> list[TopicUse]:
        """The topics with which the methods of all instances are marked."""
        return [
            TopicUse(name, f"{planned.spec.name}.{method.name}", topic)
            for name, planned in self.instances.items()
            if planned.spec is not None
            for method in planned.spec.with_mark(kind)
            for topic in method.topics(kind)
        ]

    def _take(self, name: str, place: Place, instance: EtherInstanceConfig) -> None:
        self.instances[name] = PlannedInstance(name, place)
        if not instance.autorun:
            self.unseen.append(f"{name} is not started with the session (autorun: false)")
        if instance.host is None and not self.simulated:
            self.faults += _port_faults(instance, place)
        found = self._class_of(name, place, instance)
        if found is None:
            return
        if not isinstance(found, type) or instance.build is not None:
            self.unseen.append(f"{name} is made by a factory, and of which class it is shows at the start")
            return
        spec = self._spec_of(found, place, instance)
        self.instances[name] = PlannedInstance(name, place, found, spec)
        self.faults += _constructor_faults(found, instance, place)
        if spec is not None:
            self.faults += self._care_faults(self.instances[name], spec, instance)

    def _class_of(self, name: str, place: Place, instance: EtherInstanceConfig) -> object | None:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return find_maker(instance.class_path, None)
        except ConfigError as error:
            problem = error.problem
            if problem.startswith("there is no module"):
                problem = missing_module_text(instance.class_path, self.config)
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's module runs, and may raise anything
            problem = f"its module cannot be imported: {type(error).__name__}: {error}"
        if instance.host is not None:
            self.unseen.append(f"{name} runs on {instance.host}, and its class is not here")
        else:
            self.faults.append(PlanFault((*place, "class_path"), instance.class_path, problem.rstrip(".")))
        return None

    def _spec_of(self, cls: type, place: Place, instance: EtherInstanceConfig) -> ClassSpec | None:
        try:
            marks = registry_marks(registry_options(self.config, instance))
            spec = describe_with_registry(cls, instance.class_path, marks)
            for method in spec.methods:
                Arguments(unbound(cls, method), f"{cls.__name__}.{method.name}", method.limits, method.from_topic)
        except MarkError as error:
            registry = ("registry", instance.class_path)
            where = registry if instance.class_path in self.config.registry else (*place, "class_path")
            self.faults.append(PlanFault(where, instance.class_path, str(error).rstrip(".")))
            return None
        return spec

    def _care_faults(
        self, planned: PlannedInstance, spec: ClassSpec, instance: EtherInstanceConfig
    ) -> Iterator[PlanFault]:
        """Faults of the calls that the instance makes by itself: `on_connect`, `on_stop`, `safe_state`.

        `ClassSpec` has merged those of the instance and of the registry; the fault's position is the one of the two
        that wrote it."""
        care, safe = spec.care, spec.care.safe_state
        where = {part: self._written(part, planned, instance) for part in _CARE}
        yield from own_call_faults(planned, care.on_connect, where["on_connect"])
        yield from own_call_faults(planned, care.on_stop, where["on_stop"])
        if safe is not None:
            yield from own_call_faults(planned, safe.calls, (*where["safe_state"], "calls"))

    def _written(self, part: str, planned: PlannedInstance, instance: EtherInstanceConfig) -> Place:
        own = bool(getattr(instance, part))
        return (*planned.place, part) if own else ("registry", instance.class_path, part)

    def _watch_faults(self, instance: EtherInstanceConfig, place: Place) -> Iterator[PlanFault]:
        entry = self.config.registry.get(instance.class_path)
        own = instance.safe_state
        safe, at = (own, place) if own else (entry.safe_state if entry else None, ("registry", instance.class_path))
        if safe is not None:
            yield from watch_faults(safe.watch, (*at, "safe_state", "watch"), self.instances)


def _constructor_faults(cls: type, instance: EtherInstanceConfig, place: Place) -> Iterator[PlanFault]:
    try:
        signature = inspect.signature(cls)
    except (ValueError, TypeError):  # some classes written in C have no signature
        return
    if (
        fault := constructor_fault(cls.__qualname__, signature, instance.args, instance.constructor_kwargs, place)
    ) is not None:
        yield fault


def _port_faults(instance: EtherInstanceConfig, place: Place) -> Iterator[PlanFault]:
    """Device files that do not exist. Only a driver can check other names of ports (COM3, a VISA resource)."""
    given: list[tuple[Place, Any]] = [((*place, "args", at), value) for at, value in enumerate(instance.args)]
    given += [((*place, "kwargs", name), value) for name, value in instance.kwargs.items()]
    for where, value in given:
        if os.name == "posix" and isinstance(value, str) and value.startswith("/dev/") and not os.path.exists(value):
            yield PlanFault(where, f"the port {value}, which is not there", f"this machine has: {_serial_ports()}")


def _serial_ports() -> str:
    kinds = ("ttyUSB", "ttyACM", "ttyAMA", "cu.usb")
    names = sorted(name for name in os.listdir("/dev") if name.startswith(kinds))
    return ", ".join(f"/dev/{name}" for name in names[:8]) or "no serial port at all"


def lines_of(faults: list[PlanFault], config: EtherConfig) -> Mapping[PlanFault, int | None]:
    """The line of each fault in the configuration's file; None where the configuration has no file."""
    if config.written is None:
        return dict.fromkeys(faults)
    document = read_yaml(config.written.text.encode("utf-8", "surrogateescape"), config.written.file)
    return {fault: document.line_of(fault.place) for fault in faults}
