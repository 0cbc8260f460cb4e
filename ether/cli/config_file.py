"""Which configuration a command reads when no file is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import CommandMistake

USUAL_FILE = "ether.yaml"

ConfigFile = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help=f"A YAML file; else {USUAL_FILE}, else the only one with `instances:`."),
]


def chosen_file(given: str | None, folder: Path) -> str:
    """The file that was given, else `ether.yaml` in `folder`, else the only YAML file there with `instances:`."""
    if given is not None:
        return given
    if (folder / USUAL_FILE).is_file():
        return USUAL_FILE
    found = [path.name for path in sorted(folder.glob("*.y*ml")) if _has_instances(path)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandMistake(f"several configurations are here: {', '.join(found)}; say which one")
    raise CommandMistake(f"there is no {USUAL_FILE} in {folder} and no other YAML file with instances; name a FILE")


def _has_instances(path: Path) -> bool:
    try:
        return any(line.startswith("instances:") for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return False
