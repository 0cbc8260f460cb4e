"""Which session a program means: the one that its configuration names, that its environment names, or that runs.

A configuration that names neither session nor broker and describes instances starts a session of its own, so that two
pipelines on one machine do not run into each other. A program without instances looks for a session to join.

Two programs that want the same session in the same moment, where none runs yet: one starts it, the other waits and
joins.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ether.config import EtherConfig, changed
from ether.config.broker import EmbeddedBroker, ExternalBroker
from ether.config.broker_url import complete_url
from ether.connection.deadline import Deadline
from ether.log import get_ether_logger

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession

logger = get_ether_logger("Ether")


def running_session(config: EtherConfig, environment: Mapping[str, str]) -> FoundSession | None:
    """The session to join; None where one is to be started. `config` has what the environment adds. Raises
    `SeveralSessions`, `BrokerUnreachable`, `WrongLabKey`."""
    embedded = isinstance(config.broker, EmbeddedBroker)
    own = embedded and config.broker != EmbeddedBroker()  # it says how the broker is to be: it wants one of its own
    if (own and config.session is None) or (config.session is None and config.instances):
        return None
    from ether.session.discovery.search import find

    broker = config.broker.url if isinstance(config.broker, ExternalBroker) else None
    return find(session=config.session, broker=broker, environment=environment)


def with_environment(config: EtherConfig, environment: Mapping[str, str]) -> EtherConfig:
    """The configuration, with session and broker from the environment where it names none."""
    added: dict[str, str] = {}
    if config.session is None and (session := environment.get("ETHER_SESSION")):
        added["session"] = session
    if config.broker == EmbeddedBroker() and (broker := environment.get("ETHER_BROKER")):
        added["broker"] = complete_url(broker)
    return changed(config, **added) if added else config


@contextmanager
def starting_alone(session: str | None, timeout_s: float) -> Iterator[None]:
    """Within the block no other program of this user on this machine starts a session of this name; where one does so
    already, the block begins when that is over, or after `timeout_s`."""
    lock = None if session is None or sys.platform != "linux" else _lock(_address(session), Deadline(timeout_s))
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _address(session: str) -> bytes:
    """In Linux's own name space for sockets: it needs no file, and vanishes with its process however that ends."""
    return b"\0ether-start-%d-" % os.getuid() + session.encode("utf-8", "surrogatepass")[:80]


def _lock(address: bytes, deadline: Deadline) -> socket.socket | None:
    while True:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(address)
            lock.listen(128)
            return lock
        except OSError as error:
            lock.close()
            logger.debug("another program starts this session: %s", error)
        if deadline.passed:
            return None
        _wait_for_release(address, deadline)


def _wait_for_release(address: bytes, deadline: Deadline) -> None:
    """The holder never accepts; its kernel tells us when it closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(max(deadline.left(), 0.01))
        try:
            waiting.connect(address)
            waiting.recv(1)
        except OSError:
            return  # closed, or the time is over
