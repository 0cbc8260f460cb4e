"""`ether ps`: the members of a session and the state of each.

Two sources: the session itself, joined; or, where its broker cannot be reached, the snapshot that a program of this
machine keeps while it is cut off. Both give rows with the same keys.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Annotated, Any

import typer

from ether.cli.exits import NoSession
from ether.cli.lab.heartbeat_texts import busy_text, failures_text, state_text
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import ago, alarming, print_json, print_line, print_table, remark
from ether.cli.tool_name import TOOL
from ether.config.broker_url import complete_url
from ether.errors import TransportError
from ether.protocol.presence import TAKES_PART, Announcement
from ether.recording.forecast_rules import forecast_text, seconds_left
from ether.recording.recorder_page import RecorderFacts, recorders_of
from ether.session.client import Client
from ether.session.offline import LastKnown, read_last_known
from ether.session.watching.alarms import raised
from ether.session.watching.heartbeats import BEHIND_S, Heartbeats
from ether.system.processes import is_running
from ether.transport.endpoint import Endpoint

_HEARTBEAT_PATIENCE_S = 0.8
"""A living instance sends a heartbeat every 0.5 s."""

_COLUMNS = {
    "name": "NAME", "state": "STATE", "class": "CLASS", "host": "HOST", "pid": "PID", "ago": "SINCE", "busy": "BUSY",
}  # fmt: skip
_LATE_COLUMNS = {"queued": "QUEUE", "age_s": "AGE S"}
"""Shown where an instance is behind, or has more to do than it is doing."""


def ps(
    where: Where,
    errors: Annotated[bool, typer.Option("--errors", help="Show why instances failed, in full.")] = False,
    timeout: Timeout = JOIN_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Show who is in the session: instances, programs and agents, and what each is doing. Where its broker cannot be
    reached from here, what the programs of this machine knew last."""
    known = None
    try:
        with joined(where, timeout, returns_s=0.0) as client:  # what was known last is shown instead, at once
            name, rows = client.topics.session, member_rows(client)
            info = client.session.info(timeout)
            simulated, plain = bool(info.get("simulated")), info.get("security") == "off"
    except (TransportError, NoSession):
        known = _last_known(where)
        if known is None:
            raise
        name, rows = known.session, _last_known_rows(known)
        simulated, plain = any(member.about.get("simulated") for member in known.members), False
    recorders = recorders_of(name)
    if json:
        offline_since = known.since if known else None
        facts = {"session": name, "simulated": simulated, "encrypted": not plain, "offline_since": offline_since}
        print_json({**facts, "members": rows, "recorders": [_recorder_to_json(recorder) for recorder in recorders]})
        return
    if simulated:
        print_line(f"session {name} is SIMULATED: its devices are those of a simulated lab")
    if plain:
        print_line(alarming(f"session {name} is NOT ENCRYPTED (security: off): the network can read and write it"))
    _show(name, rows, errors)
    for recorder in recorders:
        said = recorder.problem or forecast_text(recorder.free_bytes, recorder.bytes_per_s)
        print_line(f"\n{recorder.recorder} writes to {recorder.folder}: {said}")
    if known is not None:
        program = f"{known.program} (pid {known.pid})"
        remark(f"{_offline_since(known.since)}: {known.broker} cannot be reached; this is what {program} knew last")


def _recorder_to_json(recorder: RecorderFacts) -> dict[str, Any]:
    """Where a recorder of this machine writes, how fast, and for how many seconds there is room."""
    return {
        "recorder": recorder.recorder, "folder": recorder.folder, "problem": recorder.problem,
        "free_bytes": recorder.free_bytes, "bytes_per_s": recorder.bytes_per_s,
        "full_in_s": seconds_left(recorder.free_bytes, recorder.bytes_per_s),
    }  # fmt: skip


def _show(name: str, rows: list[dict[str, Any]], errors: bool) -> None:
    shown = [
        {
            **row,
            "ago": ago(row["since"]),
            "class": row["class"] or f"({row['kind']})",
            "state": _state(row),
            "errors": row["failures"].get("count", 0),
            "alarmed": ", ".join(f"{name}: {alarm['state']}" for name, alarm in row["alarms"].items()),
        }
        for row in rows
    ]
    late = any(row["queued"] or (row["behind_s"] or 0.0) >= BEHIND_S for row in rows)
    columns = {**_COLUMNS, **(_LATE_COLUMNS if late else {})}
    columns |= {"errors": "ERRORS"} if any(row["failures"] for row in rows) else {}
    columns |= {"alarmed": "ALARMS"} if any(row["alarms"] for row in rows) else {}
    columns |= {"lease": "LEASED BY"} if any(row["lease"] for row in rows) else {}
    print_table(shown, columns, nothing=f"nobody is in session {name}")
    for row in rows:
        if row["failures"]:
            print_line(failures_text(row["name"], row["failures"]))
    for row in rows:
        if row["error"]:
            print_line(f"\n{row['name']}: {row['error'] if errors else _last_line(row['error'])}")


