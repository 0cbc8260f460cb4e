"""Which Python and which packages something ran with.

Packages are read off the names of their `.dist-info` folders, which the standard for installed projects fixes as
NAME-VERSION: 0.3 ms where parsing the metadata of a hundred packages takes 80 ms. Where a name does not say it, the
metadata is asked. A package that stands in two places counts where the import would find it.
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

_NAMED = re.compile(r"(?P<name>[^-]+(?:-[^-0-9][^-]*)*?)-(?P<version>[0-9][^-]*)(?:-py[0-9.]+)?\.(?:dist|egg)-info")
_UNNAMED = (".egg-info", ".dist-info")


class Environment(NamedTuple):
    """What a context says of it, and the list that this refers to."""

    described: dict[str, Any]
    listed: Artifact


@cache
def environment() -> Environment:
    """Of this process, as it was when this was first asked."""
    packages = dict(sorted(installed_packages(sys.path).items()))
    python = {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "build": " ".join(platform.python_build()),
    }
    told = {"python": python, "platform": platform.platform(), "packages": packages}
    listed = artifact("environment.json", json.dumps(told, indent=1).encode())
    described = {
        "sha256": listed.sha256, "python": python["version"], "implementation": python["implementation"],
        "platform": told["platform"], "packages": len(packages), "executable": sys.executable,
    }  # fmt: skip
    return Environment(described, listed)


def installed_packages(path: Iterable[str]) -> dict[str, str]:
    """Normalised name to version, of all packages that this import path reaches."""
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
            yield from _asked(os.path.join(folder, entry))


def _asked(path: str) -> Iterator[tuple[str, str]]:
    import importlib.metadata
    from pathlib import Path

    found = importlib.metadata.Distribution.at(Path(path))
    name, version = found.metadata["Name"], found.metadata["Version"]
    if name and version:
        yield name, version


_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@cache
def machine_facts() -> dict[str, Any]:
    """Host name, system, processor, count of its cores, and the machine's mark."""
    return {
        "host": socket.gethostname(),
        "system": platform.system(),
        "release": platform.release(),
        "arch": platform.machine(),
        "cpus": os.cpu_count(),
        "mark": _mark(),
    }


def _mark() -> str | None:
    own = _machine_id()
    return hashlib.sha256(f"ether {own}".encode()).hexdigest()[:16] if own else None


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
