"""`ether ps`, `ether sessions`, `ether graph`: who is there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ether.cli.exits import Exit, NoSession
from ether.cli.lab.joined import JOIN_TIMEOUT_S, TOOL, joined
from ether.cli.options import BrokerUrl, Json, SessionName, Timeout
from ether.cli.output import ago, print_json, print_line, print_table, remark
from ether.system.processes import is_running

if TYPE_CHECKING:
    from ether.cli.lab.heartbeats import Heartbeats
    from ether.protocol.presence import Announcement
    from ether.session.client import Client
    from ether.session.discovery.search import FoundSession
    from ether.session.offline import LastKnown

_PULSE_PATIENCE_S = 0.8
"""A living instance sends a pulse every 0.5 s."""

_COLUMNS = {
    "name": "NAME", "state": "STATE", "class": "CLASS", "host": "HOST", "pid": "PID", "ago": "SINCE", "busy": "BUSY",
}  # fmt: skip


def ps(
    session: SessionName = None,
    broker: BrokerUrl = None,
    errors: Annotated[bool, typer.Option("--errors", help="Show why instances failed, in full.")] = False,
    timeout: Timeout = JOIN_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Show who is in the session: instances, programs and agents, and what each is doing. Where its broker cannot be
    reached from here, what the programs of this machine knew last."""
    from ether.errors import TransportError

    known = None
    try:
        with joined(session, broker, timeout) as client:
            name, rows = client.topics.session, member_rows(client)
            simulated = bool(client.session.info(timeout).get("simulated"))
    except (TransportError, NoSession):
        known = cut_off_from(session, broker)
        if known is None:
            raise
        name, rows = known.session, rows_of(known, TOOL)
        simulated = any(member.about.get("simulated") for member in known.members)
    if json:
        offline_since = known.since if known else None
        print_json({"session": name, "simulated": simulated, "offline_since": offline_since, "members": rows})
        return
    if simulated:
        print_line(f"session {name} is SIMULATED: its devices are those of a simulated lab")
    _show(name, rows, errors)
    if known is not None:
        who = f"{known.program} (pid {known.pid})"
        remark(f"{since_when(known.since)}: {known.broker} cannot be reached; this is what {who} knew last")


def _show(name: str, rows: list[dict[str, Any]], errors: bool) -> None:
    shown = [
        {**row, "ago": ago(row["since"]), "class": row["class"] or f"({row['kind']})", "state": _state(row)}
        for row in rows
    ]
    columns = {**_COLUMNS, "lease": "LEASED BY"} if any(row["lease"] for row in rows) else _COLUMNS
    print_table(shown, columns, nothing=f"nobody is in session {name}")
    for row in rows:
        if row["error"]:
            print_line(f"\n{row['name']}: {row['error'] if errors else _last_line(row['error'])}")


def _state(row: dict[str, Any]) -> str:

    since = row["offline_since"]
    return str(row["state"]) if since is None else since_when(since)


def _last_line(text: str) -> str:
    """Of a traceback the line that says what went wrong."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def member_rows(client: Client) -> list[dict[str, Any]]:
    """Everybody but commands such as this one, with what their newest pulse says."""
    from ether.cli.lab.heartbeats import Heartbeats
    from ether.protocol.presence import TAKES_PART

    heartbeats = Heartbeats(client)
    try:
        members = [member for member in client.session.announcements() if not member.name.startswith(TOOL)]
        alive = [member.name for member in members if member.kind == "instance" and member.state in TAKES_PART]
        heartbeats.collect(_PULSE_PATIENCE_S, alive)
    finally:
        heartbeats.close()
    return [_row(member, heartbeats) for member in members]


def _row(member: Announcement, heartbeats: Heartbeats) -> dict[str, Any]:
    from ether.cli.lab.heartbeats import busy_text

    about, beat = member.about, heartbeats.beat(member.name)
    facts = {key: about.get(key) for key in ("class", "class_path", "host", "pid", "since", "epoch", "version")}
    row = {"name": member.name, "kind": member.kind, "state": member.state.value, **facts, "error": member.error}
    row["busy"] = busy_text(beat.heartbeat if beat else None)
    row["lease"] = _lease_text(about.get("lease"))
    row["queued"] = beat.heartbeat.queued if beat else None
    row["offline_since"] = about.get("offline_since")
    return row


def _lease_text(lease: object) -> str | None:
    match lease:
        case {"program": program, "host": host, "pid": pid, "reason": reason, "since": int(since) | float(since)}:
            return f"{program} on {host} (pid {pid}), {ago(since)}" + (f": {reason}" if reason else "")
    return None


def graph(
    session: SessionName = None,
    broker: BrokerUrl = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    timeout: Timeout = JOIN_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Show who publishes to whom, by the topics that classes are marked with."""
    from ether.cli.lab.flow import as_mermaid, as_text, flow_of

    with joined(session, broker, timeout) as client:
        flow = flow_of(client.session.announcements())
    if json:
        print_json(flow.to_value())
    else:
        print_line(as_mermaid(flow) if mermaid else as_text(flow) or "nobody publishes or subscribes")


