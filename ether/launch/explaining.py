"""The saving side of one process, and what explains what it saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ether.connection.link import Link
from ether.recording.writer import RecordWriter, SavingOptions
from ether.session.session import KEEP
from ether.wire.entries import Entry
from ether.wire.topics import SessionTopics


def open_saver(
    link: Link, topics: SessionTopics, options: SavingOptions, leader: str, explain: Callable[[], Iterable[Entry]]
) -> RecordWriter:
    """The saving side of a process; `leader` is the program that starts a recorder where there is none."""
    saver = RecordWriter(link, topics, options)
    saver.explain = explain
    saver.ask_for_recorder = lambda: link.publish(topics.control(KEEP), {"instances": [leader], "do": "record"})
    saver.open()
    saver.adopt(link.source)
    return saver


def explained(
    name: str,
    birth: str,
    epoch: int,
    cls: type | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    class_path: str,
    registry: Mapping[str, Any],
    configuration: Mapping[str, Any],
) -> list[Entry]:
    """What explains an instance's values: its context, and before it what that refers to. Of a program, which has no
    class, its script."""
    from ether.provenance.context import InstanceFacts, make_context

    facts = InstanceFacts(name, birth, epoch, class_path, cls, args, kwargs, registry)
    return list(make_context(facts, configuration=configuration).entries(time.time()))
