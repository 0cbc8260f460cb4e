"""Claims a name in a session, so that each name has one holder; and makes names for sessions and programs without one.

Promise: of several processes that claim a name at the same time, one gets it; every other one gets `NameTaken`, which
says where the holder runs. Instances and programs with a name of their own (agents) share one set of names. How the
holder keeps its name afterwards is in `ether.session.fencing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ether.connection.assembly import new_incarnation
from ether.connection.deadline import Deadline
from ether.errors import NameTaken
from ether.protocol.presence import Announcement, State
from ether.session.session import Session
from ether.system.clock import wall_time
from ether.system.process_owner import has_ended
from ether.system.processes import running_script


def new_session_name() -> str:
    """A name for a session whose configuration gives none: the time of its beginning, and random bits."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(wall_time()))}-{os.urandom(3).hex()}"


def program_name() -> str:
    """A name for a program that joins a session: its script, and random bits, since one script may run twice."""
    script = running_script()
    stem = os.path.splitext(os.path.basename(script))[0] if script else "program"
    allowed = "".join(character if character.isalnum() or character in "-_." else "-" for character in stem)
    return f"{allowed[:40] or 'program'}-{os.urandom(3).hex()}"


def take_name(
    session: Session,
    name: str,
    deadline: Deadline,
    *,
    yields: Callable[[Announcement], bool] = lambda holder: False,
    kind: str = "instance",
) -> tuple[str, int]:
    """Become the holder of a name. Returns the incarnation and the epoch under which to announce it.

    `yields` tells whether the present holder, if there is one, has to give way; then every process refuses what it
    still sends. `kind` names the claimant in the error. Raises `NameTaken`."""
    holder = session.holder(name)
    if holder is not None and not (yields(holder) or has_ended(holder.about)):
        raise taken(holder)
    # Every claimant publishes its claim and waits until the broker has delivered it back. All claimants receive all
    # claims in the same order, so all agree on the first one.
    incarnation = new_incarnation()
    if not session.claim(name, incarnation, deadline.left()):
        raise NameTaken(kind, name, responds=False)
    # Another process may have claimed and announced the name before this claim was sent.
    winner = session.holder(name)
    if winner is not None and (holder is None or winner.incarnation != holder.incarnation):
        raise taken(winner)
    epoch = session.next_epoch(name)
    if holder is not None:
        session.fence(holder, epoch, deadline.left())
    return incarnation, epoch


def taken(holder: Announcement) -> NameTaken:
    """The error for a name that this holder has."""
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