_SESSION_COLUMNS = {"name": "SESSION", "host": "HOST", "pid": "PID", "ago": "SINCE", "how": "FOUND", "broker": "BROKER"}


def sessions(broker: BrokerUrl = None, json: Json = False) -> int:
    """Show the sessions that run on this machine, in its network, and at brokers that were used before."""

    rows = sessions_in_reach(broker, os.environ)
    if json:
        print_json(rows)
    else:
        print_table([{**row, "ago": ago(row["since"])} for row in rows], _SESSION_COLUMNS, nothing="no session runs")
    return Exit.OK


def cut_off_from(session: str | None, broker: str | None) -> LastKnown | None:
    """What is known of the session that was named, at the broker that was named; None where no program of this machine
    is cut off from it. Of several the one that heard the others last."""
    from ether.session.offline import read_last_known
    from ether.transport.endpoint import Endpoint

    session, broker = session or os.environ.get("ETHER_SESSION"), broker or os.environ.get("ETHER_BROKER")
    found = read_last_known(os.environ, session or None)
    if broker:
        from ether.config.broker_url import complete_url

        address = Endpoint.from_url(complete_url(broker)).address
        found = [known for known in found if known.broker == address]
    return found[0] if found else None


def rows_of(known: LastKnown, tool: str) -> list[dict[str, Any]]:
    """As `ether ps` shows them: `offline_since` of those that cannot be heard, None of those whose process is here."""
    return [_absent_row(member, known.since) for member in known.members if not member.name.startswith(tool)]


def _absent_row(member: Announcement, since: float) -> dict[str, Any]:
    about = member.about
    facts = {key: about.get(key) for key in ("class", "class_path", "host", "pid", "since", "epoch", "version")}
    offline = None if _runs_here(member) else about.get("offline_since", since)
    row = {"name": member.name, "kind": member.kind, "state": member.state.value, **facts, "error": member.error}
    return {**row, "busy": None, "lease": None, "queued": None, "offline_since": offline}


def _runs_here(member: Announcement) -> bool:
    pid = member.about.get("pid")
    return member.about.get("host") == socket.gethostname() and isinstance(pid, int) and is_running(pid, None)


def since_when(seconds: float) -> str:
    """`offline since 2026-01-16 11:28:42`, in local time."""
    return f"offline since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}"


def sessions_in_reach(broker: str | None, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each session once, where it was found first. With `broker` only that one is asked, and what is wrong with it is
    raised."""
    from ether.session.discovery.search import SearchTarget, explore, look_at_named

    if broker is not None:
        return listed(look_at_named(SearchTarget.of(None, broker, environment, 0.0)).found)
    return listed(session for step in explore(environment=environment) for session in step.found)


def listed(found: Iterable[FoundSession]) -> list[dict[str, Any]]:
    """As rows, without credentials; one that was found in two places stands there once."""
    rows: dict[object, dict[str, Any]] = {}
    for session in found:
        row = {"name": session.name, "host": session.host, "pid": session.pid, "since": session.since}
        rows.setdefault(
            (session.name, session.host, session.pid), {**row, "how": session.how, "broker": session.address}
        )
    return list(rows.values())
