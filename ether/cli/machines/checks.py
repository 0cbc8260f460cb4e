"""What `ether doctor` looks at on this machine. Each check is independent, changes nothing, and says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ether.errors import EtherError
from ether.logs.session_file import log_folder
from ether.security.certificates import NotSigned, facts_of
from ether.system.clock import wall_time
from ether.system.folders import runtime_folder
from ether.system.lab_folders import memberships
from ether.version import VERSION

_LEAST_FREE_BYTES = 1_000_000_000
_LEAST_FREE_SHARE = 0.03
_MQTT_PORT = 1883
_PROBE_S = 0.5
_ASK_S = 3.0
_FEW_DAYS = 30

_MOSQUITTO_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_SERIAL_PATTERNS = ("ttyUSB*", "ttyACM*", "ttyAMA*", "serial/by-id/*", "tty.usb*", "cu.usb*")


class Check(NamedTuple):
    """One finding: `status` is ok, warn or fail; `hint` says what to do about it."""

    name: str
    status: str
    detail: str
    hint: str = ""

    def to_value(self) -> dict[str, str]:
        """As JSON."""
        return self._asdict()


def machine_checks() -> Iterator[Check]:
    """Everything that needs no session."""
    yield Check("ether", "ok", f"{VERSION}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield from _engines()
    yield from _libraries()
    yield _runtime_folder()
    yield from _disks()
    yield from _ports()
    yield from _firewall()
    yield from _serial_ports()
    yield from _clock()
    yield from certificate_checks(os.environ)


def certificate_checks(environment: Mapping[str, str]) -> Iterator[Check]:
    """Until when this machine is a member of which lab."""
    for known in memberships(environment):
        name = f"member of {known.host}"
        again = f"`ether pair {known.name}` on {known.host}, and here what it shows"
        try:
            left = facts_of(Path(known.certificate).read_bytes()).ends - wall_time()
        except (OSError, NotSigned) as error:
            yield Check(name, "fail", f"{known.certificate}: {error}", again)
            continue
        days = int(left / 86_400)
        detail = f"as {known.name}; this machine is let in for {days} more days"
        yield Check(
            name,
            "fail" if left < 0 else "warn" if days < _FEW_DAYS else "ok",
            detail,
            again if days < _FEW_DAYS else "",
        )


def _engines() -> Iterator[Check]:
    program = mosquitto_program()
    if program is None:
        hint = "mosquitto takes less of the processor for each message: apt install mosquitto"
        yield Check("engine mosquitto", "warn", "not installed; sessions run on amqtt", hint)
    else:
        yield Check("engine mosquitto", "ok", f"{_mosquitto_version(program)} ({program})")
    yield _library("engine amqtt", "amqtt", needed=True)


def mosquitto_program() -> str | None:
    """The path of mosquitto, searched where the embedded broker searches it (docs/brokers.md); None where it is not
    installed."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_MOSQUITTO_FOLDERS]))


def _mosquitto_version(program: str) -> str:
    said = _output_of([program, "-h"])
    return next((line for line in said.splitlines() if line.startswith("mosquitto version")), "of an unknown version")


