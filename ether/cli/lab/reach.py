"""Which sessions can be reached from here: the same places that `ether.tap()` looks at, all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession


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
