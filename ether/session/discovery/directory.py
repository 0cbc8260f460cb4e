"""The directory of a broker: which sessions it carries, read from what they have retained there.

Promise: `sessions_at` returns when everything is known that the broker took before it was asked, without waiting for a
time: a message to ourselves, sent after the broker has confirmed the subscription, comes back behind it. The traps: a
program that was killed may leave its entry behind on a broker that outlives it; and anybody with the password can write
there, so nothing in an entry is believed but its form.
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
from ether.transport.base import Delivery, Transport
from ether.transport.endpoint import Endpoint
from ether.version import VERSION
from ether.wire.envelope import unpack
from ether.wire.topics import ROOT, check_session_name

logger = get_ether_logger("Ether")

DIRECTORY = f"{ROOT}+/session"
MOST_SESSIONS = 1_000
_ECHO = f"{ROOT}$directory/"
"""No session can be called so: `$` is not for names."""

_TYPES: Mapping[str, Any] = {"host": str, "pid": int, "since": (int, float), "version": str, "engine": str}


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as it stands in the directory; `since` in seconds of the epoch. What an entry does not say is empty or
    None."""

    session: str
    host: str = ""
    pid: int | None = None
    since: float | None = None
    version: str = ""
    engine: str = ""

    @classmethod
    def from_value(cls, session: str, value: object) -> SessionInfo | None:
        """The entry of that session, None for what is not one. The name is the topic's, whatever the entry says."""
        if not isinstance(value, dict):
            return None
        said = {key: value[key] for key, kind in _TYPES.items() if isinstance(value.get(key), kind)}
        return cls(check_session_name(session), **said)


def entry_of(
    session: str, program: str, since: float, endpoint: Endpoint, broker: Mapping[str, str], *, named: bool
) -> dict[str, object]:
    """The entry of a session that this process leads; `broker`: its engine, and a second way in where there is one;
    `named`: it will have the same name when it is started again."""
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
    """The sessions that the broker carries, by name. Raises `BrokerUnreachable`, `NotAuthorized`, and other
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
    """What comes before the echo; None where the time is over before."""
    found: dict[str, SessionInfo] = {}
    while not deadline.passed:
        item = transport.receive(deadline.left())
        if not isinstance(item, Delivery):
            continue
        transport.consumed(item)
        if item.topic == echo:
            return found
        if len(found) < MOST_SESSIONS:
            note_entry(item, found)
    return None


def note_entry(item: Delivery, found: dict[str, SessionInfo]) -> None:
    """Bring what is found up to date with one entry, or with its end."""
    session = item.topic[len(ROOT) :].partition("/")[0]
    try:
        info = SessionInfo.from_value(session, unpack(item.payload, item.properties).value) if item.payload else None
    except (DecodeError, ValueError) as error:  # InvalidName is a ValueError
        logger.debug("the entry of session %.80r cannot be read: %s", session, error)
        return
    if info is None:
        found.pop(session, None)  # it has just left
    else:
        found[session] = info
