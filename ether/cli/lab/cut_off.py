"""`ether ps` where the broker cannot be reached from here: what the programs of this machine knew last.

The trap: nothing of this is news. A process of this machine can be looked for; of everybody else only the time can be
told since when they are not heard.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from ether.system.processes import is_running

if TYPE_CHECKING:
    from ether.protocol.presence import Announcement
    from ether.session.last_known import LastKnown


def cut_off_from(session: str | None, broker: str | None) -> LastKnown | None:
    """What is known of the session that was named, at the broker that was named; None where no program of this machine
    is cut off from it. Of several the one that heard the others last."""
    from ether.session.last_known import read_last_known
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
    return [_row(member, known.since) for member in known.members if not member.name.startswith(tool)]


def _row(member: Announcement, since: float) -> dict[str, Any]:
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
