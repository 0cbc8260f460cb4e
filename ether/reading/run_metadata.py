"""What a user said of each run when it began: `ether.run("dose", animal=7, strain="C57")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ether.errors import PayloadError
from ether.ledger.reader import LedgerReader, RecordFilter

_IDS = "+/+"
"""The topics of the facts that a run began: its id, `name/N`. Those of its trials have a third level."""


def run_metadata(reader: LedgerReader, run: str | None = None) -> dict[str, Mapping[str, Any]]:
    """The metadata of each named run (or of `run` alone) that has any, by its id. A fact that cannot be read is left
    out."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in reader.records(RecordFilter(kinds=("run",), topic=_IDS if run is None else run)):
        try:
            said = record.value
        except PayloadError:
            continue
        match said:
            case {"event": "begin", "metadata": dict(metadata)} if metadata:
                found[record.topic] = metadata
    return found
