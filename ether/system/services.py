"""Ether's services under systemd: planned, installed, inspected, removed.

    ether service install instance sensor --file lab.yaml --serial      plan(...) and install(...)

Promise: a plan says everything before anything is done, on any machine, with systemd or without. `install` writes whole
files, and only those of the plan; `remove` deletes only files that carry our mark, and stops only that one service.
The trap: a service in the system's scope runs as another user in another folder. So every path is made absolute, and
the folders in a user's home that it must read are named to systemd.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ether.errors import ServiceFailed
from ether.system.units import DEFAULT_USER, KINDS, MARK, TEMPLATE, Kind, Scope, Service, render

COMMAND_S = 330.0
"""systemctl waits until a service says that it is ready, for its `TimeoutStartSec` (300 s) at most."""

_PRIVATE, _PUBLIC = 0o600, 0o644
_SHOWN = ("Id", "LoadState", "ActiveState", "SubState", "StatusText", "MainPID", "NRestarts", "Result",
          "ActiveEnterTimestamp")  # fmt: skip
_ENVIRONMENT = """\
# Read by every Ether service here. Only its owner may read it: the lab key is a secret.
# Where the broker is; without it, services look for one as `ether.tap()` does.
#ETHER_BROKER=mqtt://localhost
# Which session they join.
#ETHER_SESSION=lab
# 32 hex digits, the same on every machine of the lab: openssl rand -hex 16
#ETHER_KEY=
"""
_SYSUSERS = f'{MARK}\nu {DEFAULT_USER} - "Ether services" /var/lib/ether\n'


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files of a scope go."""

    units: Path
    environment: Path
    sysusers: Path | None = None

    @classmethod
    def of(cls, scope: Scope, environ: Mapping[str, str]) -> Places:
        """The places that systemd looks at."""
        if scope == "system":
            return cls(Path("/etc/systemd/system"), Path("/etc/ether/environment"), Path("/etc/sysusers.d/ether.conf"))
        config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return cls(config / "systemd" / "user", config / "ether" / "environment")


class File(NamedTuple):
    """A file to write. With `keep` an existing file stays, because a person has written into it."""

    text: str
    mode: int = _PUBLIC
    keep: bool = False


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What an installation does: write the files, then run the commands."""

    service: Service
    folder: Path
    files: Mapping[Path, File]
    commands: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """For `--dry-run`: every file and every command."""
        parts = [f"### {path}  (mode {file.mode:04o}{', unless it exists' if file.keep else ''})\n{file.text}"
                 for path, file in self.files.items()]  # fmt: skip
        return "\n".join([*parts, "### then", *(" ".join(command) for command in self.commands)])


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What systemd says of one service. `active` and `sub` are systemd's words; `since` is its date, empty while the
    service is not active; `says` is the last status line of the service itself."""

    unit: str
    load: str
    active: str
    sub: str
    says: str
    pid: int | None
    restarts: int
    result: str
    since: str

    @property
    def ready(self) -> bool:
        """Whether it runs and has said that it is ready."""
        return self.active == "active"


