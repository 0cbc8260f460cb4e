"""From a user's request to a `Data`: names are checked, times become unix seconds, the ledger is found.

Promise: a mistake in the request is an error before anything is read. The trap: a name without records is no mistake,
because its first record may come in a moment. Reading then returns nothing, and the log says why.
"""

from __future__ import annotations

import datetime
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ether.errors import QueryMistake
from ether.ledger.places import find_ledger
from ether.reading.data import VALUES, Data, Query
from ether.reading.filter_rules import Moment, Where, moment_of, predicate_of
from ether.wire.entries import KINDS
from ether.wire.topics import check_topic_filter


@dataclass(frozen=True, slots=True)
class DataRequest:
    """Which records a user wants, in the user's own words; see `Ether.data` for what may stand in the fields."""

    topic: str | None = None
    run: str | None = None
    instance: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    where: Where | None = None
    kinds: Sequence[str] = VALUES


def ask(
    request: DataRequest, session: str | os.PathLike[str] | None, *, now: float, environment: Mapping[str, str]
) -> Data:
    """The records of a session's ledger (see `find_ledger`). `now`: unix seconds, from which `-10 min` counts. Raises
    `NoLedger`, `SeveralLedgers`, `QueryMistake`, `InvalidName`."""
    topic = request.topic
    query = Query(
        topic=None if topic is None else check_topic_filter(topic),
        run=request.run,
        instance=request.instance,
        since=moment_of(request.since, now, "since"),
        until=moment_of(request.until, now, "until"),
        where=predicate_of(request.where),
        kinds=_checked_kinds(request.kinds),
    )
    return Data(find_ledger(session, environment), replace(query, said=_words_of(request, query)))


def _words_of(request: DataRequest, query: Query) -> dict[str, str]:
    """The request as text, which still means something to a reader of the file in ten years. So moments are those of
    the query."""
    words: dict[str, object] = {
        "topic": request.topic,
        "run": request.run,
        "instance": request.instance,
        "where": request.where,
        "since": None if query.since is None else _iso(query.since),
        "until": None if query.until is None else _iso(query.until),
    }
    return {name: _word(value) for name, value in words.items() if value is not None}


def _checked_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in wanted:
        if kind not in KINDS:
            nearest = difflib.get_close_matches(str(kind), KINDS, n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise QueryMistake(f"there is no kind of entries {kind!r}: there are {', '.join(sorted(KINDS))}{meant}")
    return wanted


def _iso(seconds: float) -> str:
    """The moment itself: "-10 min" means nothing later."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def _word(value: object) -> str:
    if callable(value):
        return f"the function {getattr(value, '__qualname__', type(value).__qualname__)}"
    return value if isinstance(value, str) else str(value)
