"""Makes the parts of a process's connection: links, incarnations, wills, and the description of a class."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import BrokerRefuses, NotAuthorized, TransportError
from ether.protocol.presence import WILL, Announcement
from ether.spec.methods import ClassSpec, class_path_of, describe_wrapped
from ether.spec.wrapping import Wrapping
from ether.system.backoff import Backoff
from ether.transport import open_transport
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.wire.topics import SessionTopics

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.4

_REFUSES_S = 1.0
"""So long a broker that refuses is asked again."""

Registry = Mapping[str, Wrapping]
"""From a class path to the configuration's entries for that class."""


def make_link(
    endpoint: Endpoint,
    source: str,
    *,
    will: Will | None,
    max_packet_bytes: int | None,
    topics: SessionTopics | None = None,
) -> Link:
    """An unopened link to the broker at `endpoint`; with `topics`, missed messages are sent again."""
    transport = open_transport(endpoint, client_id=source, will=will, max_packet_bytes=max_packet_bytes)
    return Link(transport, source, topics)


def open_link(
    endpoint: Endpoint, limit: int | None, timeout_s: float, topics: SessionTopics, source: str, will: Will | None
) -> Link:
    """An open link to the broker at `endpoint`; `limit` is the largest message in bytes."""
    link = make_link(endpoint, source, will=will, max_packet_bytes=limit, topics=topics)
    link.open(timeout_s)
    return link


def connected_within(connect: Callable[[], T], patience: Deadline, goes_on: Callable[[], bool] = lambda: True) -> T:
    """The result of `connect`, which is called again while a broker that is about to return cannot be reached: until
    `patience` is over, or `goes_on` is false. Raises what `connect` raises; `NotAuthorized` at once, `BrokerRefuses`
    where the broker still refuses a moment later: one that ends or starts closes connections, too."""
    pauses, refused = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S), None
    while True:
        try:
            return connect()
        except NotAuthorized:
            raise
        except TransportError as error:
            refused = (refused or Deadline(_REFUSES_S)) if isinstance(error, BrokerRefuses) else None
            if patience.passed or (refused is not None and refused.passed) or not goes_on():
                raise
        # The only sign of another program's broker is that it takes a connection, so that is tried again and again.
        threading.Event().wait(min(pauses.next_s(), patience.left()))


def new_incarnation() -> str:
    """The id of a new incarnation. Unguessable, so that no other process can announce anything in its name."""
    return os.urandom(8).hex()


def death_notice(topics: SessionTopics, announcement: Announcement) -> Will:
    """The message that the broker publishes when the connection of this incarnation breaks. It is JSON without headers,
    because it is made before the connection's protocol version is known."""
    return Will(topics.state(announcement.name), json.dumps({**announcement.to_value(), WILL: True}).encode())


def describe_with_registry(cls: type, class_path: str, registry: Registry) -> ClassSpec:
    """The description of a class, overlaid with the registry's entries for it and for its base classes.

    `class_path` is the class's name in the configuration, which may differ from the module that defines it.
    """
    wrapping = Wrapping()
    for path in dict.fromkeys([*map(class_path_of, reversed(cls.__mro__)), class_path]):
        if path in registry:
            wrapping = registry[path].over(wrapping)
    return describe_wrapped(cls, wrapping)
