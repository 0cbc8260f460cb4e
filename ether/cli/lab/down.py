"""`ether down`: asks the program that started a session to end it, and waits until the session is gone.

The trap: the broker usually ends with the session, so the last sign of the end may be a lost connection.
"""

from __future__ import annotations

import threading

from ether.cli.lab.control import ask_program
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import Json, Timeout, Where
from ether.cli.output import print_json, print_line
from ether.connection.deadline import Deadline
from ether.connection.link import Inbound
from ether.errors import EtherError
from ether.session.client import Client
from ether.session.discovery.local_sessions import read_records

_LOOK_S = 0.2
_GONE_AFTER_S = 3.0
"""A session on another machine counts as ended after this long without a connection: its broker ended with it."""


class StillThere(EtherError, TimeoutError):
    """The session was asked to end and had not after `timeout_s` seconds."""

    def __init__(self, session: str, where: str, timeout_s: float) -> None:
        self.session, self.where, self.timeout_s = session, where, timeout_s
        super().__init__(f"session {session!r} ({where}) was asked to end and is still there after {timeout_s:g} s")


def down(where: Where, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Shut a session down that `ether run` or `ether up` started: work in flight drains, then save_all, cleanup and
    stop run everywhere. Returns when it is gone."""
    with joined(where, log_level="ERROR") as client:  # the connection will be lost, and that is no warning here
        name = client.topics.session
        info = client.session.info(JOIN_TIMEOUT_S)
        program, leader = str(info.get("program", "main")), f"pid {info.get('pid')} on {info.get('host')}"
        cleared = _watch_the_entry(client)
        ask_program(client, program, {"do": "shutdown", "name": ""}, f"end session {name!r} ({leader})", timeout)
        if not _wait_until_gone(client, cleared, timeout):
            raise StillThere(name, leader, timeout)
    if json:
        print_json({"session": name, "ended": True})
    else:
        print_line(f"session {name} has ended")


def _watch_the_entry(client: Client) -> threading.Event:
    """An event that is set when the session's entry in the broker's directory is cleared."""
    cleared = threading.Event()

    def receive(inbound: Inbound) -> None:
        if not inbound.delivery.payload:
            cleared.set()
        inbound.done()

    client.link.listen(client.topics.session_info, receive)
    return cleared


def _wait_until_gone(client: Client, cleared: threading.Event, timeout_s: float) -> bool:
    """True when the session's entry was cleared, or when the connection is lost and this machine has no record of the
    session. A session on this machine has a record until it ends; of one elsewhere only the silence tells."""

    def has_a_record() -> bool:
        return any(record.session == client.topics.session for record in read_records())

    deadline, disconnected_s = Deadline(timeout_s), 0.0
    patience_s = 0.0 if has_a_record() else _GONE_AFTER_S
    while not deadline.passed:
        if cleared.wait(_LOOK_S):
            return True
        disconnected_s = 0.0 if client.link.transport.connected else disconnected_s + _LOOK_S
        if disconnected_s > patience_s and not has_a_record():
            return True
    return False
