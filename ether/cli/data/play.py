"""`ether play`: publishes recorded messages again, into a running session."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

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
    *,
    where: Where,
    json: Json = False,
) -> int:
    """Publish recorded messages again into the session that runs, in the recorded rhythm, marked as a replay."""
    factor = speed_of(speed)
    data = query.records(("data",))
    described = {"ledger": str(data.folder), **data.query.said, "speed": speed, "as": as_topic or ""}
    with joined(where) as client, saving(client, described):
        player = Player(client, data, factor, as_topic)
        remark(f"playing {data.folder} into session {client.topics.session}")
        try:
            _show(player.play(), as_json=json)
        except KeyboardInterrupt:
            _show(player.played(), as_json=json)
            return Exit.INTERRUPTED
    return Exit.OK


def _show(played: Played, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(played))
    else:
        print_line(str(played))
