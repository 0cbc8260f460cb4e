"""What is noted beside every entry: the session's run, and while a named run goes on, that run and its trial (the tag).

A message carries no header for it: each process notes the tag that it was last given. The program of the run sends
every instance a tag. The instance takes it on when its worker comes to that request, behind all work that it had been
given before (`TRIAL`), or, where the worker stays busy, at once (`TRIAL_NOW`). A retained message gives the tag to
processes that join later.

Promises: an entry that a handler makes carries the tag under which the handler began, if the handler ends before the
program's patience does. The answer says how many entries made under the former tags are not on disk yet.

The trap: a tag may arrive twice and late. Turns only rise within a run; a tag with an older turn is ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer

logger = get_ether_logger("Ether")

TRIAL = "trial"
"""The control verb by which an instance takes on a tag, in line with its other work."""

TRIAL_NOW = "trial-now"
"""The same, at once."""

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
        return found if self.trial is None else {**found, "trial": self.trial, "attempt": self.attempt}


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
        """What is noted beside every entry from now on."""

    def take(self, tag: Tag) -> int:
        """Note this tag beside entries from now on, unless it is older than the present one; returns the number of the
        last entry under the former tag."""
        with self._lock:
            known = self._tag
            if known is None or known.run != tag.run or known.turn < tag.turn:
                self._tag, self._before = tag, self._highest()
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


def tag_answer(writer: TaggedWriter | None, value: object, settle_s: float, *, busy: bool = False) -> Answer:
    """Take on the tag that was sent, and answer how many entries of the former tag are not on disk after `settle_s`
    seconds. `writer` is None for an instance that saves nothing; `busy` says that its worker is in a handler."""
    tag = Tag.from_value(value.get("tag")) if isinstance(value, dict) else None
    if tag is None:
        return Answer(failed={TRIAL: f"this is no tag: {value!r:.100}"})
    unsaved = 0 if writer is None else writer.settle(writer.tagging.take(tag), Deadline(settle_s))
    return Answer((TRIAL,), facts={"unsaved": unsaved, "busy": int(busy)})
