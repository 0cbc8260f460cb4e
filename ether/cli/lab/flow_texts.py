"""The graph of a session as text, and as a Mermaid flowchart."""

from __future__ import annotations

from ether.session.watching.flow import Flow


def as_text(flow: Flow) -> str:
    """The graph as lines: each publisher, its topics, and the subscribers of each topic."""
    lines = []
    for name in flow.names:
        lines.append(f"{name}  ({' '.join(flow.classes[name].split())})" if flow.classes.get(name) else name)
        topics = dict.fromkeys([*(e.topic for e in flow.edges if e.publisher == name), *_unheard(flow, name)])
        for topic in topics:
            to = [
                flow.text_of(edge, edge.subscriber)
                for edge in flow.edges
                if edge.publisher == name and edge.topic == topic
            ]
            lines.append(f"  {topic} -> {', '.join(to) or '(nobody)'}")
    lines += [f"(programs)  {topic} -> {name}" for topic, name in flow.unfed]
    return "\n".join(lines)


def _unheard(flow: Flow, name: str) -> list[str]:
    return [topic for publisher, topic in flow.unheard if publisher == name]


def as_mermaid(flow: Flow) -> str:
    """The graph as a Mermaid flowchart; an unheard or unfed topic is a rounded node of its own."""
    ids = {name: f"n{index}" for index, name in enumerate(flow.names)}
    lines = ["flowchart LR", *(f'    {ids[name]}["{_label(name)}"]' for name in flow.names)]
    for edge in flow.edges:
        label = _label(flow.text_of(edge, edge.topic))
        lines.append(f'    {ids[edge.publisher]} -->|"{label}"| {ids[edge.subscriber]}')
    topics = dict.fromkeys([*(topic for _, topic in flow.unheard), *(topic for topic, _ in flow.unfed)])
    nodes = {topic: f"t{index}" for index, topic in enumerate(topics)}
    lines += [f'    {node}(["{_label(topic)}"])' for topic, node in nodes.items()]
    lines += [f"    {ids[name]} --> {nodes[topic]}" for name, topic in flow.unheard]
    lines += [f"    {nodes[topic]} --> {ids[name]}" for topic, name in flow.unfed]
    return "\n".join(lines)


def _label(text: str) -> str:
    """A label in Mermaid's syntax: it ends at a quotation mark, and special characters are written as entities."""
    return " ".join(text.split()).replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
