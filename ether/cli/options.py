"""Options that several commands share, each spelled once: single options, and groups of them.

A command takes a group as one parameter (`where: Where`), whose value is a frozen dataclass. typer reads only flat
signatures, so `ether.cli.main` passes each command through `with_flat_options` first: users see the fields of the group
as ordinary options, in the order of the fields, where the group stands in the signature.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from ether.cli import completion

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
SessionName = Annotated[
    str | None,
    typer.Option(
        "--session", "-s", metavar="NAME", help="The session; else the one that runs.",
        autocompletion=completion.sessions,
    ),
]  # fmt: skip
RecordedName = Annotated[
    str | None,
    typer.Option(
        "--session", "-s", metavar="NAME", help="The session; else the one that runs.",
        autocompletion=completion.ledgers,
    ),
]  # fmt: skip
BrokerUrl = Annotated[
    str | None, typer.Option("--broker", "-b", metavar="URL", help="Look for it at this broker, mqtt://host:port.")
]
LedgerFolder = Annotated[
    str | None, typer.Option("--ledger", metavar="FOLDER", help="The folder of a ledger, instead of a session's name.")
]
Timeout = Annotated[float, typer.Option("--timeout", "-t", metavar="SECONDS", min=0.1, help="How long to wait.")]


class OptionGroup:
    """The base of every group: a frozen dataclass whose fields are annotated as typer's parameters are."""


@dataclass(frozen=True)
class Where(OptionGroup):
    """The session that a command works in, and the broker at which it is searched; None as for `ether.tap()`."""

    session: SessionName = None
    broker: BrokerUrl = None


@dataclass(frozen=True)
class RecordedSession(OptionGroup):
    """The session whose ledger is read, or the ledger's folder; neither: the ledger that was written last."""

    session: RecordedName = None
    ledger: LedgerFolder = None

    @property
    def ledger_or_session(self) -> str | None:
        """What `find_ledger` looks for; a folder counts more than a session's name."""
        return self.session if self.ledger is None else self.ledger


def with_flat_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command as typer can read it: each parameter that is an option group is replaced by the group's fields.

    How: typer asks `inspect.signature` and `__annotations__` for the parameters, and calls the command with keywords.
    So the wrapper carries the flat signature, and collects the fields into their group again when it is called.
    A command without groups is returned as it is.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, OptionGroup)}
    if not groups:
        return command
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += _fields_of(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])]

    @functools.wraps(command)
    def run(**options: Any) -> Any:
        values = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})  # type: ignore[arg-type]
            for name, group in groups.items()
        }
        return command(**values, **options)

    flat = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in flat}
    return run


def _fields_of(group: type[OptionGroup]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)  # type: ignore[arg-type]
    ]
