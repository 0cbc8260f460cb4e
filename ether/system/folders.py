"""The folders of this user: those of running sessions, and those for what outlives a session.

    private folder    one for each running session, named `ether-…`, in the user's runtime folder ($XDG_RUNTIME_DIR) or
                      where temporary files go: sockets, settings, the record by which other programs find the session
    state folder      `$XDG_STATE_HOME/ether`, or `~/.local/state/ether`; on Windows `%LOCALAPPDATA%\\ether`: logs,
                      outboxes, unanswered calls, journals. The files of one session are in `sessions/<session>/`

Every module that stores something asks here, so that all look in the same place. Only names are made; the folders are
made by the module that writes the first file.

The trap: a session without a name of its own gets a new one each time, and no later session comes back for its files.
`remove_old` removes them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ether.errors import BrokerFailed, ConfigError
from ether.system.clock import wall_time
from ether.system.old_files import still_old

PREFIX = "ether-"
"""The beginning of the name of every session's private folder."""

KEPT_DAYS = 90.0
"""After so long without a change a session's files are removed; nothing in them is of use for that long."""

_NAME_MAX_BYTES = 180


# -- running sessions


def runtime_folder(environment: Mapping[str, str] | None = None) -> str:
    """The folder that holds the private folders of this user's sessions; raises `BrokerFailed` where there is none."""
    given = (os.environ if environment is None else environment).get("XDG_RUNTIME_DIR")
    if given and os.path.isdir(given) and os.access(given, os.W_OK | os.X_OK):
        return given
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise BrokerFailed(f"there is no folder for temporary files: {error}") from error


def private_folder() -> str:
    """An unguessable path for the private folder of a new session."""
    return os.path.join(runtime_folder(), f"{PREFIX}{os.urandom(6).hex()}")


# -- what outlives a session


def state_folder() -> Path:
    """The state folder of this user. Raises `ConfigError` where the user has no home."""
    given = os.environ.get("XDG_STATE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    if given and os.path.isabs(given):
        return Path(given, "ether")
    try:
        return Path.home() / ".local" / "state" / "ether"
    except RuntimeError as error:
        raise ConfigError(f"there is no folder for what Ether keeps: {error} Set XDG_STATE_HOME to one.") from error


def sessions_folder() -> Path:
    """The folders of all sessions. Raises `ConfigError`."""
    return state_folder() / "sessions"


def session_folder(session: str) -> Path:
    """The stored files of a session. Raises `ConfigError`."""
    return sessions_folder() / file_name(session)


def calls_folder(session: str) -> Path:
    """Durable calls of a session's programs and instances that are not answered yet."""
    return session_folder(session) / "calls"


def outbox_folder(session: str) -> Path:
    """The outboxes of a session's processes on this machine: entries that no recorder has acknowledged yet."""
    return session_folder(session) / "outbox"


def journal_path(session: str, instance: str) -> Path:
    """An instance's journal: the durable calls to it that it has begun and finished."""
    return session_folder(session) / "journals" / f"{file_name(instance)}.db"


def file_name(name: str) -> str:
    """The name of a session or an instance in a form that every file system takes; different for different names."""
    plain = "".join(c if c.isalnum() or c in "-_. " else f"%{ord(c):02x}" for c in name)
    if len(plain.encode()) > _NAME_MAX_BYTES:
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        plain = plain.encode()[: _NAME_MAX_BYTES - 20].decode("utf-8", "ignore") + f"-{digest}"
    return plain


def remove_old(now: float | None = None) -> None:
    """Remove the files of sessions that certainly wrote nothing for `KEPT_DAYS`: see `ether.system.old_files`. Raises
    `OSError` and `ConfigError`."""
    now = wall_time() if now is None else now
    long_ago = now - KEPT_DAYS * 86_400
    sessions = sessions_folder()
    look_old = {
        folder.name
        for folder in (sessions.iterdir() if sessions.is_dir() else ())
        if all(path.stat().st_mtime < long_ago for path in (folder, *folder.rglob("*")))
        and not any(folder.glob("outbox/*.outbox*"))  # values that are on no recorder's disk stay until they are
    }
    for name in still_old(state_folder() / "old-sessions.json", look_old, now):
        shutil.rmtree(sessions / name, ignore_errors=True)
