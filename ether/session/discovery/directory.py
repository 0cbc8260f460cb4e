"""The session directory of a broker: the sessions that it carries, read from their retained entries.

Promise: `sessions_at` returns when every entry is known that the broker had when it was asked, and waits no longer. It
does so by an echo: a message to itself, sent after the broker has confirmed the subscription, which comes through this
very subscription, behind the entries. Brokers keep no order between two subscriptions.

The traps: a killed program may leave its entry on a broker that outlives it; anyone with the password can write an
entry, so no value in it is trusted, only its types are checked. And some brokers (RabbitMQ) give no retained message to
a filter with wildcards. There, sessions are found by the heartbeats of their instances, or by name.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ether.connection.deadline import Deadline
from ether.errors import BrokerUnreachable, DecodeError
from ether.log import get_ether_logger
from ether.protocol.presence import ECHO, is_notice
from ether.transport import open_transport
from ether.transport.base import Delivery, Refusal, Transport
from ether.transport.endpoint import Endpoint
from ether.version import VERSION
from ether.wire.envelope import unpack
from ether.wire.topics import ROOT, check_session_name

logger = get_ether_logger("Ether")

DIRECTORY = f"{ROOT}+/session"
MOST_SESSIONS = 1_000
"""Further entries are ignored."""

_HEARTBEATS = f"{ROOT}+/state/+/pulse"
_HEARTBEATS_S = 0.7
"""Longer than the time between two heartbeats of an instance."""
_ENTRIES_S = 0.5
"""How long the entries of sessions may take that are known by name."""

_TYPES: Mapping[str, Any] = {"host": str, "pid": int, "since": (int, float), "version": str, "engine": str}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its entry describes it; `since` in unix seconds. Values that the entry lacks are empty or None."""

    session: str
    host: str = ""
    pid: int | None = None
    since: float | None = None
    version: str = ""
    engine: str = ""

    @classmethod
    def from_value(cls, session: str, value: object) -> SessionInfo | None:
        """Read an entry; None where it is not a dict. The session's name is that of the topic, not that in the
        entry."""
        if not isinstance(value, dict):
            return None
        facts = {key: value[key] for key, kind in _TYPES.items() if isinstance(value.get(key), kind)}
        return cls(check_session_name(session), **facts)


def entry_of(
    session: str, program: str, since: float, endpoint: Endpoint, broker: Mapping[str, str], *, named: bool
) -> dict[str, object]:
    """The entry of a session that this process leads. `broker` are the broker's engine, and its second address where
    it has one; `named` tells that the session has the same name when it is started again."""
    return {
        "session": session,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": since,
        "version": VERSION,
        "broker": endpoint.address,
        **broker,
        "program": program,
        "named": named,
    }


def sessions_at(endpoint: Endpoint, timeout_s: float, session: str | None = None) -> list[SessionInfo]:
    """The sessions that the broker carries, sorted by name; with `session`, that one alone. Raises `BrokerUnreachable`,
    `NotAuthorized`, and other `TransportError`s."""
    deadline = Deadline(timeout_s)
    transport = open_transport(endpoint, client_id="directory")
    try:
        transport.connect(deadline.left())
        found = _Look(transport, deadline).sessions(session)
        if found is None:
            raise BrokerUnreachable(endpoint.address, f"it did not show its sessions within {timeout_s:g} s")
        if not found.entries and found.hidden:
            logger.warning(
                "the broker at %s shows no retained messages to subscriptions with wildcards. A session without"
                " instances is found there by its name alone: give it (session=…, --session)", endpoint.address,
            )  # fmt: skip
    finally:
        transport.close(min(deadline.left(), 0.2))
    return sorted(found.entries.values(), key=lambda info: info.session)


def echo_topic(topic_filter: str, mark: str) -> str:
    """A topic that a filter covers, for an echo: the filter itself, or one of no session, whose name has a `$`."""
    return topic_filter.replace(f"{ROOT}+", f"{ROOT}${mark}", 1).replace("+", f"${mark}")


def echo_payload() -> bytes:
    """The body of a new echo."""
    return json.dumps({ECHO: os.urandom(8).hex()}).encode()


