"""`ether call SERVICE.METHOD key=value…`: calls a method and prints its value.

The method's announced description decides two things: which arguments are text although they look like JSON, and
whether the method is asked for a value (`ether_get`) or for a status (`ether_save`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ether.cli import completion
from ether.cli.arguments import parse_params
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.joined import joined
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import print_json, print_line, remark
from ether.errors import RemoteError
from ether.session.client import Client, as_status
from ether.spec.marks import MarkKind

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Arguments: JSON or text, @FILE for JSON of a file."),
]


def call(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE.METHOD", help="An instance or a class, and its method.", autocompletion=completion.methods
        ),
    ],
    arguments: Words = None,
    *,
    where: Where,
    timeout: Timeout = 10.0,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failed method failed.")] = False,
    json: Json = False,
) -> int:
    """Call a method that is marked ether_get or ether_save, and print what it returns."""
    service, _, method = target.rpartition(".")
    if not service or not method:
        raise CommandMistake(f"found {target!r:.80}; a call is written SERVICE.METHOD, such as camera1.snap")
    with joined(where, timeout) as client:
        description = _described(client, service, method)
        params = parse_params(arguments or [], _text_parameters(description), read_file)
        try:
            value = _call(client, service, method, params, timeout, description)
        except RemoteError as error:
            if traceback and error.remote_traceback:
                remark(error.remote_traceback.rstrip())
            raise
    if isinstance(value, str) and not json:
        print_line(value)
    else:
        print_json(value)
    failed = _is_save(description) and isinstance(value, dict) and value.get("status") == "error"
    return Exit.FAILED if failed else Exit.OK


def _call(client: Client, service: str, method: str, params: object, timeout_s: float, description: Any) -> Any:
    if not _is_save(description):
        return client.call(service, method, params, timeout_s, MarkKind.GET)
    return as_status(lambda: client.call(service, method, params, timeout_s, MarkKind.SAVE), f"{service}.{method}")


def _described(client: Client, service: str, method: str) -> dict[str, Any]:
    """The description of the method, from the first announcement that has one; empty where none has."""
    for member in client.session.members(service):
        methods = member.about.get("methods")
        described = methods.get(method) if isinstance(methods, dict) else None
        if isinstance(described, dict):
            return described
    return {}


def _is_save(description: dict[str, Any]) -> bool:
    """Whether the method returns a status. One that carries both marks is asked for its value."""
    kinds = description.get("kinds")
    return isinstance(kinds, list) and MarkKind.SAVE.value in kinds and MarkKind.GET.value not in kinds


def _text_parameters(description: dict[str, Any]) -> set[str]:
    """The parameters that take text alone; their words are not read as JSON."""
    parameters = description.get("parameters")
    return {
        str(each["name"])
        for each in (parameters if isinstance(parameters, list) else ())
        if isinstance(each, dict) and "name" in each and _is_text(each.get("schema"))
    }


def _is_text(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string" and "format" not in schema


def read_file(name: str) -> bytes:
    return Path(name).read_bytes()
