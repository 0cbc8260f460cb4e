"""What stays known of members that cannot be reached: notes on offline agents, and a snapshot where the broker is away.

Two directions. An *agent* loses its connection: `OfflineNotes`, in the program that leads the session, adds the time to
the announcements of the agent and its instances. The broker cannot, because it publishes a will that was written when
the connection was made. A *program* loses the broker: `LastKnownFile` writes what the program knew to a file, so that
`ether ps` on the same machine can show it (`read_last_known`).

Promises: both work on threads of their own, and begin with the first loss; the file vanishes with the outage or with
its program, and a file of a dead program is never shown. The trap: an instance that died while its agent lives is not
offline, but about to be restarted.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ether.errors import BrokerFailed, EtherError
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement, State
from ether.session.discovery.local_sessions import SessionRecord, fate_of, own_folders
from ether.session.session import Session
from ether.system.clock import wall_time
from ether.system.private_files import read_private, write_private
from ether.system.processes import this_place

logger = get_ether_logger("Ether")


# -- agents that are offline


class OfflineNotes:
    """Adds the time to the announcements of agents that are lost, and of their instances. For the leading program."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._deaths: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.Lock()  # a death may be told while the program ends
        session.watch(self._on_announcement)

    def close(self) -> None:
        """Add no more notes. May be called twice."""
        with self._lock:
            self._closed, thread = True, self._thread
            self._thread = None
        if thread is not None:
            self._deaths.put(None)
            thread.join()

    def _on_announcement(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        agent = agent_of(announcement)
        if announcement.state is not State.LOST or agent is None:
            return
        with self._lock:
            if self._closed:
                return
            self._deaths.put((agent, wall_time()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ether-offline", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (death := self._deaths.get()) is not None:
            try:
                self._note(*death)
            except EtherError as error:
                logger.warning("could not tell since when agent %s is offline: %s", death[0], error)

    def _note(self, agent: str, when: float) -> None:
        """Announce an agent and its instances as offline. The broker reports their deaths one by one and in any order,
        so each report is a reason to look at all of them; nothing happens before the agent itself is lost."""
        known = self._session.announcement(agent)
        if known is None or known.state is not State.LOST:
            return
        for member in self._session.announcements():
            if agent in (agent_of(member), member.about.get("keeper")) and _is_away(member):
                self._session.say(_offline(member, when))
                # This program published the announcement in the member's place. The link must not repeat it after a
                # reconnect, when the member may have announced itself again.
                self._session.link.leave_to_others(self._session.topics.state(member.name))
                logger.warning("%s is offline", member.name)


def agent_of(announcement: Announcement) -> str | None:
    """The name of an agent, or of the agent that supervises an instance; None for all other members."""
    if announcement.kind == "agent":
        return announcement.name
    machine = announcement.about.get("machine")
    return machine if isinstance(machine, str) else None


def _is_away(member: Announcement) -> bool:
    """Whether a member of a lost agent counts as lost, too, and is not marked yet. An instance that was starting had
    left no will with the broker yet, and only its agent could report its end."""
    lost = member.state is State.LOST and "offline_since" not in member.about
    return lost or member.state in (State.STARTING, State.RESTARTING)


def _offline(member: Announcement, when: float) -> Announcement:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return replace(
        member, state=State.LOST, error=f"offline since {since}", about={**member.about, "offline_since": when}
    )


# -- a program that has lost the broker

FILE_NAME = "last_known.json"
_LONGEST_BYTES = 4_000_000
_LONGEST_ERROR = 2_000
_FACTS = ("kind", "class", "class_path", "host", "pid", "since", "epoch", "version", "machine", "offline_since")
"""The facts of an announcement that are written to the file."""


@dataclass(frozen=True, slots=True)
class LastKnown:
    """The snapshot of one program: the members that it knew when it lost the broker, at `since` (unix seconds).
    `broker` is the broker's address."""

    session: str
    program: str
    pid: int
    broker: str
    since: float
    members: tuple[Announcement, ...]


class LastKnownFile:
    """Writes the snapshot of one program when it loses the broker, and removes it when the broker is back."""

    def __init__(self, session: Session, program: str, broker: str, folder: str) -> None:
        """`broker` is an address without a password; `folder` is the program's private one."""
        self._session = session
        self._program = program
        self._broker = broker
        self._folder = folder
        self._path = os.path.join(folder, FILE_NAME)
        self._connected: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._closed = False
        session.link.on_connection.append(self._on_connection)

    def close(self) -> None:
        """Remove the file, and write no more. May be called twice."""
        with self._turn:
            self._closed = True  # the connection may be lost meanwhile, on another thread
            thread, self._thread = self._thread, None
        if thread is not None:
            self._connected.put(None)
            thread.join()

    def _on_connection(self, up: bool) -> None:
        """On the dispatch thread."""
        self._connected.put(up)
        with self._turn:
            if self._thread is None and not up and not self._closed:
                self._thread = threading.Thread(target=self._run, name="ether-last-known", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (up := self._connected.get()) is not None:
            since = self._session.link.offline_since
            if up or since is None:
                self._remove()
            else:
                self._write(since)
        self._remove()

    def _write(self, since: float) -> None:
        record = SessionRecord.of_this_process(self._session.topics.session, self._broker, since)
        members = [_shortened(member) for member in self._session.announcements()]
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            write_private(self._path, {"record": asdict(record), "program": self._program, "members": members})
        except OSError as error:
            logger.debug("what was known last cannot be written to %s: %s", self._path, error)

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)  # fails where the folder has other files


def read_last_known(environment: Mapping[str, str], session: str | None = None) -> list[LastKnown]:
    """The snapshots of all programs of this user on this machine that have lost their broker now, the latest loss
    first; with `session`, of that session alone. Never raises."""
    try:
        folders = own_folders(environment)
    except (OSError, BrokerFailed) as error:
        logger.debug("nothing that was known last can be read: %s", error)
        return []
    found = [known for folder in folders if (known := _read(folder)) is not None]
    return sorted((one for one in found if session in (None, one.session)), key=lambda one: one.since, reverse=True)


def _read(folder: str) -> LastKnown | None:
    path = os.path.join(folder, FILE_NAME)
    try:
        match read_private(path, longest_bytes=_LONGEST_BYTES):
            case {"record": record, "program": str(program), "members": list(members)}:
                writer = SessionRecord.from_value(record)
            case _:
                raise ValueError("not what was known last")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.debug("%s cannot be read: %s", path, error)
        return None
    fate = fate_of(writer, this_place())
    if fate == "is over":
        with contextlib.suppress(OSError):
            os.unlink(path)
    if fate != "runs":
        return None
    known = tuple(member for value in members if (member := Announcement.from_value(value)) is not None)
    return LastKnown(writer.session, program, writer.pid, writer.url, writer.since, known)


def _shortened(member: Announcement) -> dict[str, Any]:
    about = {key: member.about[key] for key in _FACTS if key in member.about}
    return Announcement(member.name, member.state, member.incarnation, member.error[-_LONGEST_ERROR:], about).to_value()
