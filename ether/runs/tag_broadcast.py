"""Bringing a tag to everybody: the boundary between two trials.

Promises: when `spread()` returns, every instance that was ready has taken the tag on, and all that it made under the
former one is on disk. Who comes later finds the tag retained. The trap: an instance whose worker never ends its
handler (a stream) would never answer in line; after `PATIENCE_S` it is asked to switch at once, as long as it is busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ether.connection.deadline import Deadline
from ether.errors import TransportError, TrialNotReady
from ether.log import get_ether_logger
from ether.protocol.presence import TAKES_PART, State
from ether.recording.tags import TRIAL, TRIAL_NOW, Tag
from ether.recording.writer import RecordWriter
from ether.session.client import Client

logger = get_ether_logger("Ether")

PATIENCE_S = 1.0
"""How long a worker may take to come to the question. Beyond it is taken for one whose handler does not end."""

_ANSWER_S = 4.0
_PAUSE_S = 0.2


class TagBroadcast:
    """Tags for one run."""

    def __init__(self, client: Client, record_writer: RecordWriter) -> None:
        self._session = client.session
        self._link, self._topic = client.link, client.topics.run
        self._record_writer = record_writer
        self._at_once: set[str] = set()

    def spread(self, tag: Tag, timeout_s: float, what: str) -> None:
        """Bring it to all. Raises `TrialNotReady`, which names who has not taken it on; `what` is whose tag it is."""
        deadline = Deadline(timeout_s)
        own = self._record_writer.tagging.take(tag)
        asked: dict[str, str] = dict.fromkeys(self._ready(), "it did not answer")
        while asked:
            asked = self._ask(tag, asked, deadline)
            if asked and deadline.passed:
                raise TrialNotReady(what, "begin or end", asked)
            asked = {name: why for name, why in asked.items() if name in self._ready()}
        if left := self._record_writer.settle(own, deadline):
            raise TrialNotReady(what, "begin or end", {self._link.source: f"{left} of its entries are not on disk"})
        self._announce(tag)

    def clear(self) -> None:
        """No run goes on any more."""
        self._link.leave_to_others(self._topic)
        try:
            if self._link.transport.connected:
                self._link.withdraw(self._topic)
        except TransportError as error:
            logger.warning("the broker still holds the tag of a run that is over: %s", error)

    def incarnations(self) -> dict[str, str]:
        """The instances that are ready, each with its birth."""
        return {
            member.name: member.incarnation
            for member in self._session.announcements()
            if member.kind == "instance" and member.state in TAKES_PART
        }

    def left_out(self, expected: Iterable[str], incarnations: Mapping[str, str]) -> list[str]:
        """Who of these was not there when `incarnations` were looked up, although nobody has said that it left."""
        missing = [(name, self._session.announcement(name)) for name in expected if name not in incarnations]
        return [name for name, known in missing if known is not None and known.state is not State.STOPPED]

    def await_back(self, expected: Iterable[str], deadline: Deadline, what: str) -> None:
        """Wait until everybody of these is ready who is known and has not left. Raises `TrialNotReady`."""

        def away() -> dict[str, str]:
            found = {name: self._session.announcement(name) for name in expected}
            return {
                name: f"it is {known.state.value}{f': {known.error}' if known.error else ''}"
                for name, known in found.items()
                if known is not None and known.state not in (State.READY, State.STOPPED)
            }

        self._session.await_change(lambda: not away(), deadline.left())
        if missing := away():
            raise TrialNotReady(what, "begin", missing)

    def _announce(self, tag: Tag) -> None:
        try:
            self._link.announce(self._topic, tag.to_value())
        except TransportError as error:  # it is repeated as soon as there is a connection
            logger.debug("the tag of %s could not be announced yet: %s", tag.run, error)

    def _ready(self) -> list[str]:
        return sorted(self.incarnations())

    def _ask(self, tag: Tag, whom: dict[str, str], deadline: Deadline) -> dict[str, str]:
        """One round; who is to be asked again, and why."""
        again: dict[str, str] = {}
        for verb, chosen in ((TRIAL, self._in_line), (TRIAL_NOW, self._at_once.__contains__)):
            if names := [name for name in whom if chosen(name)]:
                again |= self._ask_as(verb, tag, names, deadline)
        return again

    def _in_line(self, name: str) -> bool:
        return name not in self._at_once

    def _ask_as(self, verb: str, tag: Tag, names: list[str], deadline: Deadline) -> dict[str, str]:
        patience_s = min(PATIENCE_S if verb == TRIAL else _ANSWER_S, max(deadline.left(), 0.01))
        try:
            barrier = self._session.ask(verb, names, patience_s, {"tag": tag.to_value()})
        except TransportError as error:
            self._pause(lambda: self._link.transport.connected, deadline)
            return dict.fromkeys(names, str(error))
        unsaved = {
            name: f"{answer.facts.get('unsaved')} of its entries are not on disk"
            for name, answer in barrier.answers.items()
            if answer.facts.get("unsaved")
        }
        failed = {name: "; ".join(answer.failed.values()) for name, answer in barrier.answers.items() if answer.failed}
        self._at_once -= {name for name, answer in barrier.answers.items() if not answer.facts.get("busy")}
        if verb == TRIAL and self._link.offline_since is None:
            self._at_once |= set(barrier.missing)
        elif unsaved or failed or barrier.missing:
            self._pause(lambda: False, deadline)
        return {**unsaved, **failed, **dict.fromkeys(barrier.missing, "it did not answer")}

    def _pause(self, until: Callable[[], bool], deadline: Deadline) -> None:
        """Before the next round."""
        self._session.await_change(until, min(_PAUSE_S, deadline.left()))
