"""The graph of publishers and subscribers, made from the announcements of the instances. Pure.

The trap: announcements contain the topics of marked methods alone. A program that calls `ether.pub()` announces no
topic, so a topic without a publisher here may still have one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ether.protocol.presence import Announcement
from ether.protocol.topic_typo_rules import topics_of
from ether.wire.topics import matches


class Edge(NamedTuple):
    """One publisher, a topic, and one subscriber."""

    publisher: str
    topic: str
    subscriber: str


@dataclass(frozen=True, slots=True)
class Flow:
    """The graph. `unheard` has each publisher with a topic that no method subscribes to; `unfed` each subscribed topic
    that no method publishes, with its subscriber. `wants`: what a subscriber that does not want all messages says of
    those that wait (`keep latest, max_age 0.5s`)."""

    names: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    unheard: tuple[tuple[str, str], ...] = ()
    unfed: tuple[tuple[str, str], ...] = ()
    classes: dict[str, str] = field(default_factory=dict)
    wants: dict[Edge, str] = field(default_factory=dict)

    def text_of(self, edge: Edge, text: str) -> str:
        """A text about an edge, with what its subscriber wants."""
        return f"{text} ({self.wants[edge]})" if edge in self.wants else text

    def to_value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "instances": [{"name": name, "class": self.classes.get(name, "")} for name in self.names],
            "edges": [
                {"from": edge.publisher, "topic": edge.topic, "to": edge.subscriber}
                | ({"wants": self.wants[edge]} if edge in self.wants else {})
                for edge in self.edges
            ],
            "unheard": [{"from": name, "topic": topic} for name, topic in self.unheard],
            "unfed": [{"topic": topic, "to": name} for topic, name in self.unfed],
        }


def flow_of(announcements: Iterable[Announcement]) -> Flow:
    """The graph of the members that announced methods with topics.

    A published topic is a plain one; a subscription may have wildcards, so it is a pattern. Each published topic is
    matched with each pattern: a match is an edge. Published topics without an edge are unheard, patterns that match no
    published topic are unfed. `dict.fromkeys` drops repetitions and keeps the order, which is by name, so the result is
    the same for every order of announcements."""
    members = sorted(announcements, key=lambda member: member.name)
    published = [(member.name, topic) for member in members for topic in topics_of(member, "publishes")]
    subscribed = [(member.name, pattern) for member in members for pattern in topics_of(member, "subscribes")]
    edges = tuple(
        Edge(publisher, topic, subscriber)
        for publisher, topic in published
        for subscriber, pattern in subscribed
        if matches(pattern, topic)
    )
    with_subscriber = {(edge.publisher, edge.topic) for edge in edges}
    unfed = [
        (pattern, subscriber)
        for subscriber, pattern in subscribed
        if not any(matches(pattern, topic) for _, topic in published)
    ]
    with_topics = {name for name, _ in (*published, *subscribed)}
    return Flow(
        tuple(member.name for member in members if member.name in with_topics or member.kind == "instance"),
        tuple(dict.fromkeys(edges)),
        tuple(pair for pair in dict.fromkeys(published) if pair not in with_subscriber),
        tuple(dict.fromkeys(unfed)),
        {member.name: str(member.about.get("class", "")) for member in members},
        {
            edge: wants
            for member in members
            for pattern, wants in _wants_of(member).items()
            for edge in edges
            if edge.subscriber == member.name and matches(pattern, edge.topic)
        },
    )


def _wants_of(member: Announcement) -> dict[str, str]:
    """What a member's methods want of the messages that wait, by topic; those of several methods are joined."""
    found: dict[str, list[str]] = {}
    methods = member.about.get("methods")
    for method in methods.values() if isinstance(methods, dict) else ():
        said: dict[str, list[str]] = {}
        for key in ("keep", "max_age"):
            wishes = method.get(key) if isinstance(method, dict) else None
            for topic, wish in wishes.items() if isinstance(wishes, dict) else ():
                said.setdefault(str(topic), []).append(f"{key} {wish}")
        for topic, wants in said.items():
            found.setdefault(topic, []).append(", ".join(wants))
    return {topic: "; ".join(dict.fromkeys(wants)) for topic, wants in found.items()}
