"""Who publishes to whom, told from what the instances announce. Pure.

The trap: it shows what classes are marked for. What a program publishes by `ether.pub()` stands in no announcement,
so a topic without a publisher here may well have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ether.protocol.presence import Announcement
from ether.wire.topics import matches


class Edge(NamedTuple):
    """One publisher, the topic, one subscriber."""

    publisher: str
    topic: str
    subscriber: str


@dataclass(frozen=True, slots=True)
class Flow:
    """The graph. `unheard` are topics that nobody subscribes to, `unfed` those that no method publishes."""

    names: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    unheard: tuple[tuple[str, str], ...] = ()
    unfed: tuple[tuple[str, str], ...] = ()
    classes: dict[str, str] = field(default_factory=dict)

    def to_value(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "instances": [{"name": name, "class": self.classes.get(name, "")} for name in self.names],
            "edges": [{"from": edge.publisher, "topic": edge.topic, "to": edge.subscriber} for edge in self.edges],
            "unheard": [{"from": name, "topic": topic} for name, topic in self.unheard],
            "unfed": [{"topic": topic, "to": name} for topic, name in self.unfed],
        }


def flow_of(announcements: Iterable[Announcement]) -> Flow:
    """The graph of everybody who announced methods with topics."""
    members = sorted(announcements, key=lambda member: member.name)
    published = [(member.name, topic) for member in members for topic in topics_of(member, "publishes")]
    heard = [(member.name, topic) for member in members for topic in topics_of(member, "subscribes")]
    edges = tuple(
        Edge(publisher, topic, subscriber)
        for publisher, topic in published
        for subscriber, pattern in heard
        if matches(pattern, topic)
    )
    fed = {(edge.publisher, edge.topic) for edge in edges}
    unfed = tuple(
        (pattern, subscriber) for subscriber, pattern in heard if not any(matches(pattern, t) for _, t in published)
    )
    shown = {name for name, _ in (*published, *heard)}
    return Flow(
        tuple(member.name for member in members if member.name in shown or member.kind == "instance"),
        tuple(dict.fromkeys(edges)),
        tuple(pair for pair in dict.fromkeys(published) if pair not in fed),
        tuple(dict.fromkeys(unfed)),
        {member.name: str(member.about.get("class", "")) for member in members},
    )


def topics_of(member: Announcement, key: str) -> Iterator[str]:
    """The topics that a member's methods publish or subscribe to (`key`), each once. Skips what is misshapen:
    anybody can announce."""
    methods = member.about.get("methods")
    seen: set[str] = set()
    for method in methods.values() if isinstance(methods, dict) else ():
        listed = method.get(key) if isinstance(method, dict) else None
        for topic in listed if isinstance(listed, list) else ():
            if isinstance(topic, str) and topic not in seen:
                seen.add(topic)
                yield topic


def as_text(flow: Flow) -> str:
    """Each publisher with its topics, and who hears them."""
    lines = []
    for name in flow.names:
        lines.append(f"{name}  ({flow.classes[name]})" if flow.classes.get(name) else name)
        topics = dict.fromkeys([*(e.topic for e in flow.edges if e.publisher == name), *_loose(flow, name)])
        for topic in topics:
            to = [edge.subscriber for edge in flow.edges if edge.publisher == name and edge.topic == topic]
            lines.append(f"  {topic} -> {', '.join(to) or '(nobody)'}")
    lines += [f"(programs)  {topic} -> {name}" for topic, name in flow.unfed]
    return "\n".join(lines)


def _loose(flow: Flow, name: str) -> list[str]:
    return [topic for publisher, topic in flow.unheard if publisher == name]


def as_mermaid(flow: Flow) -> str:
    """A Mermaid flowchart; topics without a counterpart are rounded nodes of their own."""
    ids = {name: f"n{index}" for index, name in enumerate(flow.names)}
    lines = ["flowchart LR", *(f'    {ids[name]}["{_label(name)}"]' for name in flow.names)]
    lines += [f'    {ids[e.publisher]} -->|"{_label(e.topic)}"| {ids[e.subscriber]}' for e in flow.edges]
    topics = dict.fromkeys([*(topic for _, topic in flow.unheard), *(topic for topic, _ in flow.unfed)])
    nodes = {topic: f"t{index}" for index, topic in enumerate(topics)}
    lines += [f'    {node}(["{_label(topic)}"])' for topic, node in nodes.items()]
    lines += [f"    {ids[name]} --> {nodes[topic]}" for name, topic in flow.unheard]
    lines += [f"    {nodes[topic]} --> {ids[name]}" for topic, name in flow.unfed]
    return "\n".join(lines)


def _label(text: str) -> str:
    """Mermaid takes entities, and ends a label at a quotation mark."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
