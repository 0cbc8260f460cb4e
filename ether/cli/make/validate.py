"""`ether validate`: checks a configuration without importing or starting anything that it names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ether.cli.config_file import ConfigFile, chosen_file
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.config import EtherConfig, load_config
from ether.errors import ConfigError


def validate(file: ConfigFile = None, json: Json = False) -> int:
    """Check a configuration and say everything that is wrong with it: file, line, what was found, what would be
    valid. Nothing is imported or started."""
    path = chosen_file(file, Path.cwd())
    try:
        config = load_config(path)
    except ConfigError as error:
        if not json:
            raise
        print_json({"file": path, "valid": False, "problems": _problems(error)})
        return Exit.CONFIG
    if json:
        print_json({"file": path, "valid": True, "problems": [], "instances": list(config.named_instances())})
    else:
        print_line(f"{path}: {_summary(config)}")
    return Exit.OK


def _problems(error: ConfigError) -> list[dict[str, Any]]:
    """Each problem as a line of text; the first one with its parts beside it."""
    first, *others = str(error).splitlines()
    described = {"file": error.file, "line": error.line, "path": error.path, "problem": error.problem}
    return [{**described, "nearest": error.nearest, "text": first}, *({"text": line.strip()} for line in others)]


def _summary(config: EtherConfig) -> str:
    instances = config.named_instances()
    counted = Counter(instance.class_path for instance in instances.values())
    listed = ", ".join(f"{count} {path}" if count > 1 else path for path, count in counted.items())
    waiting = sum(not instance.autorun for instance in instances.values())
    said = f"fine: {len(instances)} instance{'s' if len(instances) != 1 else ''}"
    said += f" ({listed})" if listed else ""
    return said + (f", {waiting} of them not started with the session" if waiting else "")
