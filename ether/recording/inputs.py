"""What stands in a record about its inputs, beside its parents.

    heard      ids of messages that its process had heard before: the latest of each topic and source
    since      what its process was handed since its last result of that name, or since its start: for each topic and
               source the `runs`, each as [first id, last id, number] or [id]; `about`: the run may have holes;
               `nameless`: how many had no id; `kind`, where it is not `data`
    left_out   how many messages, or topics and sources, are in neither, because there were too many
    made_of    instead of these, where the user's code says what the value is made of: how many (`n`); they are its
               parents, or in the artifact `list`, if there are many; `trigger` is the message that was being handled

The trap: a result counts as made only when it is recorded. One that could not be sent leaves everything to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ether.connection.input_rules import InputRow, Key
from ether.connection.inputs import MOST_PARENTS, Heard, InputLog, Lineage
from ether.system.clock import wall_time
from ether.wire.entries import Entry
from ether.wire.topics import SessionTopics

_NONE: Mapping[str, object] = MappingProxyType({})


class RecordInputs:
    """Describes the inputs of one process's records."""

    def __init__(self, inputs: InputLog, topics: SessionTopics, keep_list: Callable[[Entry], object]) -> None:
        """`keep_list` queues the artifact with a list of inputs."""
        self._inputs, self._topics, self._keep_list = inputs, topics, keep_list
        self._last: tuple[Heard | None, Mapping[str, object]] = (None, _NONE)

    def describe(self, output: str, lineage: Lineage, own_id: str = "") -> Mapping[str, object]:
        """The facts for a record of that name. `own_id`: the record's id, if it is known."""
        if not lineage.described:
            return _NONE
        if lineage.made_of is not None:
            return self._exact(lineage.made_of, lineage)
        heard = self._inputs.since(output, (*lineage.handled, own_id) if own_id else lineage.handled)
        if heard is None:
            return _NONE
        last, said = self._last
        if heard is last:  # of a burst of results
            return said
        facts: dict[str, object] = {}
        if heard.before:
            facts["heard"] = heard.before
        if heard.rows:
            facts["since"] = [self._row(key, row) for key, row in heard.rows]
        if heard.forgotten or heard.left_out:
            facts["left_out"] = {"sources": heard.forgotten, "messages": heard.left_out}
        self._last = heard, facts
        return facts

    def _exact(self, ids: tuple[str, ...], lineage: Lineage) -> dict[str, object]:
        facts: dict[str, Any] = {"n": len(ids)}
        if len(ids) > MOST_PARENTS:
            content = "\n".join(ids).encode()
            facts["list"] = sha256 = hashlib.sha256(content).hexdigest()
            kept = Entry(
                0, "artifact", "inputs", sha256, 0, wall_time(), (), "", "application/octet-stream", content
            )  # fmt: skip
            self._keep_list(kept)
        if lineage.handled and lineage.handled[0] not in ids:
            facts["trigger"] = lineage.handled[0]
        return {"made_of": facts}

    def _row(self, key: Key, row: InputRow) -> dict[str, object]:
        kind, topic, source = key
        if kind == "data":
            topic = self._topics.user_topic(topic)
        told: dict[str, object] = {} if kind == "data" else {"kind": kind}
        told |= {"topic": topic, "source": source}
        if row.runs:
            told["runs"] = [
                [run.first_id] if run.count == 1 else [run.first_id, run.last_id, run.count] for run in row.runs
            ]
        if row.about:
            told["about"] = True
        if row.nameless:
            told["nameless"] = row.nameless
        return told
