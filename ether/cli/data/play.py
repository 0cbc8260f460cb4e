"""`ether play`: publishes recorded messages again, into a running session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from ether import Ether
from ether.cli.data.recorded import RecordQuery
from ether.cli.exits import Exit
from ether.cli.lab.joined import joined
from ether.cli.options import Json, Where
from ether.cli.output import print_json, print_line, remark
from ether.launch.recording_setup import saving
from ether.runs.pacing_rules import speed_of
from ether.runs.replay import Played, Player


def play(
    query: RecordQuery,
    speed: Annotated[
        str, typer.Option("--speed", metavar="FACTOR", help="10: ten times as fast; max: without pauses.")
    ] = "1",
    as_topic: Annotated[
        str | None, typer.Option("--as", metavar="TOPIC", help="Publish on this topic instead of the recorded ones.")
    ] = None,
    own: Annotated[
        str | None, typer.Option("--in", metavar="NAME", help="A session of its own; started if it does not run.")
    ] = None,
    onto_devices: Annotated[bool, typer.Option("--onto-devices", help="What it causes may move devices.")] = False,
    *,
    where: Where,
    json: Json = False,
) -> int:
    """Publish recorded messages again, in the recorded rhythm, marked as a replay: into a session of its own, named
    after the recorded one (bench-replay), or into the one that --session or --in names."""
    factor = speed_of(speed)
    data = query.records(("data",))
    described = {"ledger": str(data.folder), **data.query.said, "speed": speed, "as": as_topic or ""}
    with _target(where, own, data.session, onto_devices) as there, joined(there) as client, saving(client, described):
        player = Player(client, data, factor, as_topic, onto_devices=onto_devices)
        remark(f"playing {data.folder} into session {client.topics.session}")
        try:
            _show(player.play(), as_json=json)
        except KeyboardInterrupt:
            _show(player.played(), as_json=json)
            return Exit.INTERRUPTED
    return Exit.OK


@contextmanager
def _target(where: Where, own: str | None, recorded: str, onto_devices: bool) -> Iterator[Where]:
    """The session to play into: one that was named, or one of the replay's own, which is started where it does not run,
    and ends with the replay. Raises `BadParameter`."""
    named = where.session or os.environ.get("ETHER_SESSION")
    if own is not None and where.session:
        raise typer.BadParameter("--in and --session both name the session to play into; give one of them")
    if own is None and named:
        yield where
        return
    if onto_devices and own is None:
        raise typer.BadParameter("--onto-devices needs --session NAME: a session of its own has no devices")
    name = own or f"{recorded}-replay"
    with Ether() as program:
        program.tap(session=name, broker=where.broker)
        yield Where(session=name, broker=where.broker)


def _show(played: Played, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(played))
    else:
        print_line(str(played))
