"""The session directory of a broker: the sessions that it carries, read from their retained entries.

Promise: `sessions_at` returns when every entry is known that the broker had when it was asked, and waits no longer. It
does so by an echo: a message to itself, sent after the broker has confirmed the subscription, which comes through this
very subscription, behind the entries. Brokers keep no order between two subscriptions. Where one session is meant, all
of this stays on its own topic, so that a broker may permit just the session (docs/brokers.md).

The traps: a broker that keeps its messages over a restart shows the entry of a leader that died with it, for ever. So
an entry is believed only after its leader was asked (`read_directory`). Anyone with the password can write an entry, so
no value in it is trusted, only its types are checked. And some brokers (RabbitMQ) give no retained message to a filter
with wildcards. There, sessions are found by the heartbeats of their instances, or by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ether.connection.deadline import Deadline
from ether.errors import DecodeError, NotDelivered, PublishRefused, TransportError
from ether.log import get_ether_logger
from ether.protocol.presence import ECHO, is_notice
from ether.session.leader_check import LeaderCheck
from ether.session.leader_rules import ASK_EVERY_S, LeaderVerdict
from ether.system.process_owner import process_facts
from ether.system.processes import birth_of
from ether.transport import open_transport
from ether.transport.base import Delivery, Refusal, Transport
from ether.transport.endpoint import Endpoint
from ether.version import VERSION
from ether.wire.envelope import unpack
from ether.wire.topics import ROOT, SessionTopics, check_session_name

logger = get_ether_logger("Ether")

DIRECTORY = f"{ROOT}+/session"
MOST_SESSIONS = 1_000
"""Further entries are ignored."""

_HEARTBEATS = f"{ROOT}+/state/+/pulse"
_HEARTBEATS_S = 0.7
"""Longer than the time between two heartbeats of an instance."""
_ENTRIES_S = 0.5
"""How long the entries of sessions may take that are known by name."""

_NAME_THE_SESSION = (
    "A list of all sessions takes rights outside of each of them (docs/brokers.md, under Rights): name the session"
    " (session=…, --session, or ETHER_SESSION)."
)
_CLEAR_S = 2.0
_CLOSE_S = 0.2

_TYPES: Mapping[str, Any] = {"host": str, "pid": int, "since": (int, float), "version": str, "engine": str}
_LEADER: Mapping[str, Any] = {
    "host": str, "pid": int, "pid_started": str, "boot": str, "namespace": str, "wire": int, "program": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its entry describes it; `since` in unix seconds. Values that the entry lacks are empty or None."""

    session: str
    host: str = ""
    pid: int | None = None
    since: float | None = None
    version: str = ""
    engine: str = ""
    leader: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Who leads it, and in which process, as `ether.session.leader_check` reads it."""

    @classmethod
    def from_value(cls, session: str, value: object) -> SessionInfo | None:
        """Read an entry; None where it is not a dict. The session's name is that of the topic, not that in the
        entry."""
        if not isinstance(value, dict):
            return None
        facts, leader = (
            {key: value[key] for key, kind in types.items() if isinstance(value.get(key), kind)}
            for types in (_TYPES, _LEADER)
        )
        return cls(check_session_name(session), **facts, leader=leader)


class Directory(NamedTuple):
    """What a broker shows: its sessions by name; the names of those whose leaders were found to be dead, which are not
    among them; and of those whose leaders have been asked and may be dead."""

    sessions: dict[str, SessionInfo]
    dead: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()

    @property
    def sorted(self) -> list[SessionInfo]:
        """The sessions, by name."""
        return [self.sessions[name] for name in sorted(self.sessions)]


def entry_of(
    session: str, program: str, since: float, endpoint: Endpoint, broker: Mapping[str, str], *, named: bool
) -> dict[str, object]:
    """The entry of a session that this process leads. `broker` are the broker's engine, and its second address where
    it has one; `named` tells that the session has the same name when it is started again."""
    return {
        "session": session,
        **process_facts(),
        "pid_started": birth_of(os.getpid()),
        "since": since,
        "version": VERSION,
        "broker": endpoint.address,
        **broker,
        "program": program,
        "named": named,
    }


def sessions_at(endpoint: Endpoint, timeout_s: float, session: str | None = None) -> list[SessionInfo]:
    """The sessions that the broker carries, sorted by name; with `session`, that one alone. Their leaders are not
    asked. Raises as `read_directory`."""
    return read_directory(endpoint, timeout_s, session).sorted


def read_directory(
    endpoint: Endpoint, timeout_s: float, session: str | None, patience_s: float | None = None
) -> Directory:
    """The sessions that the broker carries; with `session`, that one alone. With `patience_s` their leaders are asked:
    entries of dead ones are cleared, and a leader of which nothing certain is known after so many seconds is believed
    to be there.

    Raises `BrokerUnreachable`, `NotAuthorized`, `PublishRefused`, `NotDelivered`, and other `TransportError`s."""
    deadline = Deadline(timeout_s)
    transport = open_transport(endpoint, client_id="directory")
    try:
        transport.connect(deadline.left())
        look = _Look(transport, deadline)
        found = look.sessions(session)
        if found is None:
            why = f"a message of this program to itself did not come back within {timeout_s:g} s"
            raise NotDelivered(look.asked, why, _NAME_THE_SESSION if session is None else "")
        if not found.entries and found.hidden:
            logger.warning(
                "the broker at %s shows no retained messages to subscriptions with wildcards. A session without"
                " instances is found there by its name alone: give it (session=…, --session)", endpoint.address,
            )  # fmt: skip
        return Directory(found.entries) if patience_s is None else _led(transport, found.entries, patience_s)
    except PublishRefused as refused:
        if session is not None:
            raise
        raise PublishRefused(refused.topic, refused.size, refused.why, refused.code, _NAME_THE_SESSION) from refused
    finally:
        transport.close(_CLOSE_S)


def echo_topic(topic_filter: str, mark: str) -> str:
    """A topic that a filter covers, for an echo: the filter itself, or one of no session and no member, whose names
    have a `$`. That of no session is always the same, so that a broker can permit it."""
    return topic_filter.replace(f"{ROOT}+", f"{ROOT}$directory", 1).replace("+", f"${mark}")


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
        self.asked = ""
        """The topic of the last message to oneself."""

    def sessions(self, session: str | None) -> _Found | None:
        """The entries; None where the broker does not deliver in time."""
        if session is not None:
            entries = self._of_one(f"{ROOT}{session}/session")
            return None if entries is None else _Found(entries)
        entries, _ = self._until_echo(DIRECTORY)
        if entries is None or entries:
            return None if entries is None else _Found(entries)
        return _Found({}) if self._shows_retained() else _Found(self._by_heartbeats(), hidden=True)

    def _of_one(self, topic: str) -> dict[str, SessionInfo] | None:
        """The entry of one session. A device that has no right to publish on the topic of the entry, since it could
        forge one, sends its echo on the topic of no session: a broker with rights keeps the order of all topics."""
        deadline, refused = Deadline(self._deadline.left() / 2), None
        try:
            entries, _ = self._until_echo(topic, deadline=deadline)
        except PublishRefused as error:
            entries, refused = None, error
        if entries is not None:
            return entries
        try:
            return self._until_echo(topic, echo_topic(DIRECTORY, self._mark))[0]
        except PublishRefused:
            if refused is not None:
                raise refused from None
            return None

    def _until_echo(
        self, topic_filter: str, via: str | None = None, *, deadline: Deadline | None = None
    ) -> tuple[dict[str, SessionInfo] | None, bool]:
        """The entries that the broker has retained for a filter (None where the echo does not come in time), and
        whether a retained message for the echo's own topic came before it. `via`: another topic for the echo."""
        topic, echo = via or echo_topic(topic_filter, self._mark), echo_payload()
        deadline = deadline or self._deadline
        if via is None or not self.asked:
            self.asked = topic
        self._transport.subscribe([topic_filter, *([via] if via else [])], timeout_s=deadline.left())
        self._transport.publish(topic, echo, timeout_s=deadline.left())
        found: dict[str, SessionInfo] = {}
        tested = False
        while (item := self._next(deadline)) is not None:
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


