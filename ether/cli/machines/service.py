"""`ether service install|status|logs|remove`: services that start with the machine (docs/services.md)."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import CommandMistake, Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line, print_table
from ether.system import services
from ether.system.services import Machine, ServicePlan, unit_of
from ether.system.units import KINDS, Kind, Service

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

KindName = Annotated[str, typer.Argument(metavar="KIND", help="broker, agent or instance.")]
MaybeKind = Annotated[str | None, typer.Argument(metavar="[KIND]", help="broker, agent or instance; else all.")]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of an instance: its name in the YAML.")]
User = Annotated[bool, typer.Option("--user", help="A service of yours, without root.")]

_COLUMNS = {"unit": "SERVICE", "active": "ACTIVE", "sub": "STATE", "pid": "PID", "restarts": "RESTARTS", "says": "SAYS"}


@app.command()
def install(
    kind: KindName,
    name: Name = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Of an instance: the YAML.")] = None,
    user: User = False,
    serial: Annotated[bool, typer.Option("--serial", help="It may use serial ports.")] = False,
    writes: Annotated[list[Path] | None, typer.Option("--writes", help="A folder that it may write to.")] = None,
    as_user: Annotated[str | None, typer.Option("--as", metavar="USER", help="Run as this user.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print files and commands, and do nothing.")] = False,
    json: Json = False,
) -> int:
    """Write the unit, start it, and wait until it is ready."""
    machine = _machine(user)
    wanted = Service(
        _kind(kind), machine.scope, sys.executable, serial, file, name, as_user, writes=tuple(writes or ())
    )
    planned = services.plan(wanted, machine)
    if dry_run:
        _show_plan(planned, as_json=json)
        return Exit.OK
    said = services.install(planned, machine)
    if json:
        print_json(asdict(said))
    else:
        print_line(f"{said.unit} is {said.active} ({said.sub}){f': {said.says}' if said.says else ''}")
    return Exit.OK if said.ready else Exit.FAILED


def _show_plan(planned: ServicePlan, *, as_json: bool) -> None:
    if as_json:
        files = {str(path): file.text for path, file in planned.files.items()}
        print_json({"files": files, "commands": [list(command) for command in planned.commands]})
    else:
        print_line(str(planned))


@app.command()
def status(kind: MaybeKind = None, name: Name = None, user: User = False, json: Json = False) -> None:
    """Show one service, or all of Ether's."""
    rows = [asdict(said) for said in services.status(_unit(kind, name), _machine(user))]
    if json:
        print_json(rows)
    else:
        print_table(rows, _COLUMNS, nothing="no services of Ether's are installed")


@app.command()
def logs(
    kind: MaybeKind = None,
    name: Name = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until Ctrl-C.")] = False,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help="As journalctl takes it: -1h.")] = None,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="The last so many.")] = None,
    user: User = False,
) -> int:
    """Show the journal of one service, or of all."""
    return services.logs(_unit(kind, name), _machine(user), follow=follow, since=since, lines=lines)


@app.command()
def remove(kind: KindName, name: Name = None, user: User = False, json: Json = False) -> None:
    """Stop a service, and delete what was written for it."""
    removed = [str(path) for path in services.remove(_kind(kind), name, _machine(user))]
    if json:
        print_json({"removed": removed})
    else:
        print_line("\n".join(f"removed {path}" for path in removed))


def _kind(kind: str) -> Kind:
    for known in KINDS:
        if kind == known:
            return known
    raise CommandMistake(f"there is no service {kind!r}; there are: {', '.join(KINDS)}")


def _unit(kind: str | None, name: str | None) -> str | None:
    return None if kind is None else unit_of(_kind(kind), name)


def _machine(user: bool) -> Machine:
    return Machine.here("user" if user else "system")
