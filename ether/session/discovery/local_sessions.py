"""The records of running sessions, by which other programs of this user on this machine join them.

A record is the file `session.json` in the session's private folder, so that it vanishes with the folder. A reader
checks whether the program of each record still runs; it ignores the record of a dead program and removes its folder.
The digest of the configuration is a file beside it, because programs of before refuse a record with a key that they do
not know, and would start a second session.

The trap: a record contains the broker's password. So only its owner can read it, and a file of another user is not
trusted: it could lead a program to that user's broker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ether.errors import BrokerFailed
from ether.log import get_ether_logger
from ether.system.clock import wall_time
from ether.system.folders import PREFIX, runtime_folder
from ether.system.private_files import is_own, read_private, write_private
from ether.system.processes import ProcessPlace, birth_of, is_running, this_place
from ether.version import VERSION

logger = get_ether_logger("Ether")

FILE_NAME = "session.json"
DIGEST_NAME = "configuration.json"


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One running session. `url` is its broker's, with credentials; `since` is in unix seconds; `pid_started`, `boot`
    and `namespace` tell the program apart from a later one with the same `pid`."""

    session: str
    url: str = field(repr=False)
    host: str
    pid: int
    since: float
    version: str
    pid_started: str | None = None
    boot: str = ""
    namespace: str = ""
    configuration: str = ""
    """The digest of the configuration that it was started with; empty where there is none."""

    @classmethod
    def of_this_process(
        cls, session: str, url: str, since: float | None = None, configuration: str = ""
    ) -> SessionRecord:
        """The record of a session that this process leads; without `since`, from now on."""
        place, pid = this_place(), os.getpid()
        began = wall_time() if since is None else since
        return cls(
            session, url, place.host, pid, began, VERSION, birth_of(pid), place.boot, place.namespace, configuration
        )

    @classmethod
    def from_value(cls, value: object) -> SessionRecord:
        """Read the content of a file; raises `ValueError` where it is not a valid record."""
        if not isinstance(value, dict) or not value.keys() <= {known.name for known in fields(cls)}:
            raise ValueError("not the keys of a record")
        value = {"configuration": "", **value}
        if not all(isinstance(value.get(key), _TYPES[key]) for key in _TYPES) or isinstance(value["pid"], bool):
            raise ValueError("values of the wrong type")
        if value["pid"] <= 0:
            raise ValueError("a process id that cannot be")
        return cls(**value)

    @property
    def place(self) -> ProcessPlace:
        """The machine, boot and container in which `pid` is valid."""
        return ProcessPlace(self.host, self.boot, self.namespace)


_TYPES: Mapping[str, Any] = {
    "session": str,
    "url": str,
    "host": str,
    "pid": int,
    "since": (int, float),
    "version": str,
    "pid_started": (str, type(None)),
    "boot": str,
    "namespace": str,
    "configuration": str,
}


def write_record(folder: str | os.PathLike[str], record: SessionRecord) -> None:
    """Write the record, so that other programs find the session; `folder` is its private folder. Raises
    `BrokerFailed`."""
    path, value = os.path.join(folder, FILE_NAME), asdict(record)
    digest = value.pop("configuration")
    try:
        if digest:  # before the record: by that the session is found
            write_private(os.path.join(folder, DIGEST_NAME), digest)
        write_private(path, value)
    except OSError as error:
        raise BrokerFailed(f"the record of session {record.session!r} cannot be written to {path}: {error}") from error


def remove_record(folder: str | os.PathLike[str]) -> None:
    """Remove the record, so that no program finds the session. May be called twice."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, FILE_NAME))


def read_records(environment: Mapping[str, str] | None = None) -> list[SessionRecord]:
    """The sessions that this user runs on this machine, the oldest first. Removes the folders of dead ones. Never
    raises."""
    try:
        folders = own_folders(environment)
    except (OSError, BrokerFailed) as error:
        logger.debug("no records of sessions can be read: %s", error)
        return []
    here = this_place()
    found = [record for folder in folders if (record := _living(folder, here)) is not None]
    return sorted(found, key=lambda record: record.since)


def own_folders(environment: Mapping[str, str] | None = None) -> list[str]:
    """The private folders of this user's programs on this machine. Raises `OSError` and `BrokerFailed`."""
    parent = runtime_folder(environment)
    return [entry.path for entry in os.scandir(parent) if entry.name.startswith(PREFIX) and _is_folder(entry)]


def folder_of(session: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The private folder of a session that runs on this machine, which ends with it; None where there is none."""
    here = this_place()
    try:
        folders = own_folders(environment)
    except (OSError, BrokerFailed):
        return None
    living = ((folder, _living(folder, here)) for folder in folders)
    return next((folder for folder, record in living if record is not None and record.session == session), None)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a folder, not a link to one, that only this user can write to."""
    try:
        return entry.is_dir(follow_symlinks=False) and is_own(entry.stat(follow_symlinks=False))
    except OSError:
        return False  # gone meanwhile


def _living(folder: str, here: ProcessPlace) -> SessionRecord | None:
    """The folder's record, if its session runs. A folder without a record is left alone: its session may be
    starting."""
    path = os.path.join(folder, FILE_NAME)
    try:
        record = SessionRecord.from_value(read_private(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.debug("%s is no record of a session: %s", path, error)
        return None
    fate = fate_of(record, here)
    if fate != "runs":
        logger.debug("session %r of %s:%d %s", record.session, record.host, record.pid, fate)
    if fate == "is over":
        shutil.rmtree(folder, ignore_errors=True)
    return replace(record, configuration=_digest(folder) or record.configuration) if fate == "runs" else None


def _digest(folder: str) -> str:
    """The digest of the configuration with which the folder's session was started; empty where there is none."""
    try:
        digest = read_private(os.path.join(folder, DIGEST_NAME))
    except (OSError, ValueError):
        return ""
    return digest if isinstance(digest, str) else ""


def fate_of(record: SessionRecord, here: ProcessPlace) -> str:
    """`runs`, `is over`, or `is elsewhere`: in another container or on another machine, whose processes this one
    cannot see although they share the folder."""
    # The boot id and the namespace are unique. Where they are equal, the machine is the same one; a laptop's host name
    # may have changed since.
    if record.place == here or (record.place[1:] == here[1:] and here.boot):
        return "runs" if is_running(record.pid, record.pid_started) else "is over"
    rebooted = record.host == here.host and record.boot != here.boot
    return "is over" if rebooted else "is elsewhere"
