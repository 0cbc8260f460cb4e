"""One name, one holder: what an instance does about others that announce themselves under its name.

Who takes a name over says so to everybody (`control/fence`): from then on every process refuses what the earlier
holder's process sends, and that process stops itself as soon as it hears of it. The announcement under the name is
kept true by its holder: whoever writes over it with an earlier epoch (a dead predecessor's will, a ghost) is
written over again.
"""

from __future__ import annotations

from collections.abc import Callable

from ether.errors import PayloadError
from ether.logs import get_ether_logger
from ether.protocol.presence import Announcement, State
from ether.runtime.link import Inbound, Link
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

FENCE = "fence"
"""The control verb: `{"name", "epoch", "nodes"}`."""


class OwnName:
    """Holds one name for one birth. `on_fenced` is called on the transport's or the dispatch thread, once."""

    def __init__(
        self, link: Link, topics: SessionTopics, name: str, birth: str, epoch: int, on_fenced: Callable[[str], None]
    ) -> None:
        self._link = link
        self._topic = topics.state(name)
        self._name, self._birth, self._epoch = name, birth, epoch
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
                if name == self._name and epoch > self._epoch:
                    self._yield("another process has taken it over")

    def _on_state(self, inbound: Inbound) -> None:
        try:
            value = inbound.unpack().value
        except PayloadError:
            value = None
        finally:
            inbound.done()
        said = Announcement.from_value(value)
        if said is None:
            self._link.repeat(self._topic)
        elif said.epoch > self._epoch:
            where = f"{said.about.get('host', 'an unknown host')}, pid {said.about.get('pid', 'unknown')}"
            self._yield(f"a newer process holds it: {where}")
        elif said.birth != self._birth or said.state is State.LOST:
            self._link.repeat(self._topic)

    def _yield(self, why: str) -> None:
        if not self._fenced:
            self._fenced = True
            logger.error("%s gives up its name: %s", self._name, why)
            self._on_fenced(why)


def fence_of(announcement: Announcement, epoch: int) -> dict[str, object]:
    """The message that fences the process which announced itself so."""
    node = announcement.about.get("node")
    return {"name": announcement.name, "epoch": epoch, "nodes": [node] if isinstance(node, str) else []}
