"""The texts of the systemd units: what they run, when they are restarted, and what they may not do.

Pure: settings in, texts out; nothing is read from this machine. `ether.system.services` installs the units, and the
folder `systemd/` holds them with default settings.

Promises: a service counts as ready when it says so; it is restarted for ever (`StartLimitIntervalSec=0`), with growing
pauses where systemd can do that (254 and later); it is forbidden everything that an instrument does not need.
The traps: a setting that a version of systemd does not know is a warning at best. A user's systemd cannot set up most
of the sandbox, and refuses to start a service that asks for it; such a service gets the part that needs no privilege.
And a percent sign, a dollar or a space in a path has a meaning in a unit: every path goes through `_word` or `_line`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from ether.errors import ServiceFailed

Kind = Literal["broker", "agent", "instance"]
Scope = Literal["system", "user"]

KINDS: tuple[Kind, ...] = ("broker", "agent", "instance")
DEFAULT_USER = "ether"
MARK = "# Written by `ether service install`; `systemctl edit` is the place for changes."
FIRST_WITH_STEPS = 254
"""The version of systemd that knows `RestartSteps` and `RestartMaxDelaySec`."""

TEMPLATE = "ether-instance@.service"
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.-]{0,63}")
_CLOSED_PLACES = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""The folders that `ProtectHome` and `PrivateTmp` hide."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service: what runs, as which user, and what it may touch.

    An instance has a `file`, its YAML (default: `ether.yaml` in systemd's folder for configurations), and a `name`, its
    name there. `user` is for the system scope. `reads` are folders that it must be able to read wherever they are:
    those of the interpreter and of Ether; the folder of the YAML is added. `writes` are folders for its data, beside
    the one that it has in the system's state folder. `systemd` is the version for which the units are written.
    """

    kind: Kind
    scope: Scope = "system"
    python: str = "/usr/bin/python3"
    serial: bool = False
    file: Path | None = None
    name: str | None = None
    user: str | None = None
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    systemd: int = 0

    def __post_init__(self) -> None:
        if (self.kind == "instance") != (self.name is not None):
            raise ServiceFailed("an instance's service needs the instance's name, and no other has one.")
        if self.name is not None and not _SERVICE_NAME.fullmatch(self.name):
            raise ServiceFailed(
                f"{self.name!r} cannot be the name of a service: it takes letters, digits and : _ . -"
                " with a letter or digit first. Give the instance another name in the YAML, or let the agent start it."
            )
        if self.user is not None and self.scope == "user":
            raise ServiceFailed("a service in the user's scope runs as this user: leave out the user, or the scope.")
        if self.serial and self.kind == "broker":
            raise ServiceFailed("a broker opens no serial port: leave out serial.")

    @property
    def unit(self) -> str:
        """Its name for systemctl."""
        return f"ether-instance@{self.name}.service" if self.name is not None else f"ether-{self.kind}.service"

    @property
    def unit_file(self) -> str:
        """The file of the unit; all instances share one."""
        return TEMPLATE if self.kind == "instance" else self.unit


def render(service: Service) -> dict[Path, str]:
    """The unit and its drop-ins: paths below systemd's folder for units, and texts."""
    files = {Path(service.unit_file): _text(_unit_lines(service))}
    drop_ins = Path(f"{service.unit}.d")
    if service.kind == "instance":
        files[drop_ins / "10-ether.conf"] = _text(_instance_lines(service))
    if service.writes and service.scope == "system":
        files[drop_ins / "15-data.conf"] = _text(_data_lines(service))
    if service.serial:
        files[drop_ins / "20-serial.conf"] = _text(_serial_lines(service))
    return files


def _text(lines: Iterable[str]) -> str:
    return "\n".join([MARK, *lines]) + "\n"


def _unit_lines(service: Service) -> list[str]:
    return [
        "",
        "[Unit]",
        f"Description={_DESCRIPTIONS[service.kind]}",
        *_order(service),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={_command(service)}",
        *_environment(service),
        "",
        *_LIFECYCLE,
        *(["RestartSteps=6", "RestartMaxDelaySec=60"] if service.systemd >= FIRST_WITH_STEPS else []),
        "",
        *(_sandbox(service) if service.scope == "system" else _USER_SANDBOX),
        "",
        "[Install]",
        f"WantedBy={'multi-user' if service.scope == 'system' else 'default'}.target",
    ]


_DESCRIPTIONS: dict[Kind, str] = {
    "broker": "Ether broker",
    "agent": "Ether agent on %H",
    "instance": "Ether instance %i",
}

_LIFECYCLE = [
    "# For ever: a network that comes and goes must not end it for good.",
    "Restart=always",
    "RestartSec=5",
    "# Not fed any more when the worker hangs. SIGABRT lets Python say where, in the journal.",
    "WatchdogSec=30",
    "TimeoutStartSec=300",
    "TimeoutStopSec=60",
    "# The main process ends its children in order; what is left after that is killed.",
    "KillMode=mixed",
    "OOMPolicy=continue",
    "LimitCORE=0",
]


def _order(service: Service) -> list[str]:
    """The services that start before it, if they are on this machine. None is required: Ether waits for each."""
    before = {"broker": [], "agent": ["ether-broker.service"], "instance": ["ether-broker.service"]}[service.kind]
    if service.scope == "user":  # a user's systemd knows nothing of the machine's network
        return [f"After={' '.join(before)}"] if before else []
    return ["Wants=network-online.target", f"After={' '.join(['network-online.target', 'time-sync.target', *before])}"]


