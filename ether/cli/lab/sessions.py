"""`ether sessions`: the sessions that run here, in the network, and at brokers that were used before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ether.cli.exits import Exit
from ether.cli.options import BrokerUrl, Json
from ether.cli.output import ago, print_json, print_table
from ether.session.discovery.search import LOOK_PATIENCE_S, FoundSession, SearchTarget, explore, look_at_named

_COLUMNS = {"name": "SESSION", "host": "HOST", "pid": "PID", "ago": "SINCE", "how": "FOUND", "broker": "BROKER"}


def sessions(broker: BrokerUrl = None, json: Json = False) -> int:
    """Show the sessions that run on this machine, in its network, and at brokers that were used before."""
    rows = sessions_in_reach(broker, os.environ)
    if json:
        print_json(rows)
    else:
        print_table([{**row, "ago": ago(row["since"])} for row in rows], _COLUMNS, nothing="no session runs")
    return Exit.OK


def sessions_in_reach(broker: str | None, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each session that has a leader. With `broker` only that broker is asked, and its errors are raised."""
    if broker is not None:
        return _rows(look_at_named(SearchTarget.of(None, broker, environment, 0.0, LOOK_PATIENCE_S)).found)
    steps = explore(environment=environment, patience_s=LOOK_PATIENCE_S)
    return _rows(session for step in steps for session in step.found)


def _rows(found: Iterable[FoundSession]) -> list[dict[str, Any]]:
    """Without credentials. A session that was found in two places has one row: that of the place searched first."""
    rows: dict[object, dict[str, Any]] = {}
    for session in found:
        row = {"name": session.name, "host": session.host, "pid": session.pid, "since": session.since}
        rows.setdefault(
            (session.name, session.host, session.pid), {**row, "how": session.how, "broker": session.address}
        )
    return list(rows.values())
