"""The session directory of a broker: the sessions that it carries, read from their retained entries.

Promise: `sessions_at` returns when every entry is known that the broker had when it was asked, and waits no longer. It
does so by an echo: a message to itself, sent after the broker has confirmed the subscription, arrives behind all
entries. The traps: a killed program may leave its entry on a broker that outlives it; and anyone with the password can
write an entry, so no value in it is trusted, only its types are checked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ether.connection.deadline import Deadline
from ether.errors import BrokerUnreachable, DecodeError
from ether.log import get_ether_logger
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
_ECHO = f"{ROOT}$directory/"
"""A topic that belongs to no session: session names have no `$`."""

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


def sessions_at(endpoint: Endpoint, timeout_s: float) -> list[SessionInfo]:
    """The sessions that the broker carries, sorted by name. Raises `BrokerUnreachable`, `NotAuthorized`, and other
    `TransportError`s."""
    deadline = Deadline(timeout_s)
    transport = open_transport(endpoint, client_id="directory")
    try:
        transport.connect(deadline.left())
        echo = f"{_ECHO}{os.urandom(8).hex()}"
        transport.subscribe([DIRECTORY, echo], timeout_s=deadline.left())
        transport.publish(echo, b"", timeout_s=deadline.left())
        found = _read(transport, echo, deadline)
    finally:
        transport.close(min(deadline.left(), 0.2))
    if found is None:
        raise BrokerUnreachable(endpoint.address, f"it did not show its sessions within {timeout_s:g} s")
    return sorted(found.values(), key=lambda info: info.session)


def _read(transport: Transport, echo: str, deadline: Deadline) -> dict[str, SessionInfo] | None:
    """The entries that arrive before the echo; None where the echo does not arrive in time."""
    found: dict[str, SessionInfo] = {}
    while not deadline.passed:
        item = transport.receive(deadline.left())
        if isinstance(item, Refusal):
            raise item.error
        if not isinstance(item, Delivery):
            continue
        transport.consumed(item)
        if item.topic == echo:
            return found
        if len(found) < MOST_SESSIONS:
            note_entry(item, found)
    return None


def note_entry(item: Delivery, found: dict[str, SessionInfo]) -> None:
    """Add the session of one message to `found`, or remove it where the message clears the entry."""
    session = item.topic[len(ROOT) :].partition("/")[0]
    try:
        info = SessionInfo.from_value(session, unpack(item.payload, item.properties).value) if item.payload else None
    except (DecodeError, ValueError) as error:  # InvalidName is a ValueError
        logger.debug("the entry of session %.80r cannot be read: %s", session, error)
        return
    if info is None:
        found.pop(session, None)  # the session has just ended
    else:
        found[session] = info
