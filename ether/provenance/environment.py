"""The Python, the installed packages and the machine of this process, for its contexts.

Packages are read off the names of their `.dist-info` folders, which the standard for installed projects fixes as
NAME-VERSION: 0.3 ms, where parsing the metadata of a hundred packages takes 80 ms. The metadata is read only of a
folder whose name has no version. Where a package is installed in two places, the one counts that an import would find.

The machine is recognised by a mark: a hash of the operating system's machine id, which itself is confidential. Promise:
all answers are those of the first call, and nothing raises. The trap: packages that are installed later are not seen.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from ether.ledger.objects import Artifact, artifact

_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_NAMED = re.compile(r"(?P<name>[^-]+(?:-[^-0-9][^-]*)*?)-(?P<version>[0-9][^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")
_UNNAMED = (".egg-info", ".dist-info")


class Environment(NamedTuple):
    """The description for a context, and the list of packages that it refers to."""

    described: dict[str, Any]
    listed: Artifact


@cache
def environment() -> Environment:
    """The environment of this process at the first call."""
    packages = dict(sorted(installed_packages(sys.path).items()))
    python = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "build": " ".join(platform.python_build()),
    }
    full = {"python": python, "platform": platform.platform(), "packages": packages}
    listed = artifact("environment.json", json.dumps(full, indent=1).encode())
    described = {
        "sha256": listed.sha256, "python": python["version"], "implementation": python["implementation"],
        "platform": full["platform"], "packages": len(packages), "executable": sys.executable,
    }  # fmt: skip
    return Environment(described, listed)


def installed_packages(path: Iterable[str]) -> dict[str, str]:
    """By normalised name the version of each package that this import path reaches."""
    found: dict[str, str] = {}
    for folder in path:
        for name, version in _packages_in(folder or os.curdir):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def _packages_in(folder: str) -> Iterator[tuple[str, str]]:
    try:
        entries = os.listdir(folder)
    except OSError:  # a ZIP, or a folder that is not there
        return
    for entry in entries:
        if named := _NAMED.fullmatch(entry):
            yield named["name"], named["version"]
        elif entry.endswith(_UNNAMED):
            yield from _from_metadata(os.path.join(folder, entry))


def _from_metadata(path: str) -> Iterator[tuple[str, str]]:
    import importlib.metadata
    from pathlib import Path

    found = importlib.metadata.Distribution.at(Path(path))
    name, version = found.metadata["Name"], found.metadata["Version"]
    if name and version:
        yield name, version


@cache
def machine_facts() -> dict[str, Any]:
    """Host name, operating system, processor architecture, number of cores, and the machine's mark (16 hexadecimal
    digits, None where the system has no machine id)."""
    return {
        "host": socket.gethostname(),
        "system": platform.system(),
        "release": platform.release(),
        "arch": platform.machine(),
        "cpus": os.cpu_count(),
        "mark": _mark(),
    }


def _mark() -> str | None:
    machine_id = _machine_id()
    return hashlib.sha256(f"ether {machine_id}".encode()).hexdigest()[:16] if machine_id else None


def _machine_id() -> str:
    for path in _ID_FILES:
        try:
            with open(path) as file:
                return file.read().strip()
        except OSError:
            continue
    return _windows_id()


def _windows_id() -> str:
    try:
        registry: Any = importlib.import_module("winreg")
    except ImportError:
        return ""
    try:
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
            return str(registry.QueryValueEx(key, "MachineGuid")[0])
    except OSError:
        return ""
