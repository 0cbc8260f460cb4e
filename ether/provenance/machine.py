"""Which machine something ran on, as facts that stay: the name it has, its system, and a mark that outlives both.

The mark is a hash: the machine's own id is nobody else's business (machine-id(5) asks not to pass it on). It is None
where the system has no such id.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import socket
from functools import cache
from typing import Any

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
