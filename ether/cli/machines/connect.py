"""`ether connect`: how other MQTT programs get into a session, as lines that can be copied.

Promise: no password stands on a command line, where every user of the machine could read it, nor in the shell's
history. The lines for Mosquitto's clients name a private folder that has it, which ends with the session. It is printed
only where it has to be typed into a program, and only when that is asked for.

The trap: Mosquitto's clients read their options from a file of their own name below `XDG_CONFIG_HOME`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ether.cli.exits import Exit
from ether.cli.lab.joined import found_session
from ether.cli.options import Json, Where
from ether.cli.output import print_json, print_line
from ether.config.broker_url import is_loopback
from ether.session.discovery.local_sessions import folder_of
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

CLIENTS = ("mosquitto_sub", "mosquitto_pub", "mosquitto_rr")

Secret = Annotated[bool, typer.Option("--show-password", help="Print the password, for programs that ask for it.")]


def connect(where: Where, show_password: Secret = False, json: Json = False) -> int:
    """Show how other MQTT programs get into a session: mosquitto_sub, _pub and _rr, MQTT Explorer, Node-RED."""
    found = found_session(where)
    to = Endpoint.from_url(found.url)
    folder = folder_of(found.name, os.environ)
    options = client_options(to)
    place = None if folder is None or options is None else write_options(Path(folder, "connect"), options)
    lines = [] if place is None else commands(found.name, place)
    facts = {
        "session": found.name,
        "broker": to.address,
        "kind": to.kind,
        "host": to.host,
        "port": to.port,
        "username": to.username,
        "password": to.password if show_password else None,
        "folder": None if place is None else str(place),
        "commands": lines,
    }
    if json:
        print_json(facts)
        return Exit.OK
    print_line("\n".join(_page(found.name, to, lines, place, show_password=show_password)))
    return Exit.OK


def client_options(to: Endpoint) -> list[str] | None:
    """The options of Mosquitto's clients for a broker, one a line; None where they cannot reach it so."""
    if to.kind in ("ws", "wss", "tls"):
        return None
    where = [f"--unix {to.path}"] if to.kind == "unix" else [f"-h {to.host}", f"-p {to.port}"]
    return [
        "-V mqttv5", *where, *([f"-u {to.username}"] if to.username else []),
        *([f"-P {to.password}"] if to.password else []),
    ]  # fmt: skip


def write_options(folder: Path, options: list[str]) -> Path:
    """Write them where Mosquitto's clients look; only this user can read it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for client in CLIENTS:
        path = folder / client
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(options) + "\n")
    return folder


def commands(session: str, folder: Path) -> list[str]:
    """What can be typed as it stands: all values, one message, one call."""
    topics = SessionTopics(session)
    use = f"XDG_CONFIG_HOME={shlex.quote(str(folder))}"
    data, call = topics.data("#"), topics.call("INSTANCE", "METHOD")
    return [
        f"{use} mosquitto_sub -v -t {shlex.quote(data)}",
        f"{use} mosquitto_pub -t {shlex.quote(topics.data('TOPIC'))} -m '{{\"celsius\": 21.5}}'",
        f"{use} mosquitto_rr -t {shlex.quote(call)} -e my/replies -m '{{\"exposure\": 0.1}}'",
    ]


def _page(session: str, to: Endpoint, lines: list[str], place: Path | None, *, show_password: bool) -> list[str]:
    said = [f"session {session}, broker {to.address}", ""]
    if place is not None:
        said += ["Mosquitto's clients (the password is in that folder, for you alone, until the session ends):", ""]
        said += [f"    {line}" for line in lines]
    elif to.kind == "tls":
        said += [
            "The broker knows each machine by its certificate: run this on the machine that leads the session,",
            "or give the program the files below ~/.config/ether/labs (docs/pairing.md).",
        ]
    else:
        said.append("Mosquitto's clients are not given this address here: the session's program runs elsewhere.")
    said += ["", "MQTT Explorer, Node-RED and other programs ask for:", ""]
    rows = {
        "protocol": f"{to.kind}, MQTT 5 or 3.1.1",
        "host": to.path if to.kind == "unix" else to.host,
        "port": "" if to.kind == "unix" else str(to.port),
        "user": to.username or "none",
        "password": (to.password or "none") if show_password or not to.password else "ether connect --show-password",
        "topic": SessionTopics(session).data("#"),
    }
    said += [f"    {name:<9} {value}" for name, value in rows.items() if value]
    if to.kind == "tcp" and is_loopback(to.host):
        said += [
            "",
            "This broker listens on this machine alone; broker: {listen: lan} and `ether pair NAME` let others in.",
        ]
    return said
