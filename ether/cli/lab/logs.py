"""`ether logs`: the log records of every instance, past and new, and the levels of its loggers.

Past records are read from the session's log file, which the launcher's machine has; `-f` listens to new records from
any machine. The trap: without `-f` nothing is joined, so the modules of session and discovery are not imported.
"""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ether.cli import completion
from ether.cli.arguments import parse_pairs, parse_since
from ether.cli.exits import CommandMistake, Exit
from ether.cli.lab.joined import found_session, joined
from ether.cli.options import Json, Where
from ether.cli.output import colours, print_json, print_line, remark
from ether.errors import PayloadError
from ether.logs.levels import VERB
from ether.logs.lines import LogLine, level_number
from ether.logs.session_file import read_back
from ether.system.clock import wall_time

if TYPE_CHECKING:
    from ether.connection.link import Inbound
    from ether.session.client import Client

_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31", "DEBUG": "2"}
_SET_TIMEOUT_S = 5.0
_ARRIVED_TWICE = 10_000

Show = Callable[[LogLine], None]


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    instance: Annotated[
        list[str] | None,
        typer.Option(
            "--instance",
            "-i",
            metavar="NAME",
            help="Of this one only; may be repeated.",
            autocompletion=completion.instances,
        ),
    ] = None,
    level: Annotated[str, typer.Option("--level", "-l", help="From this level up.")] = "debug",
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="10m, 2h, 1d, or a date and time; else the last lines."),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines, without --since.")
    ] = 50,
    set_level: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=LEVEL", help="Change the level of an instance; NAME:LOGGER=LEVEL of a logger."
        ),
    ] = None,
    *,
    where: Where,
    json: Json = False,
) -> int:
    """Show the log of all instances of a session, on whichever machine they run; or change their levels."""
    if set_level:
        return _set_levels(parse_pairs(set_level, "NAME=LEVEL, such as cam=debug"), where, as_json=json)
    chosen = _Chosen(instance or [], level_number(level))
    show = _show_json if json else _show_line
    begin = None if since is None else parse_since(since, wall_time())
    if not follow:
        _show_past(_session_name(where), begin, lines, chosen, show)
        return Exit.OK
    with joined(where) as client:
        arrived = _listen(client)  # before the file is read, so that no record is missed in between
        try:
            shown = _show_past(client.topics.session, begin, lines, chosen, show)
            _follow(client, arrived, chosen, show, shown)
        except KeyboardInterrupt:
            pass
    return Exit.OK


class _Chosen:
    """The records to show: of these instances (all where there are none), from this level up."""

    def __init__(self, instances: Iterable[str], level: int) -> None:
        self.instances = frozenset(instances)
        self.level = level

    def includes(self, line: LogLine) -> bool:
        return line.level_number >= self.level and (not self.instances or line.instance in self.instances)


def _session_name(where: Where) -> str:
    """The name that was given, without a search: a session that has ended has a log, too."""
    return where.session or found_session(where).name


def _show_past(session: str, begin: float | None, lines: int, chosen: _Chosen, show: Show) -> set[str]:
    """Returns the texts of the last records that were shown."""
    found = (line for line in read_back(session, since=begin) if chosen.includes(line))
    shown = deque(found, maxlen=lines) if begin is None else found
    last: deque[str] = deque(maxlen=_ARRIVED_TWICE)
    for line in shown:
        show(line)
        last.append(line.to_text())
    return set(last)


def _listen(client: Client) -> queue.SimpleQueue[Inbound]:
    arrived: queue.SimpleQueue[Inbound] = queue.SimpleQueue()
    client.link.listen(client.topics.log("+"), arrived.put, qos=0)
    return arrived


def _follow(client: Client, arrived: queue.SimpleQueue[Inbound], chosen: _Chosen, show: Show, shown: set[str]) -> None:
    """`shown`: what the file had. A record that arrived while the file was read is in both. It is known by its text,
    not by its time: the clock of its machine may be behind, or may have been set back."""
    prefix = client.topics.log("")
    remark(f"listening to the log of session {client.topics.session}")
    while True:
        inbound = arrived.get()
        try:
            value = inbound.unpack().value
        except PayloadError:
            continue
        finally:
            inbound.done()
        line = LogLine.from_value(value, inbound.delivery.topic.removeprefix(prefix))
        if line is None or not chosen.includes(line):
            continue
        if (text := line.to_text()) in shown:
            shown.discard(text)
        else:
            show(line)


def _show_line(line: LogLine) -> None:
    text = line.to_text().rstrip("\n")
    code = _COLOURS.get(line.level) if colours(sys.stdout) else None
    print_line(f"\x1b[{code}m{text}\x1b[0m" if code else text, escaped=True)


def _show_json(line: LogLine) -> None:
    facts = ("time", "level", "instance", "pid", "logger", "message", "message_id", "trace")
    print_json({key: getattr(line, key) for key in facts}, lines=True)


def _set_levels(wanted: dict[str, str], where: Where, *, as_json: bool) -> int:
    with joined(where) as client:
        results = {target: _set_one(client, target, level) for target, level in wanted.items()}
    if as_json:
        print_json(results)
    for target, result in results.items():
        if "failed" in result:
            remark(f"ether: {target}: {result['failed']}")
        elif not as_json:
            print_line(f"{target}: {result['before']} -> {result['level']}")
            for name, kept in result.get("kept", {}).items():
                print_line(f"  the logger {name} keeps its own level, {kept}")
    return Exit.FAILED if any("failed" in result for result in results.values()) else Exit.OK


def _set_one(client: Client, target: str, level: str) -> dict[str, Any]:
    name, _, logger = target.partition(":")
    if client.session.announcement(name) is None:
        there = ", ".join(member.name for member in client.session.announcements() if member.kind == "instance")
        raise CommandMistake(f"there is no instance {name!r} in the session; there are: {there or 'none'}")
    barrier = client.session.ask(VERB, [name], _SET_TIMEOUT_S, {"level": level, "logger": logger})
    answer = barrier.answers.get(name)
    if answer is None:
        return {"failed": barrier.reasons(_SET_TIMEOUT_S).get(name, "no answer")}
    return {"failed": "; ".join(answer.failed.values())} if answer.failed else dict(answer.results)
