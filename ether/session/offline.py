"""Says since when an agent is offline, and its instances with it.

A broker that notices a death publishes what was left with it when the connection was made, and that cannot say when it
will be needed. So the program that leads the session writes the time beside it: whoever looks later reads "offline
since". The trap: an instance that died while its agent lives is not offline, but about to be started again.
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
from ether.system.private_files import read_private, write_private
from ether.system.processes import this_place

logger = get_ether_logger("Ether")


class OfflineNotes:
    """Watches the agents of one session, on a thread of its own that begins with the first death."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._deaths: queue.SimpleQueue[tuple[str, float] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        session.watch(self._on_announcement)

    def close(self) -> None:
        """Note no more. Twice is fine."""
        if self._thread is not None:
            self._deaths.put(None)
            self._thread.join()
            self._thread = None

    def _on_announcement(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        agent = agent_of(announcement)
        if announcement.state is not State.LOST or agent is None:
            return
        self._deaths.put((agent, time.time()))
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
        """The deaths of an agent and of its instances are told one by one, in any order."""
        known = self._session.announcement(agent)
        if known is None or known.state is not State.LOST:
            return
        for member in self._session.announcements():
            if agent in (agent_of(member), member.about.get("keeper")) and _is_away(member):
                self._session.say(_offline(member, when))
                self._session.link.leave_to_others(self._session.topics.state(member.name))
                logger.warning("%s is offline", member.name)


def agent_of(announcement: Announcement) -> str | None:
    """The agent's own name, or that of the agent that keeps an instance; None for anybody else."""
    if announcement.kind == "agent":
        return announcement.name
    machine = announcement.about.get("machine")
    return machine if isinstance(machine, str) else None


def _is_away(member: Announcement) -> bool:
    """Of one that was being started only its agent could tell the fate: the broker holds no last word of it."""
    lost = member.state is State.LOST and "offline_since" not in member.about
    return lost or member.state in (State.STARTING, State.RESTARTING)


def _offline(member: Announcement, when: float) -> Announcement:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return replace(
        member, state=State.LOST, error=f"offline since {since}", about={**member.about, "offline_since": when}
    )


FILE_NAME = "last_known.json"
_LONGEST_BYTES = 4_000_000
_LONGEST_ERROR = 2_000
_FACTS = ("kind", "class", "class_path", "host", "pid", "since", "epoch", "version", "machine", "offline_since")


@dataclass(frozen=True, slots=True)
class LastKnown:
    """What one program knew. `since` (unix seconds): when it lost the broker, whose address is `broker`."""

    session: str
    program: str
    pid: int
    broker: str
    since: float
    members: tuple[Announcement, ...]


class LastKnownFile:
    """Keeps the file of one program, on a thread of its own that begins with the first loss."""

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
        session.link.on_connection.append(self._note)

    def close(self) -> None:
        """Remove it, and write no more. Twice is fine."""
        with self._turn:
            self._closed = True  # the connection may be lost meanwhile, on another thread
            thread, self._thread = self._thread, None
        if thread is not None:
            self._connected.put(None)
            thread.join()

    def _note(self, up: bool) -> None:
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
            os.rmdir(self._folder)  # where nothing else is in it


def read_last_known(environment: Mapping[str, str], session: str | None = None) -> list[LastKnown]:
    """Of every program of this user on this machine that is cut off now, the latest loss first; of one session where
    that is named. Never raises."""
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
                who = SessionRecord.from_value(record)
            case _:
                raise ValueError("not what was known last")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.debug("%s cannot be read: %s", path, error)
        return None
    fate = fate_of(who, this_place())
    if fate == "is over":
        with contextlib.suppress(OSError):
            os.unlink(path)
    if fate != "runs":
        return None
    known = tuple(member for value in members if (member := Announcement.from_value(value)) is not None)
    return LastKnown(who.session, program, who.pid, who.url, who.since, known)


def _shortened(member: Announcement) -> dict[str, Any]:
    about = {key: member.about[key] for key in _FACTS if key in member.about}
    return Announcement(member.name, member.state, member.incarnation, member.error[-_LONGEST_ERROR:], about).to_value()
