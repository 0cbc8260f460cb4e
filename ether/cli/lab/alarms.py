"""`ether alarms`: which alarms there are and in which state; `ack`, `shelve` and `unshelve` change one."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ether.cli.arguments import parse_duration_s
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Where, with_flat_options
from ether.cli.output import ago, print_json, print_line, print_table
from ether.session.watching.alarms import alarm_rows, change_alarm
from ether.spec.alarm_rules import ALARM, LATCHED

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="instance.alarm, as `ether alarms` lists them.")]
Note = Annotated[str, typer.Option("--note", help="What is to stand beside it in the record.")]
By = Annotated[str, typer.Option("--by", metavar="WHO", help="Who does it; left out, the user of this machine.")]

_COLUMNS = {"name": "ALARM", "state": "STATE", "shown": "VALUE", "limits": "LIMITS", "ago": "SINCE", "who": "WHO"}


@app.callback()
@with_flat_options
def alarms(context: typer.Context, where: Where, json: Json = False) -> None:
    """Show every alarm and its state; code 1 while one is an alarm, or latched, and nobody has acknowledged it."""
    if context.invoked_subcommand is not None:
        if json or where != Where():
            raise CommandMistake(f"options stand behind {context.invoked_subcommand}, not before it")
        return
    with joined(where) as client:
        client.session.open(JOIN_TIMEOUT_S)
        rows = alarm_rows(client.session.announcements())
    if json:
        print_json(rows)
    else:
        print_table([_shown(row) for row in rows], _COLUMNS, nothing="no alarms")
    raise typer.Exit(Exit.FAILED if any(row["state"] in (ALARM, LATCHED) for row in rows) else Exit.OK)


@app.command("ack")
def acknowledge(name: Name, where: Where, note: Note = "", by: By = "", json: Json = False) -> None:
    """Say that you know of an alarm; one that is latched, and well again, ends."""
    _change(where, name, "acknowledge", json, by=by, note=note)


@app.command("shelve")
def shelve(
    name: Name,
    where: Where,
    how_long: Annotated[str, typer.Option("--for", metavar="DURATION", help="For how long: 10m, 2h.")],
    note: Note = "",
    by: By = "",
    json: Json = False,
) -> None:
    """Hear nothing of an alarm for a time: its state says who wanted that, and until when."""
    _change(where, name, "shelve", json, by=by, note=note, for_s=parse_duration_s(how_long))


@app.command("unshelve")
def unshelve(name: Name, where: Where, note: Note = "", by: By = "", json: Json = False) -> None:
    """Take an alarm from the shelf before its time is over."""
    _change(where, name, "unshelve", json, by=by, note=note)


def _change(where: Where, name: str, do: str, json: bool, **more: Any) -> None:
    with joined(where) as client:
        client.session.open(JOIN_TIMEOUT_S)
        row = change_alarm(client.session, name, do, **more)
    if json:
        print_json(row)
    else:
        print_line(f"{name} is {row.get('state')}{_who(row)}")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    value, unit = row.get("value"), row.get("unit", "")
    limits = [f"{level} {said}" for level in ("warn", "alarm") if (said := row.get(f"{level}_when"))]
    shown = "" if value is None else f"{value:g} {unit}".rstrip()
    return {**row, "shown": shown, "limits": "; ".join(limits), "ago": ago(row.get("since")), "who": _who(row).strip()}


def _who(row: dict[str, Any]) -> str:
    match row:
        case {"shelved": {"by": by, "until": int(until) | float(until)}}:
            return f" by {by} until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(until))}"
        case {"acknowledged": {"by": by}}:
            return f" by {by}"
    return ""
