"""What the programs of this machine knew of their session when they lost their broker: a file, for as long as they are
cut off.

Promise: `ether ps` can tell, on the side that is cut off, who was there and since when nothing is heard of them. The
file lies in the program's private folder, is written when the connection is lost and removed when it is back; that of
a killed program is ignored, and removed. The trap: it says what was known, not what is.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ether.errors import BrokerFailed
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.session.discovery.local_sessions import SessionRecord, fate_of, own_folders
from ether.session.session import Session
from ether.system.private_files import read_private, write_private
from ether.system.processes import this_place

logger = get_ether_logger("Ether")

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
    return Announcement(member.name, member.state, member.birth, member.error[-_LONGEST_ERROR:], about).to_value()
