"""How one process saves: its record writer, and the context that explains its values.

The trap: instances' processes import this module, and most of them never make a context. So what makes contexts is
imported where it is used (`tests/launch/test_child_imports.py` weighs it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ether.connection.link import Link
from ether.recording.writer import RecordWriter, SavingOptions
from ether.session.session import KEEP
from ether.system.clock import wall_time
from ether.wire.entries import Entry
from ether.wire.topics import SessionTopics


def open_record_writer(
    link: Link, topics: SessionTopics, options: SavingOptions, leader: str, explain: Callable[[], Iterable[Entry]]
) -> RecordWriter:
    """The record writer of a process, open. `leader` is the program that is asked for a recorder where there is none.
    `explain` gives the entries that explain the values; it is called once, before the first value is saved."""
    writer = RecordWriter(link, topics, options)
    writer.explain = explain
    writer.ask_for_recorder = lambda: link.publish(topics.control(KEEP), {"instances": [leader], "do": "record"})
    writer.open()
    writer.adopt(link.source)
    return writer


@dataclass(frozen=True, slots=True)
class ContextFacts:
    """The facts of which the context of an instance, or of a program, is made. A program has no class: its script
    explains its values."""

    name: str
    configuration: Mapping[str, Any]
    """What the context says of the configuration."""
    incarnation: str = ""
    epoch: int = 0
    class_path: str = "__main__"
    cls: type | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    registry: Mapping[str, Any] = field(default_factory=dict)

    def entries(self) -> list[Entry]:
        """The context as an entry, after the entries to which it refers. Asks git, which takes some 20 ms."""
        from ether.provenance.context import InstanceFacts, make_context

        facts = InstanceFacts(
            self.name,
            self.incarnation,
            self.epoch,
            self.class_path,
            self.cls,
            self.args,
            self.kwargs,
            self.registry,
        )
        return list(make_context(facts, configuration=self.configuration).entries(wall_time()))