def _state(row: dict[str, Any]) -> str:
    since = row["offline_since"]
    return state_text(row["state"], row["behind_s"]) if since is None else _offline_since(since)


def _offline_since(seconds: float) -> str:
    """`offline since 2026-01-16 11:28:42`, in local time."""
    return f"offline since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}"


def _last_line(text: str) -> str:
    """The line of a traceback that says what went wrong."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


# -- from the session


def member_rows(client: Client) -> list[dict[str, Any]]:
    """A row for each member except commands such as this one, with the content of the member's newest heartbeat."""
    heartbeats = Heartbeats(client)
    try:
        members = [member for member in client.session.announcements() if not member.name.startswith(TOOL)]
        alive = [member.name for member in members if member.kind == "instance" and member.state in TAKES_PART]
        heartbeats.collect(_HEARTBEAT_PATIENCE_S, alive)
    finally:
        heartbeats.close()
    return [_row(member, heartbeats) for member in members]


def _row(member: Announcement, heartbeats: Heartbeats) -> dict[str, Any]:
    about, beat = member.about, heartbeats.beat(member.name)
    heartbeat = beat.heartbeat if beat else None
    row = _announced(member)
    row["busy"] = busy_text(heartbeat)
    row["lease"] = _lease_text(about.get("lease"))
    row["queued"] = heartbeat.queued if heartbeat else None
    row["age_s"] = heartbeat.age_s if heartbeat else None
    row["behind_s"] = heartbeat.behind_s if heartbeat else None
    row["skipped"] = heartbeat.skipped if heartbeat else {}
    row["failures"] = heartbeat.failures if heartbeat else {}
    row["offline_since"] = about.get("offline_since")
    return row


def _announced(member: Announcement) -> dict[str, Any]:
    """The part of a row that stands in the member's announcement."""
    facts = {key: member.about.get(key) for key in ("class", "class_path", "host", "pid", "since", "epoch", "version")}
    return {
        "name": member.name, "kind": member.kind, "state": member.state.value, **facts, "error": member.error,
        "alarms": raised(member.about),
    }  # fmt: skip


def _lease_text(lease: object) -> str | None:
    match lease:
        case {"program": program, "host": host, "pid": pid, "reason": reason, "since": int(since) | float(since)}:
            return f"{program} on {host} (pid {pid}), {ago(since)}" + (f": {reason}" if reason else "")
    return None


# -- from the snapshot of a program that is cut off


def _last_known(where: Where) -> LastKnown | None:
    """The snapshot of that session at that broker; None where no program of this machine is cut off from it. Of several
    snapshots the one of the program that lost its broker last: `read_last_known` sorts them so."""
    session, broker = where.session or os.environ.get("ETHER_SESSION"), where.broker or os.environ.get("ETHER_BROKER")
    found = read_last_known(os.environ, session or None)
    if broker:
        address = Endpoint.from_url(complete_url(broker)).address
        found = [known for known in found if known.broker == address]
    return found[0] if found else None


def _last_known_rows(known: LastKnown) -> list[dict[str, Any]]:
    """A row for each member of a snapshot. `offline_since` is None for a member whose process runs on this machine."""
    return [_last_known_row(member, known.since) for member in known.members if not member.name.startswith(TOOL)]


def _last_known_row(member: Announcement, since: float) -> dict[str, Any]:
    offline = None if _runs_here(member) else member.about.get("offline_since", since)
    unknown: dict[str, Any] = {
        "busy": None,
        "lease": None,
        "queued": None,
        "age_s": None,
        "behind_s": None,
        "skipped": {},
        "failures": {},
    }
    return {**_announced(member), **unknown, "offline_since": offline}


def _runs_here(member: Announcement) -> bool:
    pid = member.about.get("pid")
    return member.about.get("host") == socket.gethostname() and isinstance(pid, int) and is_running(pid, None)
