"""`ether down`, `ether start|stop|restart NAME`: asking the program that keeps a session, or an instance, to act.

The asked program does it on its own machine, with its own configuration; nothing is killed from here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from ether.cli.exits import CommandMistake
from ether.cli.lab.joined import JOIN_TIMEOUT_S, joined
from ether.cli.options import BrokerUrl, Json, SessionName, Timeout
from ether.cli.output import print_json, print_line
from ether.errors import EtherError

if TYPE_CHECKING:
    from ether.connection.link import Inbound
    from ether.session.client import Client

_LOOK_S = 0.2
_GONE_AFTER_S = 3.0
"""So long without a connection and a session on another machine counts as ended: its broker ended with it."""

InstanceName = Annotated[str, typer.Argument(metavar="NAME", help="The instance.")]


class NotDone(EtherError, RuntimeError):
    """The program that was asked did not do it; `why` is its answer."""

    def __init__(self, what: str, who: str, why: str) -> None:
        self.what, self.who, self.why = what, who, why
        super().__init__(f"could not {what}: {who} answered: {why}")


class StillThere(EtherError, TimeoutError):
    """The session was asked to end and had not after `timeout_s` seconds."""

    def __init__(self, session: str, where: str, timeout_s: float) -> None:
        self.session, self.where, self.timeout_s = session, where, timeout_s
        super().__init__(f"session {session!r} ({where}) was asked to end and is still there after {timeout_s:g} s")


def down(session: SessionName = None, broker: BrokerUrl = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Shut a session down that `ether run` or `ether up` started: work in flight drains, then save_all, cleanup and
    stop run everywhere. Returns when it is gone."""
    with joined(session, broker, log_level="ERROR") as client:  # it will lose its connection, and should
        name = client.topics.session
        info = client.session.info(JOIN_TIMEOUT_S)
        where = f"pid {info.get('pid')} on {info.get('host')}"
        cleared = _watch_the_entry(client)
        _ask(client, str(info.get("program", "main")), "shutdown", "", f"end session {name!r} ({where})", timeout)
        if not _wait_until_gone(client, cleared, timeout):
            raise StillThere(name, where, timeout)
    if json:
        print_json({"session": name, "ended": True})
    else:
        print_line(f"session {name} has ended")


def _watch_the_entry(client: Client) -> threading.Event:
    """Set when the session's entry in the broker's directory is cleared."""
    cleared = threading.Event()

    def receive(inbound: Inbound) -> None:
        if not inbound.delivery.payload:
            cleared.set()
        inbound.done()

    client.link.listen(client.topics.session_info, receive)
    return cleared


def _wait_until_gone(client: Client, cleared: threading.Event, timeout_s: float) -> bool:
    from ether.connection.deadline import Deadline
    from ether.session.discovery.local_sessions import read_records

    def has_a_record() -> bool:
        return any(record.session == client.topics.session for record in read_records())

    deadline, away_s = Deadline(timeout_s), 0.0
    patience_s = 0.0 if has_a_record() else _GONE_AFTER_S
    while not deadline.passed:
        if cleared.wait(_LOOK_S):
            return True
        away_s = 0.0 if client.link.transport.connected else away_s + _LOOK_S
        if away_s > patience_s and not has_a_record():
            return True
    return False


def start(
    name: InstanceName,
    session: SessionName = None,
    broker: BrokerUrl = None,
    timeout: Timeout = 30.0,
    json: Json = False,
) -> None:
    """Start an instance that the session's configuration describes and that does not run."""
    _keep("start", name, session, broker, timeout, as_json=json)


def stop(
    name: InstanceName,
    session: SessionName = None,
    broker: BrokerUrl = None,
    timeout: Timeout = 60.0,
    json: Json = False,
) -> None:
    """Stop one instance in order; everything else goes on."""
    _keep("remove", name, session, broker, timeout, as_json=json)


def restart(
    name: InstanceName,
    session: SessionName = None,
    broker: BrokerUrl = None,
    timeout: Timeout = 60.0,
    json: Json = False,
) -> None:
    """Stop one instance in order and start it again; calls to it wait meanwhile."""
    _keep("restart", name, session, broker, timeout, as_json=json)


_DONE = {"start": "was started", "remove": "was stopped", "restart": "was restarted"}


def _keep(verb: str, name: str, session: str | None, broker: str | None, timeout_s: float, *, as_json: bool) -> None:
    with joined(session, broker) as client:
        _ask(client, _keeper_of(client, name, verb), verb, name, f"{verb} {name!r}", timeout_s)
    if as_json:
        print_json({"instance": name, "done": verb})
    else:
        print_line(f"{name} {_DONE[verb]}")


def _keeper_of(client: Client, name: str, verb: str) -> str:
    """The program that keeps an instance; of one that does not run, the one that leads the session."""
    known = client.session.announcement(name)
    if known is None and verb != "start":
        there = ", ".join(each.name for each in client.session.announcements() if each.kind == "instance")
        raise CommandMistake(f"there is no instance {name!r} in the session; there are: {there or 'none'}")
    keeper = known.about.get("keeper") if known is not None else None
    return str(keeper or client.session.info(JOIN_TIMEOUT_S).get("program", "main"))


def _ask(client: Client, program: str, verb: str, name: str, what: str, timeout_s: float) -> None:
    from ether.session.session import KEEP

    barrier = client.session.ask(KEEP, [program], timeout_s, {"do": verb, "name": name})
    answer = barrier.answers.get(program)
    if answer is None:
        raise NotDone(what, program, barrier.reasons(timeout_s).get(program, f"nothing within {timeout_s:g} s"))
    if answer.failed:
        raise NotDone(what, program, "; ".join(answer.failed.values()))
