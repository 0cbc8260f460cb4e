"""`ether start|stop|restart NAME`: asks the program that supervises an instance to start or stop it."""

from __future__ import annotations

from typing import Annotated

import typer

from ether.cli import completion
from ether.cli.exits import CommandMistake
from ether.cli.lab.control import ask_program
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import print_json, print_line
from ether.session.client import Client

InstanceName = Annotated[str, typer.Argument(metavar="NAME", help="The instance.", autocompletion=completion.instances)]

_DONE = {"start": "was started", "remove": "was stopped", "restart": "was restarted"}
"""For each verb of the wire, what is printed of an instance afterwards."""


def start(name: InstanceName, where: Where, timeout: Timeout = 30.0, json: Json = False) -> None:
    """Start an instance that the session's configuration describes and that does not run."""
    _supervise("start", name, where, timeout, as_json=json)


def stop(name: InstanceName, where: Where, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Stop one instance in order; everything else goes on."""
    _supervise("remove", name, where, timeout, as_json=json)


def restart(name: InstanceName, where: Where, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Stop one instance in order and start it again; calls to it wait meanwhile."""
    _supervise("restart", name, where, timeout, as_json=json)


def _supervise(verb: str, name: str, where: Where, timeout_s: float, *, as_json: bool) -> None:
    with joined(where) as client:
        program = _supervisor_of(client, name, verb)
        ask_program(client, program, {"do": verb, "name": name}, f"{verb} {name!r}", timeout_s)
    if as_json:
        print_json({"instance": name, "done": verb})
    else:
        print_line(f"{name} {_DONE[verb]}")


def _supervisor_of(client: Client, name: str, verb: str) -> str:
    """The program that supervises an instance; for one that does not run, the program that leads the session."""
    known = client.session.announcement(name)
    if known is None and verb != "start":
        there = ", ".join(each.name for each in client.session.announcements() if each.kind == "instance")
        raise CommandMistake(f"there is no instance {name!r} in the session; there are: {there or 'none'}")
    supervisor = known.about.get("keeper") if known is not None else None
    return str(supervisor or client.session.info(JOIN_TIMEOUT_S).get("program", "main"))
