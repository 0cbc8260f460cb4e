"""`ether graph`: which instance publishes to which, as text or as a Mermaid flowchart."""

from __future__ import annotations

from typing import Annotated

import typer

from ether.cli.lab.flow_texts import as_mermaid, as_text
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import print_json, print_line
from ether.session.watching.flow import flow_of


def graph(
    where: Where,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    timeout: Timeout = JOIN_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Show who publishes to whom, by the topics that classes are marked with."""
    with joined(where, timeout) as client:
        flow = flow_of(client.session.announcements())
    if json:
        print_json(flow.to_value())
    else:
        print_line(as_mermaid(flow) if mermaid else as_text(flow) or "nobody publishes or subscribes")
