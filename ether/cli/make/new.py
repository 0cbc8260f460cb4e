"""`ether new`: a project that runs, small enough to read in a minute and to change in the next."""

from __future__ import annotations

import json as json_text
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import CommandMistake
from ether.cli.make.schema import config_schema
from ether.cli.make.templates import TEMPLATES, ProjectTemplate
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.config.problems import nearest_of

_README = """\
# {name}

{about}

    {run}

and in another terminal

{tries}

| file | what it is |
| --- | --- |
{files}

Edit a class while it runs: `ether run --watch`.
"""
_ABOUT_FILES = {
    "ether.yaml": "which instances there are, with which arguments",
    "ether.schema.json": "lets editors complete and check `ether.yaml`; made by `ether schema`",
}


def _choices() -> str:
    return "; ".join(f"{name}: {template.about}" for name, template in TEMPLATES.items())


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
    template: Annotated[
        str, typer.Option("--template", "-t", metavar="KIND", help=f"What to begin with. {_choices()}.")
    ] = "minimal",
    json: Json = False,
) -> None:
    """Make a folder with a project that runs: classes, a configuration, a test, a README."""
    if template not in TEMPLATES:
        near = nearest_of(template, list(TEMPLATES))
        meant = f" Did you mean {near!r}?" if near else ""
        raise CommandMistake(f"there is no template {template!r}.{meant} There are: {', '.join(TEMPLATES)}")
    chosen = TEMPLATES[template]
    files = make_project(Path(name), chosen)
    if json:
        print_json({"folder": str(Path(name)), "files": sorted(files)})
    else:
        print_line(f"{name} is made. Try it:\n\n    cd {shlex.quote(name)}\n    {chosen.run}")


def make_project(folder: Path, template: ProjectTemplate) -> list[str]:
    """Write the files of a template into a folder that is new or empty, and return their names; raises
    `CommandMistake`."""
    files = _files(folder.resolve().name, template)
    try:
        _make(folder, files)
    except FileExistsError:
        raise CommandMistake(f"{str(folder)!r} exists already; choose another name, or remove it first") from None
    except OSError as error:
        raise CommandMistake(f"cannot make {str(folder)!r}: {error.strerror or error}") from error
    return list(files)


def _files(name: str, template: ProjectTemplate) -> dict[str, str]:
    session = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "lab"
    made = {file: text.replace("{session}", session) for file, text in template.files.items()}
    made["ether.yaml"] = f"# yaml-language-server: $schema=ether.schema.json\n{made['ether.yaml']}"
    made["ether.schema.json"] = json_text.dumps(config_schema(), indent=2) + "\n"
    rows = "\n".join(f"| `{file}` | {_about(file, text)} |" for file, text in made.items())
    tries = "\n".join(f"    {line}" for line in template.tries.splitlines())
    about = f"Made by `ether new`: {template.about}."
    made["README.md"] = _README.format(name=name, about=about, run=template.run, tries=tries, files=rows)
    return made


def _about(file: str, text: str) -> str:
    if file.startswith("test_"):
        return "`pytest` runs it, without broker or processes"
    return _ABOUT_FILES.get(file) or text.split('"""')[1].partition("\n")[0].partition(": python")[0].rstrip(".")


def _make(folder: Path, files: dict[str, str]) -> None:
    """Raises `FileExistsError` rather than change an existing file. An empty folder may exist already."""
    if not folder.is_dir() or any(folder.iterdir()):
        folder.mkdir(parents=True)
    for name, text in files.items():
        with open(folder / name, "x", encoding="utf-8") as file:
            file.write(text)
