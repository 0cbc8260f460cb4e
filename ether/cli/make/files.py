"""`ether validate` and `ether schema`: configurations, without starting anything."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.errors import ConfigError

if TYPE_CHECKING:
    from ether.config import EtherConfig

USUAL_FILE = "ether.yaml"

ConfigFile = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help=f"A YAML file; else {USUAL_FILE}, else the only one with `instances:`."),
]


def validate(file: ConfigFile = None, json: Json = False) -> int:
    """Check a configuration and say everything that is wrong with it: file, line, what was found, what would be
    valid. Nothing is imported or started."""
    from ether.config import load_config

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
    """All of them as lines; the first one taken apart."""
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


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the JSON Schema of a configuration. With VS Code's YAML extension (yaml-language-server) put
    `# yaml-language-server: $schema=ether.schema.json` into the first line of a configuration."""
    from ether.cli.make.schema import config_schema

    if output is None:
        print_json(config_schema())
        return
    import json as json_text

    try:
        output.write_text(json_text.dumps(config_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandMistake(f"cannot write {output}: {error.strerror or error}") from error
    if json:
        print_json({"written": str(output)})
