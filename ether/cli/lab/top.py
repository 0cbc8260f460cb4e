"""`ether top`: a live table of a session.

Rates are taken over the last two seconds of an instance's heartbeats, which come twice a second. `LAG` is how long the
newest heartbeat was on its way, by the clocks of the two machines, which may differ. `AGE` is the age of the message in
work, and `↑` beside it says that messages wait longer and longer. rich is imported only where the table is drawn:
`--once` and `--json` do without.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.heartbeat_texts import busy_text, failures_text, state_text
from ether.cli.lab.joined import joined
from ether.cli.options import Json, Where
from ether.cli.output import colours, harmless, print_json, print_line, print_table
from ether.cli.tool_name import TOOL
from ether.protocol.presence import Announcement
from ether.session.client import Client
from ether.session.watching.heartbeats import BEHIND_S, Heartbeats

if TYPE_CHECKING:
    from rich.console import Group


_SHOWN_FAILING = 5
_FIRST_LOOK_S = 2.2
"""Four heartbeats of every instance."""

_COLUMNS = {
    "name": "NAME", "state_text": "STATE", "busy": "BUSY", "handled_hz": "IN/S", "published_hz": "OUT/S",
    "lag_ms": "LAG MS", "queued": "QUEUE", "age": "AGE S", "skipped_total": "SKIPPED", "errors": "ERRORS",
    "cpu_percent": "CPU %", "rss_mb": "MB", "host": "MACHINE",
}  # fmt: skip
_LEFT = ("name", "state_text", "busy", "host")
_STATE_STYLES = {"ready": "green", "starting": "cyan", "restarting": "yellow", "stopped": "dim"}


def top(
    once: Annotated[bool, typer.Option("--once", help="Print the table once, for scripts.")] = False,
    interval: Annotated[float, typer.Option("--interval", "-i", metavar="SECONDS", min=0.2, help="How often.")] = 1.0,
    *,
    where: Where,
    json: Json = False,
) -> int:
    """Show what every instance does, live until Ctrl-C: state, messages in and out a second, how late its signs of
    life come, messages waiting, age of the message in work, messages skipped (keep, max_age), CPU (100 % is one core),
    memory, machine."""
    if not once and not json and not sys.stdout.isatty():
        raise CommandMistake("ether top draws in a terminal; for a script take --once or --json")
    with joined(where) as client:
        heartbeats = Heartbeats(client)
        try:
            if once or json:
                heartbeats.collect(_FIRST_LOOK_S)
                _print(client, heartbeats, as_json=json)
            else:
                _draw(client, heartbeats, interval)
        except KeyboardInterrupt:
            pass
        finally:
            heartbeats.close()
    return Exit.OK


def _print(client: Client, heartbeats: Heartbeats, *, as_json: bool) -> None:
    rows = _rows(client, heartbeats)
    if as_json:
        print_json({"session": client.topics.session, "instances": rows, "machines": machines(rows)})
    else:
        print_table([_shown(row) for row in rows], _columns(rows), nothing="there are no instances")
        for line in _failing(rows):
            print_line(line)


def _failing(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each instance that has errors, the one that failed last first."""
    failed = sorted((row for row in rows if row["failures"]), key=lambda row: -row["failures"]["at"])
    return [harmless(failures_text(row["name"], row["failures"])) for row in failed]


