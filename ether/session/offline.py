"""Says since when an agent is offline, and its instances with it.

A broker that notices a death publishes what was left with it when the connection was made, and that cannot say when it
will be needed. So the program that leads the session writes the time beside it: whoever looks later reads "offline
since". The trap: an instance that died while its agent lives is not offline, but about to be started again.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import replace

from ether.errors import EtherError
from ether.log import get_ether_logger
from ether.protocol.presence import Announcement, State
from ether.session.session import Session

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
