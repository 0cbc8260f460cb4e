"""One name, one holder: becoming the holder of a name in a session.

Promise: of all who want a name at the same time one gets it; everybody else gets `NameTaken`, which says where the
holder lives. Programs that keep a name (agents) and instances share the names.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from ether.connection.assembly import new_incarnation
from ether.connection.deadline import Deadline
from ether.errors import NameTaken
from ether.protocol.presence import Announcement, State
from ether.session.session import Session
from ether.system.processes import is_running, running_script


def new_session_name() -> str:
    """A name for a session whose configuration gives none: when it began, and random bits."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


def program_name() -> str:
    """For a program that joins and holds no name: what it is, and random bits, for two may be of the same script."""
    script = running_script()
    stem = os.path.splitext(os.path.basename(script))[0] if script else "program"
    kept = "".join(character if character.isalnum() or character in "-_." else "-" for character in stem)
    return f"{kept[:40] or 'program'}-{os.urandom(3).hex()}"


def take_name(
    session: Session,
    name: str,
    deadline: Deadline,
    *,
    yields: Callable[[Announcement], bool] = lambda holder: False,
    kind: str = "instance",
) -> tuple[str, int]:
    """Become the holder: the birth and epoch to announce under. `yields` says whether a holder that is there gives way;
    what it still sends is heard by nobody then. Raises `NameTaken`."""
    holder = session.holder(name)
    if holder is not None and not (yields(holder) or is_dead_here(holder)):
        raise taken(holder)
    incarnation = new_incarnation()
    if not session.claim(name, incarnation, deadline.left()):
        raise NameTaken(kind, name, responds=False)
    winner = session.holder(name)
    if winner is not None and (holder is None or winner.incarnation != holder.incarnation):
        raise taken(winner)
    epoch = session.next_epoch(name)
    if holder is not None:
        session.fence(holder, epoch, deadline.left())
    return incarnation, epoch


def taken(holder: Announcement) -> NameTaken:
    """The error that names a holder."""
    about = holder.about
    since, pid = about.get("since"), about.get("pid")
    return NameTaken(
        holder.kind,
        holder.name,
        host=str(about.get("host")),
        pid=pid if isinstance(pid, int) else None,
        since=since if isinstance(since, (int, float)) else None,
        responds=holder.state is not State.HUNG,
    )


def is_dead_here(holder: Announcement) -> bool:
    """A holder on this machine whose process is gone has left a ghost."""
    pid, began = holder.about.get("pid"), holder.about.get("pid_started")
    same_host = holder.about.get("host") == socket.gethostname()
    return same_host and isinstance(pid, int) and not is_running(pid, began if isinstance(began, str) else None)
