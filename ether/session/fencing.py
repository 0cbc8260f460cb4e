"""Fencing: how the holder of a name keeps it, and how it gives way to a successor.

A process that takes a name over publishes a fence (`control/fence`). From then on, every process refuses messages of
the earlier holder's process, and that process stops itself as soon as it receives the fence. The holder also defends
the retained announcement under its name: where a message of an earlier epoch replaces it (the will of a dead
predecessor, a stale entry), the holder publishes its own again.

Two holders of the same epoch are possible where neither could receive the other's claim: one of them was disconnected,
and the broker had forgotten it. Then the one that has held the name for longer goes on, and the other one stops itself:
see `ether.session.seniority_rules`, by which two leaders of a session are told apart, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ether.connection.link import Inbound, Link
from ether.log import get_ether_logger
from ether.protocol.presence import HOLDS_ITS_NAME, Announcement, State, can_follow, is_notice
from ether.session.seniority_rules import Seniority
from ether.system.clock import uptime
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

FENCE = "fence"
"""The control verb: `{"name", "epoch", "nodes"}`."""


@dataclass(frozen=True, slots=True)
class NameHold:
    """The hold on a name: incarnation, epoch (the fencing token), and its beginning: `since` in unix seconds, `began`
    by `ether.system.clock.uptime`."""

    name: str
    incarnation: str
    epoch: int
    since: float
    began: float

    def rivals(self, other: Announcement) -> bool:
        """Whether another holder of the same epoch announces itself."""
        lives = other.state in HOLDS_ITS_NAME and other.epoch == self.epoch
        return lives and other.incarnation != self.incarnation


class NameClaim:
    """Keeps one name for one incarnation, until `release()` or until another holder takes it over."""

    def __init__(self, link: Link, topics: SessionTopics, hold: NameHold, on_fenced: Callable[[str], None]) -> None:
        """`on_fenced` gets the reason when the name is lost; it is called once, on the transport's or the dispatch
        thread."""
        self._link = link
        self._topic = topics.state(hold.name)
        self._hold = hold
        self._on_fenced = on_fenced
        self._seniority = Seniority(hold.incarnation, hold.since, hold.began)
        self._fenced = False
        self._receive = self._on_state
        link.listen(self._topic, self._receive)

    def release(self) -> None:
        """Give up the name; defend it no more."""
        self._fenced = True
        self._link.unlisten(self._topic, self._receive)

    def hear_fence(self, value: object) -> None:
        """Take in a fence message: some process has taken over a name, perhaps this one."""
        match value:
            case {"name": str(name), "epoch": int(epoch), "nodes": list(nodes)}:
                self._link.fence((node for node in nodes if isinstance(node, str)), name)
                own = name == self._hold.name and self._link.node in nodes
                if own and can_follow(self._hold.epoch, epoch) and epoch > self._hold.epoch:
                    self._yield("another process has taken it over")

    def _on_state(self, inbound: Inbound) -> None:
        value = inbound.take()
        if is_notice(value):
            return
        announced = Announcement.from_value(value)
        if announced is None or not can_follow(self._hold.epoch, announced.epoch):
            self._link.repeat(self._topic)  # cleared by another process, not an announcement, or of an impossible epoch
        elif announced.epoch > self._hold.epoch:
            self._yield(f"a newer process holds it: {_where(announced)}")
        elif self._hold.rivals(announced) and self._seniority.yields_to(
            announced.incarnation, announced.about, uptime()
        ):
            self._yield(f"a process that was away has held it for longer: {_where(announced)}")
        elif announced.incarnation != self._hold.incarnation or announced.state is State.LOST:
            # A predecessor's will or announcement, or our own will: the broker noticed the end of an earlier
            # connection. Or a rival that does not know yet how long we have held the name.
            self._link.repeat(self._topic, self._seniority.facts(uptime()))

    def _yield(self, why: str) -> None:
        if not self._fenced:
            self._fenced = True
            logger.error("%s gives up its name: %s", self._hold.name, why)
            self._on_fenced(why)


def _where(holder: Announcement) -> str:
    return f"{holder.about.get('host', 'an unknown host')}, pid {holder.about.get('pid', 'unknown')}"


def fence_of(announcement: Announcement, epoch: int) -> dict[str, object]:
    """The message that fences the process of an announcement; `epoch` is that of its successor."""
    node = announcement.about.get("node")
    return {"name": announcement.name, "epoch": epoch, "nodes": [node] if isinstance(node, str) else []}