def _command(service: Service) -> str:
    arguments = {
        "broker": "ether.launch.broker_service",
        "agent": "ether.cli.main agent --name %H",
        "instance": "ether.cli.main instance ${ETHER_FILE} %i",
    }[service.kind]
    return f"{_program(service.python)} -P -X faulthandler -m {arguments}"


def _environment(service: Service) -> list[str]:
    lines = ["EnvironmentFile=-%E/ether/environment"]
    if service.kind == "instance":
        lines += ["Environment=ETHER_FILE=%E/ether/ether.yaml", "WorkingDirectory=-%E/ether"]
        lines += ["SyslogIdentifier=ether-%i"]
    else:
        lines += [f"SyslogIdentifier=ether-{service.kind}"]
    if service.scope == "system":
        lines += [f"User={_user(service.user)}", *_SYSTEM_FOLDERS]
    return lines


_SYSTEM_FOLDERS = [
    "# Shared by all services of this machine, so that they find each other; kept while any of them runs.",
    "StateDirectory=ether",
    "RuntimeDirectory=ether",
    "RuntimeDirectoryPreserve=yes",
    "Environment=HOME=%S/ether XDG_RUNTIME_DIR=%t/ether",
]


def _instance_lines(service: Service) -> list[str]:
    if service.file is None:
        return ["", "[Service]", "# The file and the folder of the template."]
    folder = service.file.parent
    return [
        "",
        "[Service]",
        f"Environment={_word(f'ETHER_FILE={service.file}')}",
        f"WorkingDirectory={_line(str(folder))}",
        *(_home([folder]) if service.scope == "system" else []),
    ]


_CALL_LIMITS = [
    "NoNewPrivileges=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
]

_USER_SANDBOX = ["# What a user's systemd can do without privileges.", *_CALL_LIMITS]

_SYSTEM_SANDBOX = [
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "PrivateDevices=yes",
    "DevicePolicy=closed",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "PrivateMounts=yes",
    "ProtectSystem=strict",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
]

_BROKER_SANDBOX = [
    "ProcSubset=pid",
    "# It listens: private networks only. Others: `systemctl edit ether-broker`, IPAddressAllow=…",
    "IPAddressDeny=any",
    "IPAddressAllow=localhost link-local 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7",
]


def _sandbox(service: Service) -> list[str]:
    home = _home(service.reads) or ["ProtectHome=yes"]
    return [*_CALL_LIMITS, *_SYSTEM_SANDBOX, *home, *(_BROKER_SANDBOX if service.kind == "broker" else [])]


def _home(folders: Iterable[Path]) -> list[str]:
    """Hide homes, except for those of these folders that lie in one."""
    inside = [folder for folder in dict.fromkeys(folders) if _is_closed(folder)]
    if not inside:
        return []
    return ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_word(str(folder), colons=True)}" for folder in inside)]


def _is_closed(folder: PurePath) -> bool:
    return any(folder.is_relative_to(place) for place in _CLOSED_PLACES)


def _data_lines(service: Service) -> list[str]:
    opened = [_word(str(folder), colons=_is_closed(folder)) for folder in service.writes]
    keys = ["BindPaths" if _is_closed(folder) else "ReadWritePaths" for folder in service.writes]
    hidden = ["ProtectHome=tmpfs"] if "BindPaths" in keys else []
    return ["", "[Service]", *hidden, *(f"{key}={folder}" for key, folder in zip(keys, opened, strict=True))]


def _serial_lines(service: Service) -> list[str]:
    if service.scope == "user":
        return ["", "[Service]", "# Nothing is hidden from a user's service; the user must be in the group dialout."]
    return [
        "",
        "[Service]",
        "# Serial ports, and nothing else of /dev. 188 is ttyUSB and 166 ttyACM, by number: a name counts only if its",
        "# driver is loaded when the service starts, and these are loaded when somebody plugs an adapter in.",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        "DeviceAllow=char-188 rw",
        "DeviceAllow=char-166 rw",
        "DeviceAllow=char-ttyAMA rw",
        "DeviceAllow=char-ttyS rw",
        "SupplementaryGroups=dialout",
        "# The group of the ports must mean the same inside.",
        "PrivateUsers=no",
    ]


def _user(name: str | None) -> str:
    if name is None:
        return DEFAULT_USER
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", name):
        raise ServiceFailed(f"{name!r} is not the name of a user of this machine.")
    return name


def _line(text: str) -> str:
    """A value that extends to the end of its line."""
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise ServiceFailed(f"{text!r} cannot stand in a systemd unit: it has invisible characters, or ends in one.")
    return text.replace("%", "%%")


def _program(path: str) -> str:
    """The first word of a command: systemd expands no dollar in it, but refuses quotes and backslashes."""
    if any(character in path for character in "\"'\\"):
        raise ServiceFailed(f"{path!r} cannot be started by systemd: its path holds a quote or a backslash.")
    return _word(path)


def _word(text: str, *, colons: bool = False) -> str:
    """One word of a line, in quotes where it needs them. `colons` escapes them: in bind mounts the target follows."""
    plain = _line(text)
    quoted = plain.replace("\\", "\\\\").replace('"', '\\"')
    if colons:
        quoted = quoted.replace(":", "\\:")
    return plain if re.fullmatch(r"[A-Za-z0-9/_.=%@+,$-]+", quoted) else f'"{quoted}"'
