"""Connects to a session that was found, also in the moment in which its broker is started again.

The program that leads a session starts its broker again when that dies (`ether.launch.broker`), after pauses that grow.
A program that joins in between meets a closed port, or a connection that breaks while it is being opened.

Promise: it tries again for as long as the session's record on this machine says that the leading program lives. For a
session of another machine, of which that cannot be seen, it tries for `RETURN_S`. A refusal of user and password is
final at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from ether.connection.assembly import connected_within
from ether.connection.deadline import Deadline
from ether.log import get_ether_logger
from ether.session.discovery.local_sessions import read_records
from ether.session.discovery.search import FoundSession
from ether.session.leader_rules import RETURN_S

logger = get_ether_logger("Ether")

T = TypeVar("T")


def connected(found: FoundSession, connect: Callable[[], T], patience: Deadline) -> T:
    """The result of `connect`, which is called again where the session's broker is about to return, until `patience`
    is over. Raises what `connect` raises."""
    unseen = Deadline(min(RETURN_S, patience.left()))
    waited = threading.Event()

    def goes_on() -> bool:
        if not waited.is_set():
            waited.set()
            logger.info("waiting for the broker of session %s, which cannot be reached, to come back...", found.name)
        return not unseen.passed or leads_here(found)

    return connected_within(connect, patience, goes_on)


def leads_here(found: FoundSession) -> bool:
    """Whether a record of this machine says that a living program leads the session."""
    return any(record.session == found.name and record.pid == found.pid for record in read_records(os.environ))
