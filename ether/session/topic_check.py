"""Says which topics are probably misspelt, by what the members of the session announce: each once, in the log.

Promise: nothing is asked for, and nothing waits: what is known by now decides. A publisher pays for it at its first
message on a topic alone.

An instance's process knows no other members, unless it makes calls. So it says nothing itself: the topics that its code
uses without a mark are announced (`used`), and the program that has started it compares them (`follow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from ether.log import get_ether_logger
from ether.protocol.presence import Announcement
from ether.protocol.topic_typo_rules import (
    USED,
    TopicTypo,
    TopicUse,
    near_heard,
    near_published,
    topic_typos,
    uses_of,
)
from ether.session.members import Members

logger = get_ether_logger("Ether")

_MOST_CHECKED = 200
"""A program that makes up topics without end does not pay for each of them."""


_MOST_ANNOUNCED = 50

_SOON_S = 0.5
"""Several topics that an instance begins to use together are compared together."""

After = Callable[[float, Callable[[], object]], object]
"""Runs a task after a pause, on another thread."""


class TopicCheck:
    """The topics that one program uses, and those that its instances announce."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._announce: Callable[[], object] | None = None
        self._used: dict[tuple[str, bool], None] = {}
        self._checked: set[tuple[str, bool]] = set()
        self._told: set[tuple[str, bool]] = set()

    def session(self, names: Iterable[str]) -> list[TopicTypo]:
        """The topics that these members, or those that they depend on, have probably misspelt. Each is told once."""
        published, heard = self._uses()
        found = [typo for typo in topic_typos(published, heard) if typo.concerns(names)]
        for typo in found:
            self._tell(typo)
        return found

    # -- an instance's process

    def announce_by(self, announce: Callable[[], object]) -> None:
        """This process is an instance's. `announce` is called when `used()` has changed."""
        self._announce = announce

    def used(self) -> dict[str, object]:
        """What is announced of the topics that this process uses beside those of its marks."""
        published = [topic for topic, hears in list(self._used) if not hears]
        heard = [topic for topic, hears in list(self._used) if hears]
        found = {"publishes": published, "subscribes": heard}
        return {USED: {key: topics for key, topics in found.items() if topics}} if published or heard else {}

    def _leave_to_launcher(self, topic: str, hears: bool) -> bool:
        if self._announce is None:
            return False
        if len(self._used) < _MOST_ANNOUNCED:
            self._used[topic, hears] = None
            self._announce()
        return True

    # -- a program that starts instances

    def follow(self, is_mine: Callable[[str], bool], after: After) -> None:
        """From now on compare what this program's own instances announce that they use while they run."""

        def on_change(member: Announcement) -> None:
            if is_mine(member.name) and member.about.get(USED):
                after(_SOON_S, partial(self.session, [member.name]))

        self._members.watch_fact(USED, on_change)

    # -- any program

    def published(self, topic: str) -> TopicTypo | None:
        """This program publishes on a topic."""
        if (
            self._is_done(topic, False)
            or self._leave_to_launcher(topic, False)
            or self._members.link.listens_to(self._members.topics.data(topic))
        ):
            return None
        published, heard = self._uses()
        return self._tell(near_heard(topic, heard, published))

    def heard(self, topic_filter: str) -> TopicTypo | None:
        """This program listens to a topic or filter."""
        if self._is_done(topic_filter, True) or self._leave_to_launcher(topic_filter, True):
            return None
        return self._tell(self.unpublished(topic_filter))

    def unpublished(self, topic_filter: str) -> TopicTypo | None:
        """The same without a word in the log."""
        published, heard = self._uses()
        return near_published(topic_filter, published, heard)

    def _uses(self) -> tuple[list[TopicUse], list[TopicUse]]:
        members = self._members.announcements()
        return uses_of(members, "publishes"), uses_of(members, "subscribes")

    def _is_done(self, topic: str, hears: bool) -> bool:
        key = topic, hears
        if key in self._checked or len(self._checked) >= _MOST_CHECKED:
            return True
        self._checked.add(key)
        return False

    def _tell(self, typo: TopicTypo | None) -> TopicTypo | None:
        if typo is not None and (key := (typo.topic, typo.hears)) not in self._told:
            self._told.add(key)
            logger.warning("%s", typo)
        return typo
