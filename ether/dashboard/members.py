"""The members of a session as rows for the page: small, without their methods, which are asked for apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ether.dashboard.shown import plain
from ether.protocol.presence import Announcement
from ether.session.watching.flow import Flow

_FACTS = (
    "class",
    "class_path",
    "host",
    "pid",
    "since",
    "offline",
    "safe",
    "safe_state",
    "lease",
    "keeper",
    "doc",
    "epoch",
)
_MOST_EDGES = 2000


def member_row(member: Announcement, *, reached: bool) -> dict[str, Any]:
    """One member. `reached` is False while the page has no connection."""
    about = {key: plain(member.about[key]) for key in _FACTS if key in member.about}
    callable_ones = [name for name, method in _methods(member) if _kinds(method)]
    return {
        **about, "name": member.name, "state": member.state.value, "error": member.error, "kind": member.kind,
        "calls": len(callable_ones), "reached": reached,
    }  # fmt: skip


def _methods(member: Announcement) -> Iterable[tuple[str, Mapping[str, Any]]]:
    methods = member.about.get("methods")
    for name, method in methods.items() if isinstance(methods, dict) else ():
        if isinstance(method, dict):
            yield str(name), method


def _kinds(method: Mapping[str, Any]) -> list[str]:
    kinds = method.get("kinds")
    return [kind for kind in ("get", "save") if isinstance(kinds, list) and f"ether_{kind}" in kinds]


def methods_of(member: Announcement) -> list[dict[str, Any]]:
    """The methods of an instance that can be called, as they are announced, bounded."""
    return [
        {"name": name, "kinds": _kinds(method), "described": plain(method, items=200, depth=8)}
        for name, method in _methods(member)
        if _kinds(method)
    ]


def flow_row(flow: Flow) -> dict[str, Any]:
    """The graph: edges as [publisher, topic, subscriber], and what nobody hears or feeds."""
    return {
        "edges": [list(edge) for edge in flow.edges[:_MOST_EDGES]], "left_out": max(0, len(flow.edges) - _MOST_EDGES),
        "unheard": [list(each) for each in flow.unheard[:_MOST_EDGES]],
        "unfed": [list(each) for each in flow.unfed[:_MOST_EDGES]],
    }  # fmt: skip
