"""From what a user asks for to a `Data`: names checked, times in unix seconds, the ledger found.

Promise: a mistake in the question is an error before anything is read. The trap: a name that nothing was recorded under
is no mistake, because it may be recorded in a moment; reading nothing says so in the log.
"""

from __future__ import annotations

import datetime
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ether.errors import QueryMistake
from ether.ledger.places import find_ledger
from ether.reading.data import VALUES, Data, Query
from ether.reading.filter_rules import Moment, Where, moment_of, predicate_of
from ether.wire.entries import KINDS
from ether.wire.topics import check_topic_filter


def ask(
    session: str | os.PathLike[str] | None,
    topic: str | None,
    run: str | None,
    *,
    instance: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    where: Where | None = None,
    kinds: Sequence[str] = VALUES,
    now: float,
    environment: Mapping[str, str],
) -> Data:
    """The records of a session's ledger (see `find_ledger`). Raises `NoLedger`, `SeveralLedgers`, `QueryMistake`,
    `InvalidName`."""
    asked: dict[str, object] = {"topic": topic, "run": run, "instance": instance, "where": where}
    query = Query(
        topic=None if topic is None else check_topic_filter(topic),
        run=run,
        instance=instance,
        since=moment_of(since, now, "since"),
        until=moment_of(until, now, "until"),
        where=predicate_of(where),
        kinds=_checked_kinds(kinds),
    )
    moments = {"since": query.since, "until": query.until}
    asked |= {name: _iso(seconds) for name, seconds in moments.items() if seconds is not None}
    query = replace(query, said={name: _said(value) for name, value in asked.items() if value is not None})
    return Data(find_ledger(session, environment), query)


def _checked_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in wanted:
        if kind not in KINDS:
            nearest = difflib.get_close_matches(str(kind), KINDS, n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise QueryMistake(f"there is no kind of entries {kind!r}: there are {', '.join(sorted(KINDS))}{meant}")
    return wanted


def _iso(seconds: float) -> str:
    """A moment that still means something when "-10 min" does not."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def _said(value: object) -> str:
    """What was asked for, in words that mean something to whoever reads the file in ten years."""
    if callable(value):
        return f"the function {getattr(value, '__qualname__', type(value).__qualname__)}"
    return value if isinstance(value, str) else str(value)
