"""`ether secret set|list|remove`: the values that `!secret NAME` stands for, in the user's private file."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line, print_table
from ether.config.secrets import check_secret_name, read_secrets, secrets_path
from ether.system.private_files import write_private

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

SecretArgument = Annotated[str, typer.Argument(metavar="NAME", help="As in `!secret NAME`.")]

_SOURCES = {"name": "SECRET", "from": "FROM"}


@app.command("set")
def set_secret(name: SecretArgument, json: Json = False) -> None:
    """Ask for a secret's value, or read it from standard input, and keep it."""
    check_secret_name(name)
    value = typer.prompt(f"value of {name}", hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise CommandMistake(f"nothing was given for {name}: type its value, or pipe it in")
    known = read_secrets(os.environ)
    path = _write({**known, name: value})
    if json:
        print_json({"name": name, "kept": path})
    else:
        print_line(f"{name} is kept in {path}; `!secret {name}` stands for it")


@app.command("list")
def list_secrets(json: Json = False) -> None:
    """Show the names of the secrets that are kept, and what goes before them; never a value."""
    path = secrets_path(os.environ)
    rows = [
        {"name": name, "from": "the environment, which goes before the file" if os.environ.get(name) else path}
        for name in sorted(read_secrets(os.environ))
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows, _SOURCES, nothing=f"no secrets in {path}")


@app.command("remove")
def remove_secret(name: SecretArgument, json: Json = False) -> int:
    """Forget a secret."""
    known = read_secrets(os.environ)
    if name not in known:
        raise CommandMistake(f"there is no secret {name!r:.80} in {secrets_path(os.environ)}; `ether secret list`")
    path = _write({key: value for key, value in known.items() if key != name})
    if json:
        print_json({"name": name, "removed": path})
    else:
        print_line(f"{name} is not in {path} any more")
    return Exit.OK


def _write(secrets: dict[str, str]) -> str:
    path = secrets_path(os.environ)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_private(path, secrets)
    return path