def _columns(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The columns of the table; what was skipped, and errors, only where there are some."""
    hidden = {
        "skipped_total" if not any(row["skipped"] for row in rows) else "",
        "errors" if not any(row["failures"] for row in rows) else "",
    }
    return {key: heading for key, heading in _COLUMNS.items() if key not in hidden}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the table shows it."""
    age = None if row["age_s"] is None else f"{row['age_s']:.1f}{' ↑' * row['falls_behind']}"
    state = state_text(row["state"], row["behind_s"])
    total = sum(sum(counts.values()) for counts in row["skipped"].values())
    errors = row["failures"].get("count", 0)
    return {**row, "state_text": state, "age": age, "skipped_total": total, "errors": errors}


def _rows(client: Client, heartbeats: Heartbeats) -> list[dict[str, Any]]:
    members = client.session.announcements()
    return [row_of(member, heartbeats) for member in members if member.kind == "instance" and TOOL not in member.name]


def row_of(member: Announcement, heartbeats: Heartbeats) -> dict[str, Any]:
    """One instance as a row of the table; None for each value that is not known."""
    beat, activity = heartbeats.beat(member.name), heartbeats.activity(member.name)
    heartbeat = beat.heartbeat if beat else None
    return {
        "name": member.name,
        "state": member.state.value,
        "busy": busy_text(heartbeat),
        "handled_hz": activity.handled_hz if activity else None,
        "published_hz": activity.published_hz if activity else None,
        "lag_ms": 1000 * beat.lag_s if beat and beat.lag_s is not None else None,
        "queued": heartbeat.queued if heartbeat else None,
        "age_s": heartbeat.age_s if heartbeat else None,
        "behind_s": heartbeat.behind_s if heartbeat else None,
        "falls_behind": heartbeats.falls_behind(member.name),
        "skipped": heartbeat.skipped if heartbeat else {},
        "failures": heartbeat.failures if heartbeat else {},
        "cpu_percent": 100 * activity.cpu if activity else None,
        "rss_mb": heartbeat.rss_mb if heartbeat else None,
        "host": member.about.get("host"),
    }


def machines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each machine the sum over its instances: their number, CPU and memory."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[str(row["host"] or "unknown")].append(row)
    return [
        {
            "host": host,
            "instances": len(group),
            "cpu_percent": sum(row["cpu_percent"] or 0.0 for row in group),
            "rss_mb": sum(row["rss_mb"] or 0.0 for row in group),
        }
        for host, group in sorted(groups.items())
    ]


def _draw(client: Client, heartbeats: Heartbeats, interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=not colours(sys.stdout))
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            heartbeats.collect(interval_s)
            live.update(_picture(client, _rows(client, heartbeats), console.height), refresh=True)


def _picture(client: Client, rows: list[dict[str, Any]], height: int) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = _columns(rows)
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in _LEFT else "right", no_wrap=True)
    failing = _failing(rows)[:_SHOWN_FAILING]
    fitting = max(1, height - 4 - len(machines(rows)) - len(failing))
    for row in map(_shown, _most_active(rows)[:fitting]):
        table.add_row(*(Text(_cell(row[key]), style=_style(key, row)) for key in columns))
    heads = [
        f"{m['host']}: {m['instances']} instances, CPU {m['cpu_percent']:.0f} %, {m['rss_mb']:.0f} MB"
        for m in machines(rows)
    ]
    hidden = len(rows) - fitting
    more = [Text(f"… and {hidden} more, quieter ones")] if hidden > 0 else []
    return Group(Text(f"session {client.topics.session}", style="bold"), *map(Text, heads), table, *more,
                 *(Text(line, style="red", no_wrap=True, overflow="ellipsis") for line in failing))  # fmt: skip


def _most_active(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in the order of interest: first the instances that are not ready, then those that are behind, the most
    first, then those that take the most CPU."""
    return sorted(
        rows,
        key=lambda row: (
            row["state"] == "ready",
            -row["behind_s"] if _is_behind(row) else 0.0,
            -(row["cpu_percent"] or 0.0),
            row["name"],
        ),
    )


def _is_behind(row: dict[str, Any]) -> bool:
    return row["behind_s"] is not None and row["behind_s"] >= BEHIND_S


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _style(key: str, row: dict[str, Any]) -> str:
    if key == "age":
        return "red" if row["falls_behind"] else "yellow" if _is_behind(row) else ""
    if key != "state_text":
        return ""
    return "yellow" if row["state"] == "ready" and _is_behind(row) else _STATE_STYLES.get(row["state"], "red")
