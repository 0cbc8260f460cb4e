"""What the shell offers when somebody types half a command and presses TAB: instances, methods, topics, sessions, runs.

Where a session runs they are read from its announcements, without becoming a member that others see; what was recorded
is read from the ledger.

Promises: an answer takes a fraction of a second, and what cannot be looked up in that time is not offered; nothing is
ever printed but the offers, whatever goes wrong, because it would stand in the middle of the user's line.

The late imports are on purpose: every command has one of these options, and only a TAB needs what looks them up.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import typer

from ether.cli.tool_name import TOOL, tool_name
from ether.spec.marks import MarkKind

if TYPE_CHECKING:
    from ether.ledger.reader import LedgerReader
    from ether.protocol.presence import Announcement
    from ether.session.discovery.local_sessions import SessionRecord

LOOK_S = 0.8
"""How long the look for offers may take, beside the start of the program."""

MOST_OFFERS = 500
_CALLABLE = frozenset({MarkKind.GET.value, MarkKind.SAVE.value})

Look = Callable[[Mapping[str, object]], Iterable[str]]
"""From the values of the options that stand before the cursor to what could stand there."""
Offer = Callable[[typer.Context, str], list[str]]
_WORDS = ""
"""Under this name, the words before an option that has no value yet: typer reads no arguments of such a line."""


def offering(look: Look) -> Offer:
    """What typer asks for offers: what begins as the word under the cursor does, sorted; nothing where it is not known
    in time."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        logging.disable(logging.CRITICAL)
        found: list[str] = []
        given = {**ctx.params, _WORDS: list(ctx.args)}
        thread = threading.Thread(target=lambda: found.extend(_found(look, given)), name="ether-offers", daemon=True)
        thread.start()
        thread.join(LOOK_S)
        return sorted({each for each in tuple(found) if each.startswith(incomplete)})[:MOST_OFFERS]

    return offer


def _found(look: Look, given: Mapping[str, object]) -> list[str]:
    try:
        return list(look(given))
    except Exception:  # noqa: BLE001  an error would be printed into the line that somebody types
        return []


# -- of the session that runs


def _announcements(given: Mapping[str, object]) -> list[Announcement]:
    """Of the session that is named, else of all that run here, else of the one that is found elsewhere."""
    from ether.launch.guest import look
    from ether.session.discovery.search import FoundSession, find

    session, broker = _text(given, "session") or os.environ.get("ETHER_SESSION"), _text(given, "broker")
    here = [] if broker or os.environ.get("ETHER_BROKER") else _running(session)
    places = [FoundSession(each.session, each.url, "here", each.host, each.pid, each.since) for each in here]
    if not places:
        found = find(session=session, broker=broker, environment=os.environ, patience_s=LOOK_S)
        places = [found] if found else []
    members = (member for place in places for member in look(place, tool_name(), timeout_s=LOOK_S))
    return [member for member in members if not member.name.startswith(TOOL)]


def _of_instances(given: Mapping[str, object]) -> list[str]:
    return [member.name for member in _announcements(given) if member.kind == "instance"]


def _of_methods(given: Mapping[str, object]) -> list[str]:
    """`instance.method` of each method that can be called."""
    return [f"{member.name}.{method}" for member in _announcements(given) for method in _callable(member)]


def _callable(member: Announcement) -> list[str]:
    methods = member.about.get("methods")
    described = methods if isinstance(methods, dict) else {}
    return [name for name, each in described.items() if _is_callable(each)]


def _is_callable(described: object) -> bool:
    kinds = described.get("kinds") if isinstance(described, dict) else None
    return isinstance(kinds, list) and not _CALLABLE.isdisjoint(map(str, kinds))


def _of_topics(given: Mapping[str, object]) -> list[str]:
    from ether.protocol.topic_typo_rules import uses_of

    members = _announcements(given)
    return [use.topic for key in ("publishes", "subscribes") for use in uses_of(members, key)]


def _of_sessions(given: Mapping[str, object]) -> list[str]:
    return [record.session for record in _running(None)]


def _running(session: str | None) -> list[SessionRecord]:
    from ether.session.discovery.local_sessions import read_records

    return [record for record in read_records(os.environ) if session in (None, record.session)]


# -- of what was recorded


def _of_ledgers(given: Mapping[str, object]) -> list[str]:
    from ether.ledger.places import list_ledgers

    return [place.session for place in list_ledgers(os.environ)]


def _of_runs(given: Mapping[str, object]) -> list[str]:
    from ether.reading.run_facts import runs_in

    with _ledger(given) as reader:
        return list(runs_in(reader))


def _of_recorded_topics(given: Mapping[str, object]) -> list[str]:
    with _ledger(given) as reader:
        return [summary.topic for summary in reader.topics()]


def _of_sources(given: Mapping[str, object]) -> list[str]:
    with _ledger(given) as reader:
        return reader.sources()


def _ledger(given: Mapping[str, object]) -> LedgerReader:
    from ether.ledger.places import find_ledger
    from ether.ledger.reader import LedgerReader

    words, known = given[_WORDS], _of_ledgers(given)
    argument = next((word for word in words if word in known), None) if isinstance(words, list) else None
    wanted = _text(given, "ledger") or _text(given, "session") or argument
    return LedgerReader.open(find_ledger(wanted, os.environ))


def _text(given: Mapping[str, object], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) and value else None


# -- of a configuration


def _of_described(given: Mapping[str, object]) -> list[str]:
    """The instances that a configuration describes, which need not run."""
    from ether.config import load_config

    return list(load_config(_text(given, "file") or "ether.yaml").named_instances())


instances, methods, topics = offering(_of_instances), offering(_of_methods), offering(_of_topics)
sessions, ledgers, runs = offering(_of_sessions), offering(_of_ledgers), offering(_of_runs)
recorded_topics, sources, described = offering(_of_recorded_topics), offering(_of_sources), offering(_of_described)