@dataclass(frozen=True, slots=True)
class Machine:
    """The tools of this machine and the places of a scope."""

    scope: Scope
    places: Places
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def here(cls, scope: Scope, environ: Mapping[str, str] | None = None) -> Machine:
        """This machine."""
        environ = os.environ if environ is None else environ
        return cls(scope, Places.of(scope, environ), environ)

    @property
    def systemctl(self) -> tuple[str, ...]:
        return ("systemctl", "--user") if self.scope == "user" else ("systemctl",)

    def run(self, command: Sequence[str], *, codes: Iterable[int] = (0,)) -> str:
        """Run a command and return what it prints; raises `ServiceFailed` where there is no such program, or where it
        ends with another exit code."""
        shown = " ".join(command)
        environ = {**self.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        try:
            done = subprocess.run(
                [self.find(command[0]), *command[1:]],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceFailed(f"`{shown}` did not end within {COMMAND_S:g} s; see: journalctl -e") from error
        except OSError as error:
            raise ServiceFailed(f"`{shown}` could not be run: {error}") from error
        if done.returncode not in codes:
            said = (done.stderr or done.stdout).strip() or "it said nothing"
            raise ServiceFailed(f"`{shown}` ended with code {done.returncode}: {said}")
        return done.stdout

    def follow(self, command: Sequence[str]) -> int:
        """Run a command in this terminal; returns its exit code, 0 for Ctrl-C."""
        environ = {**self.environ, "SYSTEMD_PAGER": ""}
        with subprocess.Popen([self.find(command[0]), *command[1:]], env=environ) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.terminate()
                return 0

    def version(self) -> int:
        """systemd's version; 0 where it is not known, and then no setting of a newer version is used."""
        try:
            found = re.match(r"systemd (\d+)", self.run(["systemctl", "--version"]))
        except ServiceFailed:
            return 0
        return int(found[1]) if found else 0

    def find(self, name: str) -> str:
        """The path of a program; raises `ServiceFailed` where there is none."""
        found = shutil.which(name, path=self.environ.get("PATH", os.defpath))
        if found is None:
            raise ServiceFailed(
                f"there is no {name} here: services need systemd, as on Linux PCs and the Raspberry Pi. Elsewhere"
                " `ether up -d` keeps a session running."
            )
        return found


def plan(wanted: Service, machine: Machine | None = None) -> ServicePlan:
    """Everything that `install` would do for a service; nothing is changed. Its paths are made absolute, and the
    folders that it reads and the version of systemd are filled in. Raises `ServiceFailed` where it cannot be one."""
    machine = machine or Machine.here(wanted.scope)
    user = wanted.user
    service = replace(
        wanted,
        python=os.path.abspath(wanted.python),
        file=None if wanted.file is None else Path(os.path.abspath(wanted.file)),
        reads=_folders_of(wanted.python),
        writes=tuple(Path(os.path.abspath(folder)) for folder in wanted.writes),
        systemd=machine.version(),
    )
    units = {machine.places.units / path: File(text) for path, text in render(service).items()}
    others = {machine.places.environment: File(_ENVIRONMENT, _PRIVATE, keep=True)}
    sysusers = machine.places.sysusers if user is None else None
    if sysusers is not None:
        others[sysusers] = File(_SYSUSERS)
    return ServicePlan(service, machine.places.units, {**others, **units}, _commands(service, machine, sysusers))


def install(planned: ServicePlan, machine: Machine | None = None) -> ServiceStatus:
    """Write the files, start the service, wait until it is ready. An installed service is restarted with the new
    files."""
    machine = machine or Machine.here(planned.service.scope)
    _check_file(planned.service)
    machine.find("systemctl")
    _check_rights(machine)
    for path, file in planned.files.items():
        _write(path, file)
    for command in planned.commands:
        machine.run(command)
    return status(planned.service.unit, machine)[0]


def status(unit: str | None, machine: Machine) -> list[ServiceStatus]:
    """One service, or all of Ether's that systemd knows in this scope."""
    units = [unit] if unit is not None else _installed(machine)
    if not units:
        return []
    said = machine.run([*machine.systemctl, "show", f"--property={','.join(_SHOWN)}", *units])
    return [_parsed(block) for block in said.strip().split("\n\n") if block]


def logs(
    unit: str | None, machine: Machine, *, follow: bool = False, since: str | None = None, lines: int | None = None
) -> int:
    """Show the journal of a service, or of all, in this terminal; returns journalctl's exit code."""
    units = [unit] if unit is not None else ["ether-*"]
    # `--user-unit` searches the whole journal: a journal of each user exists only where journals are kept on disk.
    option = "--user-unit" if machine.scope == "user" else "--unit"
    command = ["journalctl", *(f"{option}={each}" for each in units), "--output=short-iso"]
    command += ["--follow"] if follow else ["--no-pager"]
    command += [f"--since={since}"] if since is not None else []
    command += [f"--lines={lines}"] if lines is not None else []
    return machine.follow(command)


def remove(kind: Kind, name: str | None, machine: Machine) -> list[Path]:
    """Stop the service, and delete the files written for it; returns them. The environment file stays."""
    service = Service(kind, machine.scope, name=name)
    machine.find("systemctl")
    ours = _files_of(service, machine.places.units)
    if not ours:
        raise ServiceFailed(
            f"{service.unit} was not installed by `ether service install`: nothing of it is in {machine.places.units}."
        )
    _check_rights(machine)
    machine.run([*machine.systemctl, "disable", "--now", service.unit])
    for path in ours:
        path.unlink()
    for folder in {path.parent for path in ours} - {machine.places.units}:
        if not any(folder.iterdir()):
            folder.rmdir()
    machine.run([*machine.systemctl, "daemon-reload"])
    machine.run([*machine.systemctl, "reset-failed", service.unit], codes=(0, 1, 5))  # it need not have failed
    return ours


def unit_of(kind: str, name: str | None) -> str:
    """The unit of a kind and an instance's name; raises `ServiceFailed` for an unknown kind."""
    known = next((each for each in KINDS if each == kind), None)
    if known is None:
        raise ServiceFailed(f"there is no service {kind!r}; there are: {', '.join(KINDS)}.")
    return Service(known, name=name).unit


def _commands(service: Service, machine: Machine, sysusers: Path | None) -> list[list[str]]:
    systemctl = list(machine.systemctl)
    first = [["systemd-sysusers", str(sysusers)]] if sysusers is not None else []
    # Without lingering the services of a user end when the user logs out.
    first += [["loginctl", "enable-linger"]] if service.scope == "user" else []
    return [
        *first,
        [*systemctl, "daemon-reload"],
        [*systemctl, "enable", service.unit],
        [*systemctl, "restart", service.unit],
    ]


def _folders_of(python: str) -> tuple[Path, ...]:
    """The folders that a service must be able to read to run this Python with this Ether."""
    interpreter = Path(os.path.abspath(python))
    behind = Path(os.path.realpath(python))  # in a virtual environment, python is a link to another folder's python
    ether = Path(__file__).resolve().parents[2]
    return tuple(dict.fromkeys([interpreter.parents[1], behind.parents[1], ether]))


def _check_file(service: Service) -> None:
    if service.file is not None and not service.file.is_file():
        raise ServiceFailed(f"there is no file {service.file}: an instance's service needs its configuration.")


def _check_rights(machine: Machine) -> None:
    existing = next(place for place in (machine.places.units, *machine.places.units.parents) if place.exists())
    if not os.access(existing, os.W_OK):
        raise ServiceFailed(
            f"{machine.places.units} cannot be written to: run it again with sudo, or with --user for a service of"
            " your own."
        )


def _write(path: Path, file: File) -> None:
    if file.keep and path.exists():
        return
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
        with open(descriptor, "w", encoding="utf-8") as opened:
            opened.write(file.text)
        os.chmod(temporary, file.mode)  # `open` has applied the umask
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ServiceFailed(f"{path} could not be written: {error.strerror or error}") from error


def _files_of(service: Service, units: Path) -> list[Path]:
    """The files of a service that carry our mark: its drop-ins, and its unit unless another instance uses it."""
    own = sorted((units / f"{service.unit}.d").glob("*.conf"))
    candidates = [*own, *([] if _is_shared(service, units) else [units / service.unit_file])]
    return [path for path in candidates if path.is_file() and path.read_text(errors="replace").startswith(MARK)]


def _is_shared(service: Service, units: Path) -> bool:
    """Whether another instance uses the same template unit."""
    prefix = TEMPLATE.removesuffix(".service")
    others = {folder.name for folder in units.glob(f"{prefix}?*.service.d")} - {f"{service.unit}.d"}
    return service.kind == "instance" and bool(others)


def _installed(machine: Machine) -> list[str]:
    patterns = ["ether-broker.service", "ether-agent.service", "ether-instance@*.service"]
    said = machine.run([*machine.systemctl, "list-units", "--all", "--plain", "--no-legend", "--full", *patterns])
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def _parsed(block: str) -> ServiceStatus:
    said = dict(line.partition("=")[::2] for line in block.splitlines())
    number = {key: int(said[key]) if said.get(key, "").isdecimal() else 0 for key in ("MainPID", "NRestarts")}
    return ServiceStatus(
        unit=said.get("Id", ""),
        load=said.get("LoadState", ""),
        active=said.get("ActiveState", ""),
        sub=said.get("SubState", ""),
        says=said.get("StatusText", ""),
        pid=number["MainPID"] or None,
        restarts=number["NRestarts"],
        result=said.get("Result", ""),
        since=said.get("ActiveEnterTimestamp", ""),
    )