def _output_of(command: list[str]) -> str:
    """What a program prints; empty where it cannot be run or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, errors="replace", check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _libraries() -> Iterator[Check]:
    yield _library("library paho-mqtt", "paho-mqtt", needed=True)
    yield _library("library zeroconf", "zeroconf", needed=False, without="sessions are not found by mDNS")
    yield _library("library numpy", "numpy", needed=False, without="arrays cannot be sent")


def _library(name: str, distribution: str, *, needed: bool, without: str = "") -> Check:
    try:
        return Check(name, "ok", importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        missing = f"not installed{f'; {without}' if without else ''}"
        return Check(name, "fail" if needed else "warn", missing, f"pip install {distribution}")


def _runtime_folder() -> Check:
    try:
        folder = runtime_folder()
    except EtherError as error:
        return Check("runtime folder", "fail", str(error), "set XDG_RUNTIME_DIR to a folder of your own")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("runtime folder", "fail", f"{folder} cannot be written", "set XDG_RUNTIME_DIR to another folder")
    return Check("runtime folder", "ok", folder)


def _disks() -> Iterator[Check]:
    try:
        logs = log_folder()
    except EtherError as error:
        yield Check("log folder", "fail", str(error))
        return
    existing = next((place for place in (logs, *logs.parents) if place.is_dir()), Path("/"))
    writable = os.access(existing, os.W_OK | os.X_OK)
    hint = "" if writable else "logs of sessions are not kept; give yourself the folder, or set XDG_STATE_HOME"
    yield Check("log folder", "ok" if writable else "fail", str(logs) if writable else f"{existing}: read only", hint)
    usage = shutil.disk_usage(existing)
    full = usage.free < min(_LEAST_FREE_BYTES, usage.total * _LEAST_FREE_SHARE)
    low = usage.free < max(_LEAST_FREE_BYTES, usage.total * _LEAST_FREE_SHARE)
    detail = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB at {existing}"
    hint = "make room: logs and data cannot be written to a full disk" if low else ""
    yield Check("disk", "fail" if full else "warn" if low else "ok", detail, hint)


def _ports() -> Iterator[Check]:
    try:
        socket.create_connection(("127.0.0.1", _MQTT_PORT), _PROBE_S).close()
    except OSError:
        yield Check("port 1883", "ok", "nobody listens there on this machine")
        return
    hint = "broker: mqtt://127.0.0.1 uses it; a session that listens on the network takes another port"
    yield Check("port 1883", "ok", "a broker, or another program, listens there on this machine", hint)


def _firewall() -> Iterator[Check]:
    """Only root can read the rules of a firewall; whether one is active, every user can see."""
    names = [name for name, there in _firewalls() if there]
    if names:
        hint = (
            "for other machines in a session allow TCP 8883 (MQTT over TLS), 8884 (`ether pair`) and UDP 5353 (mDNS) in"
        )
        yield Check("firewall", "warn", f"active: {', '.join(names)}", hint)
    else:
        yield Check("firewall", "ok", "none that can be seen from here")


def _firewalls() -> Iterator[tuple[str, bool]]:
    if sys.platform == "win32":
        yield "Windows Defender Firewall", True
    elif sys.platform == "darwin":
        said = _output_of(["/usr/libexec/ApplicationFirewall/socketfilterfw", "--getglobalstate"])
        yield "macOS application firewall", "enabled" in said.lower()
    else:
        yield "ufw", "ENABLED=yes" in _text_of("/etc/ufw/ufw.conf")
        yield "firewalld", os.path.exists("/run/firewalld")


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _serial_ports() -> Iterator[Check]:
    if sys.platform == "win32":
        return  # COM ports have no permissions
    found = sorted({path.resolve() for pattern in _SERIAL_PATTERNS for path in Path("/dev").glob(pattern)})
    if not found:
        yield Check("serial ports", "ok", "none")
    for path in found:
        if os.access(path, os.R_OK | os.W_OK):
            yield Check(f"serial port {path}", "ok", "can be opened by you")
        else:
            group = _group_of(path)
            hint = f"sudo usermod -aG {group} $USER, then log in again"
            yield Check(f"serial port {path}", "fail", f"belongs to the group {group}, which you are not in", hint)


def _group_of(path: Path) -> str:
    try:
        return path.group()
    except (KeyError, OSError):
        return "dialout"


def _clock() -> Iterator[Check]:
    if sys.platform != "linux":
        return
    said = _output_of(["timedatectl", "show", "-p", "NTPSynchronized", "--value"]).strip()
    if said in ("yes", "no"):
        hint = "" if said == "yes" else "times of several machines cannot be compared: timedatectl set-ntp true"
        yield Check("clock", "ok" if said == "yes" else "warn", f"set by the network: {said}", hint)


def shown(check: Check) -> dict[str, Any]:
    """A row for people."""
    return {"status": check.status, "name": check.name, "detail": check.detail}
