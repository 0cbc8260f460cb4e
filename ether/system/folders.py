"""Where this user keeps what outlives a session: logs, saves that are not answered yet, journals.

`$XDG_STATE_HOME/ether`, or `~/.local/state/ether`; on Windows `%LOCALAPPDATA%\\ether`. Whoever keeps something asks
here, so that everybody looks in the same place. What belongs to one session is in `sessions/<session>/`.

The trap: sessions without a name of their own get a new one each time, and nobody comes back for what they leave.
`remove_old` takes that away.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from ether.errors import BrokerFailed, ConfigError

PREFIX = "ether-"
"""What the name of every session's private folder begins with."""


def private_folder() -> str:
    """A name for a folder of this session alone, in the user's runtime folder or where temporary files go. Nothing is
    made yet."""
    return os.path.join(runtime_folder(), f"{PREFIX}{os.urandom(6).hex()}")


def runtime_folder(environment: Mapping[str, str] | None = None) -> str:
    """The folder that holds the private folders of this user's sessions; raises `BrokerFailed` where there is none."""
    given = (os.environ if environment is None else environment).get("XDG_RUNTIME_DIR")
    if given and os.path.isdir(given) and os.access(given, os.W_OK | os.X_OK):
        return given
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise BrokerFailed(f"there is no folder for temporary files: {error}") from error


KEPT_DAYS = 90.0
"""Longer than anything in a session's folder counts."""

_NAME_MAX_BYTES = 180


def state_folder() -> Path:
    """This user's; nothing is made. Raises `ConfigError` where the user has no home."""
    given = os.environ.get("XDG_STATE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    if given and os.path.isabs(given):
        return Path(given, "ether")
    try:
        return Path.home() / ".local" / "state" / "ether"
    except RuntimeError as error:
        raise ConfigError(f"there is no folder for what Ether keeps: {error} Set XDG_STATE_HOME to one.") from error


def session_folder(session: str) -> Path:
    """What this user keeps of a session. Raises `ConfigError`."""
    return state_folder() / "sessions" / file_name(session)


def calls_folder(session: str) -> Path:
    """Where the programs and instances of a session keep the saves that are not answered yet."""
    return session_folder(session) / "calls"


def outbox_folder(session: str) -> Path:
    """Where the outboxes of a session's processes on this machine are: what no recorder has acknowledged yet."""
    return session_folder(session) / "outbox"


def journal_path(session: str, instance: str) -> Path:
    """What an instance has begun and finished of the saves that it was asked for."""
    return session_folder(session) / "journals" / f"{file_name(instance)}.db"


def file_name(name: str) -> str:
    """A name of a session or an instance as every file system takes it."""
    plain = "".join(c if c.isalnum() or c in "-_. " else f"%{ord(c):02x}" for c in name)
    if len(plain.encode()) > _NAME_MAX_BYTES:
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        plain = plain.encode()[: _NAME_MAX_BYTES - 20].decode("utf-8", "ignore") + f"-{digest}"
    return plain


def remove_old(now: float | None = None) -> None:
    """Take away what sessions left of which nothing was written for 90 days. Raises `OSError` and `ConfigError`."""
    long_ago = (time.time() if now is None else now) - KEPT_DAYS * 86_400
    sessions = state_folder() / "sessions"
    for folder in sessions.iterdir() if sessions.is_dir() else ():
        if all(path.stat().st_mtime < long_ago for path in (folder, *folder.rglob("*"))):
            shutil.rmtree(folder, ignore_errors=True)
