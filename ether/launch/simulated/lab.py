"""A session whose instruments are simulated: the lab that stands for the bench, in a process of its own.

The lab is `python -m hardware_adapters.simulate`, started as the broker is: by name, never imported. It lives as long
as the program that started it, so every instance of that program, started again or not, reaches the same world. A
simulated device stands for a real port or resource, which the lab's description names by `twin_of:`.

`Simulation` is the part of one program in it all; `_LabProcess` is the child in which the lab runs. What an instance's
process needs of it is in `devices`.

Promises: no instance is built before each device that the configuration names has its simulated one; every record of
the session says that it was simulated. The trap: real and simulated instances in one session would be taken for
each other, so a program joins only a session of its own kind.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ether.config import EtherConfig, EtherInstanceConfig, changed
from ether.config.loading import at_place
from ether.connection.deadline import Deadline
from ether.errors import ConfigError, NotAllowedHere, StartFailed
from ether.launch.child import Child, import_path, launch_environment, python_command
from ether.launch.process_group import ProcessGroup
from ether.launch.simulated.devices import SimulatedDevices
from ether.log import get_ether_logger

if TYPE_CHECKING:
    from ether.ledger.objects import Artifact

logger = get_ether_logger("Ether")

VARIABLE = "ETHER_SIMULATED_LAB"
"""Names the file in which adapters find the simulated devices; `hardware_adapters.twins` reads it."""

_END_S = 2.0


# -- one program's part


class Simulation:
    """One program's part in what is simulated in its session. Without a simulation every answer is empty."""

    def __init__(self, config: EtherConfig, *, wanted: bool) -> None:
        """`wanted`: the devices of this program's instances are simulated. Raises `ConfigError` where no lab is
        described."""
        self.wanted = wanted
        self.facts: dict[str, Any] | None = None
        """What contexts say of it: the lab's digest and file; None where nothing is simulated."""
        self.artifacts: tuple[Artifact, ...] = ()
        self._config = config
        self._lab: _LabProcess | None = None
        self._devices: list[dict[str, Any]] | None = None
        self._environment: dict[str, str | None] = {}
        if wanted:
            self._describe()

    def _describe(self) -> None:
        from ether.ledger.objects import artifact
        from ether.provenance.context import canonical, plain
        from ether.provenance.secrets import masked_yaml

        described = self._config.simulate
        if described is None:
            raise ConfigError(
                "a simulated run needs a description of the simulated lab here: a mapping (`instruments:`, `wiring:`,"
                " `faults:`), or the name of a YAML file that holds one.",
                file=self._config.written.file if self._config.written else None,
                path="simulate",
            )
        if isinstance(described, str):
            made = artifact(os.path.basename(described), masked_yaml(_text_of(self._path())).encode())
            self.facts = {"lab": made.sha256, "file": made.name}
        else:
            made = artifact("simulated-lab.json", canonical(plain(described)))
            self.facts = {"lab": made.sha256, "file": None}
        self.artifacts = (made,)

    def _path(self) -> str:
        """The lab's file lies beside the configuration."""
        folder = self._config.written.folder if self._config.written else ""
        return os.path.join(folder, str(self._config.simulate))

    def begin(self, group: ProcessGroup, folder: str) -> None:
        """Start the lab; does not wait for it. `folder` is private, and the caller removes it."""
        from ether.provenance.context import plain

        if self.wanted:
            is_file = isinstance(self._config.simulate, str)
            asked = {
                "file": self._path() if is_file else None,
                "description": None if is_file else plain(self._config.simulate),
                "folder": os.path.join(folder, "lab"),
                "twins": os.path.join(folder, "twins.json"),
                "import_path": import_path(),
            }
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lab = _LabProcess(group, asked)

    def check_session(self, info: Mapping[str, Any], *, joined: bool) -> None:
        """Check that a joined session is of the kind that is wanted: real or simulated. `info` is its entry. Raises
        `NotAllowedHere`."""
        theirs = info.get("simulated")
        if not joined:
            return
        if self.wanted and not theirs:
            raise NotAllowedHere("ether.tap(sim=True)", "the session that runs is not simulated; start one of your own")
        if theirs and not self.wanted and self._config.named_instances():
            why = "the session that runs is simulated: instances on real devices do not belong there; use sim=True"
            raise NotAllowedHere("ether.tap()", why)
        if isinstance(theirs, Mapping) and self.facts is None:
            self.facts = dict(theirs)

    def await_devices(self, session: str, deadline: Deadline) -> None:
        """Return when the lab is ready, and each device that the configuration names has its simulated one. Raises
        `ConfigError`, `StartFailed`."""
        if self._lab is None:
            return
        ready = self._lab.wait_ready(deadline)
        if ready.get("event") == "failed":
            raise self._mistake(ready)
        if ready.get("event") != "ready":
            raise StartFailed(session, {"the simulated lab": str(ready.get("problem"))})
        self._devices = ready["twins"]
        for key, instance in self._config.instances.items():
            self.check(key, instance)
        self._environment = {VARIABLE: self._lab.devices_file}
        os.environ[VARIABLE] = self._lab.devices_file  # for objects of this program
        logger.warning("This session is simulated: %s; no hardware is touched", self._listed())

    def check(self, key: str, instance: EtherInstanceConfig) -> None:
        """Raises `ConfigError` where an argument names a device that has no simulated one."""
        devices = SimulatedDevices.from_value(self._devices)
        try:
            devices.of(list(instance.args), f"instances.{key}.args")
            devices.of(instance.constructor_kwargs, f"instances.{key}.kwargs")
        except ConfigError as error:
            raise at_place(self._config, error.problem, error.path or "") from error

    def _mistake(self, event: Mapping[str, Any]) -> ConfigError:
        problem = str(event.get("problem"))
        if isinstance(self._config.simulate, str):
            return ConfigError(problem, path="simulate")
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in event.get("path") or ())
        return at_place(self._config, problem, f"simulate{path}")

    def _listed(self) -> str:
        named = [f"{each['name']} for {each['twin_of']}" for each in self._devices or () if each["twin_of"]]
        return ", ".join(named) or "a lab without twins"

    @property
    def devices(self) -> list[dict[str, Any]] | None:
        """The simulated devices, for the settings of an instance's process; None where its devices are real."""
        return self._devices

    @property
    def entry(self) -> dict[str, Any]:
        """What the session's entry says of the simulation."""
        return {"simulated": self.facts} if self.wanted else {}

    @property
    def environment(self) -> dict[str, str | None]:
        """Variables for an instance's process."""
        return self._environment

    def on_this_machine(self, instance: EtherInstanceConfig) -> EtherInstanceConfig:
        """In a simulated run the instances of other machines run on this one, where the lab is."""
        return instance.model_copy(update={"host": None}) if self.wanted else instance

    def close(self) -> None:
        """End the lab; adapters of this program open real devices again. Twice is fine."""
        if self._environment and os.environ.get(VARIABLE) == self._environment[VARIABLE]:
            del os.environ[VARIABLE]
        self._environment = {}
        if self._lab is not None:
            self._lab.stop()
            self._lab = None


