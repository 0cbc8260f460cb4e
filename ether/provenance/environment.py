"""Which Python and which packages something ran with.

Packages are read off the names of their `.dist-info` folders, which the standard for installed projects fixes as
NAME-VERSION: 0.3 ms where parsing the metadata of a hundred packages takes 80 ms. Where a name does not say it, the
metadata is asked. A package that stands in two places counts where the import would find it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from ether.ledger.artifacts import Artifact, artifact

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