def _led(transport: Transport, found: dict[str, SessionInfo], patience_s: float) -> Directory:
    """Ask the leaders of these sessions, all at the same time."""
    ask = partial(transport.publish, timeout_s=_CLEAR_S)
    checks = {name: LeaderCheck(SessionTopics(name), info.leader, ask) for name, info in found.items()}
    deadline, dead, sessions = Deadline(patience_s), set[str](), dict(found)
    while checks:
        for name, check in list(checks.items()):
            verdict = check.turn()
            if verdict is LeaderVerdict.DEAD:
                _clear(transport, name, check)
                dead.add(name)
            if verdict is LeaderVerdict.LEADS and not check.answered:
                logger.warning("%s does not answer, and is believed to be there", check.leader)
            if verdict is not None:
                del checks[name]
        if not checks or deadline.passed:
            break
        item = transport.receive(min(deadline.left(), ASK_EVERY_S))
        if isinstance(item, Delivery):
            transport.consumed(item)
            _note_answer(item, checks, sessions)
    led = {name: info for name, info in {**found, **sessions}.items() if name not in dead}
    return Directory(led, frozenset(dead), frozenset(checks))


def _note_answer(item: Delivery, checks: Mapping[str, LeaderCheck], sessions: dict[str, SessionInfo]) -> None:
    """An entry was published or cleared. Notices on its topic, of others who look, are neither."""
    asked = checks.get(item.topic[len(ROOT) :].partition("/")[0])
    if asked is None or (item.payload and _is_notice(item)):
        return
    asked.heard(cleared=not item.payload, retained=item.retained)
    note_entry(item, sessions)


def _is_notice(item: Delivery) -> bool:
    try:
        return is_notice(unpack(item.payload, item.properties).value)
    except DecodeError:
        return False


def _clear(transport: Transport, session: str, check: LeaderCheck) -> None:
    """Take the entry of a dead leader off the broker. Where that is not permitted, it is only not believed."""
    logger.warning("%s is dead; what the broker still says of it is cleared", check.leader)
    try:
        topic = SessionTopics(session).session_info
        transport.publish(topic, b"", retain=True, timeout_s=_CLEAR_S).wait(_CLEAR_S)
    except TransportError as error:
        logger.warning("the entry of session %r cannot be cleared: %s", session, error)


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