def all_here(config: EtherConfig) -> EtherConfig:
    """The configuration with every instance on this machine, where the simulated lab is."""
    instances = {key: each.model_copy(update={"host": None}) for key, each in config.instances.items()}
    return changed(config, instances=instances) if config.instances else config


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the simulated lab's file {path} cannot be read: {error}", path="simulate") from error


# -- its process


class _LabProcess:
    """The child in which the lab runs. Its first event (a line of JSON) says whether it is ready."""

    def __init__(self, group: ProcessGroup, asked: Mapping[str, Any]) -> None:
        self.devices_file = str(asked["twins"])
        self._event: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._stopping = False
        command = [*python_command(), "-m", "hardware_adapters.simulate"]
        environment = {**os.environ, **launch_environment()}
        self._child = Child(
            "simulated lab", command, group, self._on_end, environment=environment, on_stdout=self._on_line
        )
        self._child.send(json.dumps(asked).encode() + b"\n")

    def wait_ready(self, deadline: Deadline) -> dict[str, Any]:
        """The lab's first event: `ready` or `failed`. In place of it `ended` where it ended first, or `late`."""
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._event), deadline.left()):
                return self._event
        return {"event": "late", "problem": f"not ready within {deadline.timeout_s:g} s"}

    def stop(self) -> None:
        """End it."""
        with self._changed:
            self._stopping = True
        self._child.close_stdin()
        self._child.end(_END_S)

    def _on_line(self, line: str) -> None:
        """On the thread that reads the child's output."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or "event" not in event:
            logger.info("simulated lab: %s", line.rstrip())  # a model of the user's prints
            return
        with self._changed:
            self._event = self._event or event
            self._changed.notify_all()

    def _on_end(self, child: Child) -> None:
        """On the thread that waits for the child's end."""
        with self._changed:
            if self._stopping:
                return
            was_ready = self._event.get("event") == "ready"
            self._event = self._event or {"event": "ended", "problem": child.how_it_ended()}
            self._changed.notify_all()
        if was_ready:
            logger.error("the simulated lab ended, and all its instruments are gone: %s", child.how_it_ended())
