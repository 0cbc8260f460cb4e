"""What is noted beside every entry: the session's run, and while a named run goes on, that run and its trial.

An entry whose message was caused by a trial has the trial from its cause (`Headers.origin`), whenever it is made. Any
other entry (of a source that runs by itself, of a thread of an instance) goes by time: its process notes the tag that
it was last given, and beside it `"by": "time"`, because nobody claims that the trial caused it.

The program of the run sends every instance a tag. The instance takes it on when its worker comes to that request,
behind all work that it had been given before (`TRIAL`), or, where the worker stays busy, at once (`TRIAL_NOW`). A
retained message gives the tag to processes that join later. `TRIAL_WORK` asks what is left of a trial's work.

Promises: an entry that goes by time carries the tag under which its handler began, if the handler ends before the
program's patience does. An answer says how many of the entries so far are not on disk yet.

The trap: a tag may arrive twice and late. Turns only rise within a run; a tag with an older turn is ignored.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.protocol.trial_rest import LEFT, LONGEST, SENT, UNSAVED
from ether.wire.origin import TrialOrigin, read, text_of

logger = get_ether_logger("Ether")

TRIAL = "trial"
"""The control verb by which an instance takes on a tag, in line with its other work."""

TRIAL_NOW = "trial-now"
"""The same, at once."""

TRIAL_WORK = "trial-work"
"""The control verb that asks what is left of a trial's work; answered at once."""

BY, BY_TIME = "by", "time"
"""Stands beside an entry that has its trial by the time at which it was made, and not from its cause."""

_REMEMBERED = 64

SETTLE_S = 0.4
"""How long an instance waits, before it answers, until its entries of the former tag are on disk."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A run and a trial; `trial` is None between two trials. `turn` rises with every tag of a run; `goes_on` is False
    in its last one."""

    run: str
    turn: int
    trial: int | None = None
    attempt: int = 1
    goes_on: bool = True

    def to_value(self) -> dict[str, Any]:
        """As it is sent."""
        return {
            "run": self.run, "turn": self.turn, "trial": self.trial, "attempt": self.attempt, "goes_on": self.goes_on
        }  # fmt: skip

    @classmethod
    def from_value(cls, value: object) -> Tag | None:
        """The inverse of `to_value`; None for any other value."""
        match value:
            case {
                "run": str(run), "turn": int(turn), "trial": None | int() as trial, "attempt": int(attempt),
                "goes_on": bool(goes_on),
            }:  # fmt: skip
                return cls(run, turn, trial, attempt, goes_on)
        return None

    def beside(self, session_run: str) -> dict[str, object]:
        """What is noted beside an entry."""
        if not self.goes_on:
            return session_run_beside(session_run)
        found: dict[str, object] = {"run": self.run, "session_run": session_run}
        return found if self.trial is None else {**found, "trial": self.trial, "attempt": self.attempt, BY: BY_TIME}

    @property
    def origin(self) -> str | None:
        """The origin of what this trial causes; None between two trials."""
        return None if self.trial is None else text_of(TrialOrigin(self.run, self.trial, self.attempt))


def session_run_beside(session_run: str) -> dict[str, object]:
    """What is noted beside an entry while no named run goes on."""
    return {"run": session_run} if session_run else {}


