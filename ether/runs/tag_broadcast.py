"""The barrier between two trials: broadcasts a run's tag to every instance, and waits until all have taken it on, and
until everything that the trial before has caused is finished.

When a trial has come to rest is decided in `ether.protocol.trial_rest`. The first wave of questions is the change of
the tag itself, so that a trial whose instances have sent nothing on costs nothing more.

Promises: when `broadcast()` returns, every instance that was ready has taken on the tag, and all data that it saved
under the former tag is on disk. An instance that starts later finds the tag in a retained message.

The trap: instances take on a tag in line with their other work, so that a handler's data keeps the tag under which the
handler began. An instance whose handler never ends (a stream) would never answer. After `PATIENCE_S` it is asked to
switch at once, and so for every further tag until it answers that it is no longer busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ether.connection.deadline import Deadline
from ether.errors import TransportError, TrialNotReady
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.protocol.presence import TAKES_PART, State
from ether.protocol.trial_rest import SILENT, UNSAVED, TrialRest
from ether.recording.tags import TRIAL, TRIAL_NOW, TRIAL_WORK, Tag
from ether.recording.writer import RecordWriter
from ether.session.client import Client

logger = get_ether_logger("Ether")

PATIENCE_S = 1.0
"""How long a worker may take to reach the request in its queue. After that, its handler counts as one without end."""

_ANSWER_S = 4.0
"""How long an instance may take to switch at once and answer."""
_PAUSE_S = 0.2
"""Before instances are asked again."""
_WAVE_S, _WAVE_SHARE = 0.05, 0.2
"""Between two questions what is left of a trial: a share of the time waited so far, and at most so long."""
_LATE_S = 0.5
"""What has not arrived after so long is asked for; before that it is on its way."""
_TELL_S = 5.0
"""After so long it is logged what a trial waits for."""
_LEAST_S = 0.01


class TagBroadcast:
    """Broadcasts the tags of one run."""

    def __init__(self, client: Client, record_writer: RecordWriter) -> None:
        self._session = client.session
        self._link, self._topic = client.link, client.topics.run
        self._record_writer = record_writer
        self._switch_at_once: set[str] = set()
        """Instances whose worker did not reach the last request in time."""
        self._stragglers: set[str] = set()
        """Instances that had not finished what the last trial had caused, when the time was over."""

    def broadcast(self, tag: Tag, timeout_s: float, what: str, ended: Sequence[str] = ()) -> Mapping[str, str]:
        """Make every ready instance take on a tag, this program included, and wait until what the trials `ended` (their
        origins) have caused is finished. Returns what is not, by instance, after `timeout_s` seconds.

        Raises `TrialNotReady` for the step `what`, which names each instance that has not taken the tag on within
        `timeout_s` seconds, or not saved what it had, and why."""
        deadline, own = Deadline(timeout_s), self._record_writer.tagging.take(tag)
        rest = TrialRest(ended[-1]) if ended else None
        question = {"tag": tag.to_value(), **(self._question(rest) if rest is not None else {})}
        answers: dict[str, Answer] = {}
        pending: dict[str, str] = dict.fromkeys(self._ready(), SILENT)
        while pending:
            pending = self._ask(question, pending, deadline, answers)
            if pending and deadline.passed:
                raise TrialNotReady(what, "begin or end", pending)
            # An instance that is no longer ready is not awaited here: `Trials` notices it (`left_out`) and awaits it.
            pending = {name: why for name, why in pending.items() if name in self._ready()}
        if left := self._record_writer.settle(own, deadline):
            raise TrialNotReady(what, "begin or end", {self._link.source: f"{left} of its entries are not on disk"})
        self._announce(tag)
        if rest is None:
            return {}
        self._hear(rest, answers)
        unfinished = dict(self.await_work(rest.origin, deadline, what, rest))
        for origin in reversed(ended[:-1]):
            unfinished |= self.await_work(origin, deadline, what)
        return unfinished

    def switch(self, tag: Tag, timeout_s: float, what: str) -> None:
        """Make every ready instance take on a tag at once, also while it is busy, and wait for nothing else. Raises
        `TrialNotReady` as `broadcast` does."""
        deadline = Deadline(timeout_s)
        self._record_writer.tagging.take(tag)
        question, pending = {"tag": tag.to_value(), "waits": False}, dict.fromkeys(self._ready(), SILENT)
        while pending:
            pending = self._ask_as(TRIAL_NOW, question, sorted(pending), deadline, {})
            if pending and deadline.passed:
                raise TrialNotReady(what, "begin or end", pending)
            pending = {name: why for name, why in pending.items() if name in self._ready()}
        self._announce(tag)

    def await_work(
        self, origin: str, deadline: Deadline, what: str, rest: TrialRest | None = None
    ) -> Mapping[str, str]:
        """Wait until everything that a trial has caused is finished, and on disk. Returns what is not finished when the
        time is over, by instance; raises `TrialNotReady` where something is not on disk then. An instance that was not
        finished at the end of an earlier trial is waited for `PATIENCE_S` only. `rest`: as a first wave has found."""
        began, asked, told = time.monotonic(), rest is not None, False
        rest = rest or TrialRest(origin)
        while not rest.at_rest:
            waited_s = time.monotonic() - began
            known = rest.unfinished and self._stragglers.issuperset(rest.unfinished)
            if asked and (deadline.passed or (known and waited_s > PATIENCE_S)):
                break
            if asked:
                self._pause(lambda: False, deadline, min(_WAVE_S, waited_s * _WAVE_SHARE))
            self._ask_for_work(rest, deadline, late=waited_s > _LATE_S)
            asked = True
            if waited_s > _TELL_S and rest.unfinished and not told:
                told = True
                works = "; ".join(f"{name}: {why}" for name, why in rest.unfinished.items())
                logger.info("%s is over when what it caused is finished, in %.0f s at the latest. It waits for %s",
                            what, deadline.left(), works)  # fmt: skip
        if rest.unsaved:
            raise TrialNotReady(what, "begin or end", rest.unsaved)
        self._stragglers = set(rest.unfinished)
        return rest.unfinished

    def _ask_for_work(self, rest: TrialRest, deadline: Deadline, *, late: bool) -> None:
        """One wave of questions what is left of a trial; `late` as in `TrialRest.question`."""
        question, names = self._question(rest, late=late), self._ready()
        try:
            barrier = self._session.ask(TRIAL_WORK, names, min(_ANSWER_S, max(deadline.left(), PATIENCE_S)), question)
        except TransportError as error:
            self._pause(lambda: self._link.transport.connected, deadline)
            rest.unfinished, rest.unsaved = dict.fromkeys(names, str(error)), {}
            return
        self._hear(rest, barrier.answers, barrier.missing)

    def _question(self, rest: TrialRest, *, late: bool = False) -> dict[str, Any]:
        caused = self._link.caused
        # The program's own calls come first: an instance has told what it has published before it answers a call.
        works = caused.in_work(rest.origin)
        own = {self._link.source: f"{works[0].what}, for {time.monotonic() - works[0].since:.1f} s"} if works else {}
        return rest.question(self._link.node, caused.sent_of(rest.origin), own, late=late)

    def _hear(self, rest: TrialRest, answers: Mapping[str, Answer], missing: Iterable[str] = ()) -> None:
        rest.hear(answers, missing, self._link.node, self._link.caused.sent_of(rest.origin))

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

    def _ask(
        self, question: Mapping[str, Any], names: Collection[str], deadline: Deadline, answers: dict[str, Answer]
    ) -> dict[str, str]:
        """One round of requests; returns the instances that have to be asked again, each with the reason. Adds to
        `answers`."""
        again: dict[str, str] = {}
        if in_line := [name for name in names if name not in self._switch_at_once]:
            again |= self._ask_as(TRIAL, question, in_line, deadline, answers)
        # Selected only now: instances that have just not answered in line are asked to switch at once in the same
        # round.
        if at_once := [name for name in names if name in self._switch_at_once]:
            again |= self._ask_as(TRIAL_NOW, question, at_once, deadline, answers)
        return again

    def _ask_as(
        self, verb: str, question: Mapping[str, Any], names: list[str], deadline: Deadline, answers: dict[str, Answer]
    ) -> dict[str, str]:
        """Send one request to several instances. An answer may say three things: `unsaved`, the number of entries under
        the former tag that are not on disk; `failed`; and `busy`, that the worker is still inside of a handler."""
        patience_s = min(PATIENCE_S if verb == TRIAL else _ANSWER_S, max(deadline.left(), _LEAST_S))
        try:
            barrier = self._session.ask(verb, names, patience_s, question)
        except TransportError as error:
            self._pause(lambda: self._link.transport.connected, deadline)
            return dict.fromkeys(names, str(error))
        answers |= barrier.answers
        unsaved = {
            name: f"{answer.facts.get(UNSAVED)} of its entries are not on disk"
            for name, answer in barrier.answers.items()
            if answer.facts.get(UNSAVED)
        }
        failed = {name: "; ".join(answer.failed.values()) for name, answer in barrier.answers.items() if answer.failed}
        self._switch_at_once -= {name for name, answer in barrier.answers.items() if not answer.facts.get("busy")}
        # Silence means a handler without end only where the request has reached the broker. Then the request to switch
        # at once follows without a pause; all other reasons need time to go away.
        if verb == TRIAL and self._link.offline_since is None:
            self._switch_at_once |= set(barrier.missing)
        elif unsaved or failed or barrier.missing:
            self._pause(lambda: False, deadline)
        return {**unsaved, **failed, **dict.fromkeys(barrier.missing, SILENT)}

    def _pause(self, until: Callable[[], bool], deadline: Deadline, pause_s: float = _PAUSE_S) -> None:
        """Wait a moment before the next round, or less: `until` the condition holds."""
        self._session.await_change(until, min(pause_s, deadline.left()))
