"""Where a running session keeps its private things: sockets, settings, its record.

Promise: writers and readers ask the same function, so a session that one program starts is where another one looks.
The trap: `XDG_RUNTIME_DIR` is often left over from another user (su, cron, containers), so it counts only if usable.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from ether.errors import BrokerFailed

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
