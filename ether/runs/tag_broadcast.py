"""The barrier between two trials: broadcasts a run's tag to every instance, and waits until all have taken it on.

Promises: when `broadcast()` returns, every instance that was ready has taken on the tag, and all data that it saved
under the former tag is on disk. An instance that starts later finds the tag in a retained message.

The trap: instances take on a tag in line with their other work, so that a handler's data keeps the tag under which the
handler began. An instance whose handler never ends (a stream) would never answer. After `PATIENCE_S` it is asked to
switch at once, and so for every further tag until it answers that it is no longer busy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from ether.connection.deadline import Deadline
from ether.errors import TransportError, TrialNotReady
from ether.log import get_ether_logger
from ether.protocol.presence import TAKES_PART, State
from ether.recording.tags import TRIAL, TRIAL_NOW, Tag
from ether.recording.writer import RecordWriter
from ether.session.client import Client

logger = get_ether_logger("Ether")

PATIENCE_S = 1.0
"""How long a worker may take to reach the request in its queue. After that, its handler counts as one without end."""

_ANSWER_S = 4.0
"""How long an instance may take to switch at once and answer."""
_PAUSE_S = 0.2
"""Before instances are asked again."""


class TagBroadcast:
    """Broadcasts the tags of one run."""

    def __init__(self, client: Client, record_writer: RecordWriter) -> None:
        self._session = client.session
        self._link, self._topic = client.link, client.topics.run
        self._record_writer = record_writer
        self._switch_at_once: set[str] = set()
        """Instances whose worker did not reach the last request in time."""

    def broadcast(self, tag: Tag, timeout_s: float, what: str) -> None:
        """Make every ready instance take on a tag, this program included. Raises `TrialNotReady` for the step `what`,
        which names each instance that has not taken it on within `timeout_s` seconds, and why."""
        deadline = Deadline(timeout_s)
        own = self._record_writer.tagging.take(tag)
        pending: dict[str, str] = dict.fromkeys(self._ready(), "it did not answer")
        while pending:
            pending = self._ask(tag, pending, deadline)
            if pending and deadline.passed:
                raise TrialNotReady(what, "begin or end", pending)
            # An instance that is no longer ready is not awaited here: `Trials` notices it (`left_out`) and awaits it.
            pending = {name: why for name, why in pending.items() if name in self._ready()}
        if left := self._record_writer.settle(own, deadline):
            raise TrialNotReady(what, "begin or end", {self._link.source: f"{left} of its entries are not on disk"})
        self._announce(tag)

    def clear(self) -> None:
        """The run is over: remove the retained tag."""
        self._link.leave_to_others(self._topic)
        try:
            if self._link.transport.connected:
                self._link.withdraw(self._topic)
        except TransportError as error:
            logger.warning("the broker still holds the tag of a run that is over: %s", error)

    def incarnations(self) -> dict[str, str]:
        """The instances that take part in the session now, each with its incarnation."""
        return {
            member.name: member.incarnation
            for member in self._session.announcements()
            if member.kind == "instance" and member.state in TAKES_PART
        }

    def left_out(self, expected: Iterable[str], incarnations: Mapping[str, str]) -> list[str]:
        """The instances of `expected` that `incarnations` lack, without those that have stopped in an orderly way."""
        missing = [(name, self._session.announcement(name)) for name in expected if name not in incarnations]
        return [name for name, known in missing if known is not None and known.state is not State.STOPPED]

    def await_back(self, expected: Iterable[str], deadline: Deadline, what: str) -> None:
        """Wait until each instance of `expected` is ready, or has stopped in an orderly way. Raises `TrialNotReady`."""

        def not_ready() -> dict[str, str]:
            found = {name: self._session.announcement(name) for name in expected}
            return {
                name: f"it is {known.state.value}{f': {known.error}' if known.error else ''}"
                for name, known in found.items()
                if known is not None and known.state not in (State.READY, State.STOPPED)
            }

        self._session.await_change(lambda: not not_ready(), deadline.left())
        if missing := not_ready():
            raise TrialNotReady(what, "begin", missing)

    def _announce(self, tag: Tag) -> None:
        try:
            # With the name of the program, after whose death a later leader clears it (`ether.session.reaper`).
            self._link.announce(self._topic, {**tag.to_value(), "program": self._link.source})
        except TransportError as error:  # the link repeats it as soon as it is connected
            logger.debug("the tag of %s could not be announced yet: %s", tag.run, error)

    def _ready(self) -> list[str]:
        return sorted(self.incarnations())

    def _ask(self, tag: Tag, names: Collection[str], deadline: Deadline) -> dict[str, str]:
        """One round of requests; returns the instances that have to be asked again, each with the reason."""
        again: dict[str, str] = {}
        if in_line := [name for name in names if name not in self._switch_at_once]:
            again |= self._ask_as(TRIAL, tag, in_line, deadline)
        # Selected only now: instances that have just not answered in line are asked to switch at once in the same
        # round.
        if at_once := [name for name in names if name in self._switch_at_once]:
            again |= self._ask_as(TRIAL_NOW, tag, at_once, deadline)
        return again

    def _ask_as(self, verb: str, tag: Tag, names: list[str], deadline: Deadline) -> dict[str, str]:
        """Send one request to several instances. An answer may say three things: `unsaved`, the number of entries under
        the former tag that are not on disk; `failed`; and `busy`, that the worker is still inside of a handler."""
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
        self._switch_at_once -= {name for name, answer in barrier.answers.items() if not answer.facts.get("busy")}
        # Silence means a handler without end only where the request has reached the broker. Then the request to switch
        # at once follows without a pause; all other reasons need time to go away.
        if verb == TRIAL and self._link.offline_since is None:
            self._switch_at_once |= set(barrier.missing)
        elif unsaved or failed or barrier.missing:
            self._pause(lambda: False, deadline)
        return {**unsaved, **failed, **dict.fromkeys(barrier.missing, "it did not answer")}

    def _pause(self, until: Callable[[], bool], deadline: Deadline) -> None:
        """Wait a moment before the next round, or less: `until` the condition holds."""
        self._session.await_change(until, min(_PAUSE_S, deadline.left()))