class _Found(NamedTuple):
    """The entries, and whether the broker hides retained messages from wildcards."""

    entries: dict[str, SessionInfo]
    hidden: bool = False


class _Look:
    """One look at a broker's sessions, over one connection."""

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport, self._deadline = transport, deadline
        self._mark = f"directory-{os.urandom(6).hex()}"

    def sessions(self, session: str | None) -> _Found | None:
        """The entries; None where the broker does not deliver in time."""
        if session is not None:
            entries, _ = self._until_echo(f"{ROOT}{session}/session")
            return None if entries is None else _Found(entries)
        entries, _ = self._until_echo(DIRECTORY)
        if entries is None or entries:
            return None if entries is None else _Found(entries)
        return _Found({}) if self._shows_retained() else _Found(self._by_heartbeats(), hidden=True)

    def _until_echo(self, topic_filter: str) -> tuple[dict[str, SessionInfo] | None, bool]:
        """The entries that the broker has retained for a filter (None where the echo does not come in time), and
        whether a retained message for the echo's own topic came before it."""
        topic, echo = echo_topic(topic_filter, self._mark), echo_payload()
        self._transport.subscribe([topic_filter], timeout_s=self._deadline.left())
        self._transport.publish(topic, echo, timeout_s=self._deadline.left())
        found: dict[str, SessionInfo] = {}
        tested = False
        while (item := self._next(self._deadline)) is not None:
            if item.topic == topic and item.payload == echo:
                return found, tested
            tested = tested or (item.topic == topic and item.retained)
            if len(found) < MOST_SESSIONS:
                note_entry(item, found)
        return None, tested

    def _next(self, deadline: Deadline) -> Delivery | None:
        while not deadline.passed:
            item = self._transport.receive(deadline.left())
            if isinstance(item, Refusal):
                raise item.error
            if isinstance(item, Delivery):
                self._transport.consumed(item)
                return item
        return None

    def _shows_retained(self) -> bool:
        """Retain a message, and see whether a filter with a wildcard gets it."""
        topic = echo_topic(DIRECTORY, self._mark)
        self._transport.publish(topic, echo_payload(), retain=True, timeout_s=self._deadline.left())
        try:
            return self._until_echo(DIRECTORY)[1]
        finally:
            self._transport.publish(topic, b"", retain=True, timeout_s=1.0)

    def _by_heartbeats(self) -> dict[str, SessionInfo]:
        """The sessions whose instances beat. Their entries come to filters without wildcards."""
        names: set[str] = set()
        self._transport.subscribe([_HEARTBEATS], qos=0, timeout_s=self._deadline.left())
        patience = Deadline(min(_HEARTBEATS_S, self._deadline.left()))
        while (item := self._next(patience)) is not None and len(names) < MOST_SESSIONS:
            session, _, place = item.topic[len(ROOT) :].partition("/")
            if place.endswith("/pulse"):
                names.add(session)
        self._transport.unsubscribe([_HEARTBEATS], timeout_s=1.0)
        found: dict[str, SessionInfo] = {}
        if names:
            entries = [f"{ROOT}{name}/session" for name in sorted(names)]
            self._transport.subscribe(entries, timeout_s=self._deadline.left())
        patience = Deadline(min(_ENTRIES_S, self._deadline.left()))
        while len(found) < len(names) and (item := self._next(patience)) is not None:
            note_entry(item, found)
        return found


def note_entry(item: Delivery, found: dict[str, SessionInfo]) -> None:
    """Add the session of one message to `found`, or remove it where the message clears the entry."""
    session, _, place = item.topic[len(ROOT) :].partition("/")
    if place != "session":
        return
    try:
        value = unpack(item.payload, item.properties).value if item.payload else None
        if is_notice(value):
            return
        info = SessionInfo.from_value(session, value)
    except (DecodeError, ValueError) as error:  # InvalidName is a ValueError
        logger.debug("the entry of session %.80r cannot be read: %s", session, error)
        return
    if info is None:
        found.pop(session, None)  # the session has just ended
    else:
        found[session] = info