class RecordTags:
    """The tag of one process."""

    def __init__(self, session_run: str, lock: threading.Condition, highest: Callable[[], int]) -> None:
        """`lock` is the one under which entries get their numbers, so that each number is on one side of a change of
        tags; `highest` gives the last number."""
        self._session_run, self._lock, self._highest = session_run, lock, highest
        self._tag: Tag | None = None
        self._before = 0
        self.beside: Mapping[str, object] = session_run_beside(session_run)
        """What is noted beside every entry from now on that has no trial from its cause."""
        self._caused: tuple[str, Mapping[str, object]] = "", {}
        """The last origin, and what is noted for it: many entries share one, which is read once."""
        self._last: OrderedDict[str, int] = OrderedDict()
        """The number of the last entry of each origin, for the latest ones."""

    def beside_caused(self, origin: str, number: int) -> Mapping[str, object]:
        """What is noted beside the entry `number`, which has an origin. Called under the lock, with rising numbers."""
        self._note_last(origin, number)
        known, noted = self._caused
        if known != origin:
            run, trial, attempt, *_ = read(origin)
            if run is None:
                return self.beside
            noted = {"run": run, "session_run": self._session_run, "trial": trial, "attempt": attempt}
            self._caused = origin, noted
        return noted

    def _note_last(self, origin: str, number: int) -> None:
        self._last[origin] = number
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def last_of(self, origin: str) -> int:
        """A number up to which all entries of this trial are so far; 0 for none."""
        with self._lock:
            return self._last.get(origin, 0)

    def take(self, tag: Tag) -> int:
        """Note this tag beside entries from now on, unless it is older than the present one; returns the number of the
        last entry under the former tag."""
        with self._lock:
            known = self._tag
            if known is None or known.run != tag.run or known.turn < tag.turn:
                self._tag, self._before = tag, self._highest()
                if known is not None and (origin := known.origin) is not None:
                    self._note_last(origin, self._before)  # those that go by time, too
                self.beside = tag.beside(self._session_run)
            return self._before

    def drop(self) -> None:
        """No named run goes on any more."""
        with self._lock:
            self._tag, self.beside = None, session_run_beside(self._session_run)

    def listen(self, link: Link, topic: str) -> None:
        """Follow the retained tag and its changes."""
        self._receive = self._on_tag
        link.listen(topic, self._receive, now=self._on_tag)

    def _on_tag(self, inbound: Inbound) -> bool:
        """On the transport's thread."""
        try:
            value = inbound.unpack().value
        except PayloadError as error:
            logger.warning("which run goes on cannot be read: %s", error)
            return True
        finally:
            inbound.done()
        if value is None:
            self.drop()
        elif (tag := Tag.from_value(value)) is not None:
            self.take(tag)
        return True


class TaggedWriter(Protocol):
    """The part of a record writer that a change of tags needs."""

    @property
    def tagging(self) -> RecordTags: ...
    def settle(self, number: int, deadline: Deadline) -> int: ...
    def unsettled(self, origin: str) -> int: ...


def tag_answer(
    writer: TaggedWriter | None, value: object, settle_s: float, work: TrialWork, *, busy: bool = False
) -> Answer:
    """Take on the tag that was sent, and answer how many entries of the former tag are not on disk after `settle_s`
    seconds (with `"waits": false` nobody waits for them), and what is left of the trial that ends. `writer` is None for
    an instance that saves nothing; `busy` says that its worker is in a handler."""
    tag = Tag.from_value(value.get("tag")) if isinstance(value, dict) else None
    if tag is None or not isinstance(value, dict):
        return Answer(failed={TRIAL: f"this is no tag: {value!r:.100}"})
    unsaved = 0
    if writer is not None:
        before = writer.tagging.take(tag)
        unsaved = writer.settle(before, Deadline(settle_s)) if value.get("waits") is not False else 0
    return work.answer({UNSAVED: unsaved, "busy": int(busy)})


def work_answer(writer: TaggedWriter | None, work: TrialWork) -> Answer:
    """Answer `TRIAL_WORK`, without any wait."""
    of = work.origin
    unsaved = 0 if writer is None or of is None or work.is_left() else writer.unsettled(of)
    return work.answer({UNSAVED: unsaved})


class TrialWork:
    """What is left of one trial's work in one process, as a request asks for it: `{"of": origin, "heads": …, "late":
    …}`, the last numbers of what others have sent, and whether what has not arrived is to be asked for."""

    def __init__(self, link: Link, value: object) -> None:
        """To be made when the request arrives: what had arrived before is in work then, or finished."""
        asked = value if isinstance(value, dict) else {}
        of = asked.get("of")
        self.origin = of if isinstance(of, str) else None
        self._link = link
        self._behind = 0 if self.origin is None else link.lacks(asked.get("heads"), ask=asked.get("late") is True)

    def is_left(self) -> bool:
        """Whether there is anything."""
        return self.origin is not None and bool(self._behind or self._link.caused.in_work(self.origin))

    def answer(self, facts: dict[str, int]) -> Answer:
        """The answer: `left`, how much there is, `sent`, the last numbers that this process has sent, and what is
        longest in work, for people."""
        if self.origin is None:
            return Answer((TRIAL,), facts=facts)
        works = self._link.caused.in_work(self.origin)  # before `sent`: what a handler sends comes before its end
        results: dict[str, Any] = {SENT: {self._link.node: self._link.caused.sent_of(self.origin)}}
        if works:
            oldest = works[0]
            results[LONGEST] = {"what": oldest.what, "for_s": round(time.monotonic() - oldest.since, 3)}
        return Answer((TRIAL,), facts={**facts, LEFT: len(works) + self._behind}, results=results)
