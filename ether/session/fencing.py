"""One name, one holder: what an instance does about others that announce themselves under its name.

Who takes a name over says so to everybody (`control/fence`): from then on every process refuses what the earlier
holder's process sends, and that process stops itself as soon as it hears of it. The announcement under the name is
kept true by its holder: whoever writes over it with an earlier epoch (a dead predecessor's will, a ghost) is
written over again.

Two of the same epoch hold the name where neither could hear the other when it began: the broker had forgotten the one
that was away. Then the one that has held it for longer goes on, and the other one stops itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ether.connection.link import Inbound, Link
from ether.log import get_ether_logger
from ether.protocol.presence import HOLDS_ITS_NAME, Announcement, State
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

FENCE = "fence"
"""The control verb: `{"name", "epoch", "nodes"}`."""


@dataclass(frozen=True, slots=True)
class NameHold:
    """Who holds a name: under which birth and epoch, since when (seconds of the epoch of Unix)."""

    name: str
    incarnation: str
    epoch: int
    since: float

    def yields_to(self, said: Announcement) -> bool:
        """Whether another holder of the same epoch counts for more: it has held the name for longer."""
        since = said.about.get("since")
        if said.state not in HOLDS_ITS_NAME or said.epoch != self.epoch or not isinstance(since, (int, float)):
            return False
        return said.incarnation != self.incarnation and (since, said.incarnation) < (self.since, self.incarnation)


class NameClaim:
    """Holds one name for one birth. `on_fenced` is called on the transport's or the dispatch thread, once."""

    def __init__(self, link: Link, topics: SessionTopics, hold: NameHold, on_fenced: Callable[[str], None]) -> None:
        self._link = link
        self._topic = topics.state(hold.name)
        self._hold = hold
        self._on_fenced = on_fenced
        self._fenced = False
        self._receive = self._on_state
        link.listen(self._topic, self._receive)

    def release(self) -> None:
        """The name is given up."""
        self._fenced = True
        self._link.unlisten(self._topic, self._receive)

    def hear_fence(self, value: object) -> None:
        """Somebody took over a name, perhaps this one."""
        match value:
            case {"name": str(name), "epoch": int(epoch), "nodes": list(nodes)}:
                self._link.fence(node for node in nodes if isinstance(node, str))
                if name == self._hold.name and epoch > self._hold.epoch:
                    self._yield("another process has taken it over")

    def _on_state(self, inbound: Inbound) -> None:
        value = inbound.take()
        said = Announcement.from_value(value)
        if said is None:
            self._link.repeat(self._topic)
        elif said.epoch > self._hold.epoch:
            self._yield(f"a newer process holds it: {_where(said)}")
        elif self._hold.yields_to(said):
            self._yield(f"a process that was away has held it for longer: {_where(said)}")
        elif said.incarnation != self._hold.incarnation or said.state is State.LOST:
            self._link.repeat(self._topic)

    def _yield(self, why: str) -> None:
        if not self._fenced:
            self._fenced = True
            logger.error("%s gives up its name: %s", self._hold.name, why)
            self._on_fenced(why)


def _where(said: Announcement) -> str:
    return f"{said.about.get('host', 'an unknown host')}, pid {said.about.get('pid', 'unknown')}"


def fence_of(announcement: Announcement, epoch: int) -> dict[str, object]:
    """The message that fences the process which announced itself so."""
    node = announcement.about.get("node")
    return {"name": announcement.name, "epoch": epoch, "nodes": [node] if isinstance(node, str) else []}
