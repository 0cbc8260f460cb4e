"""What is noted beside every entry: the session's run, and while a named run goes on, that run and its trial.

A message carries no header for it: each process's saving side is told. The program of the run asks every instance,
which answers when its worker comes to the question, behind all that it had been given before (`TRIAL`), or, where the
worker is busy without an end, at once (`TRIAL_NOW`). A retained message tells whoever comes later.

Promises: what a handler that was begun under one tag keeps, keeps that tag, if it ends before the question's patience
does. The answer says how many entries made under the former tags are not on disk yet.

The trap: a tag may arrive twice and late. Turns only rise within a run; what is older is passed over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter

logger = get_ether_logger("Ether")

TRIAL = "trial"
"""The control verb by which instances take on a tag, in line with their other work."""

TRIAL_NOW = "trial-now"
"""The same, at once."""

SETTLE_S = 0.4
"""How long an instance waits, before it answers, for what it made under the former tag to be on disk."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A run and a trial, `trial` None between two trials. `turn` rises with every change of a run's tags; `goes_on` is
    False in the last one."""

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
        """The tag; None for what is none."""
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
    """The tag of one process, under its owner's lock."""

    def __init__(self, session_run: str, lock: threading.Condition, highest: Callable[[], int]) -> None:
        """`highest` gives the number of the last entry."""
        self._session_run, self._lock, self._highest = session_run, lock, highest
        self._tag: Tag | None = None
        self._before = 0
        self.beside: Mapping[str, object] = session_run_beside(session_run)
        """What is noted beside every entry from now on."""

    def take(self, tag: Tag) -> int:
        """From now on entries belong to that run and trial, unless the tag is older than ours; returns the number of
        the last entry under the former tag."""
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
        """Hear of the tag that is retained, and of its changes."""
        self._receive = self._hear
        link.listen(topic, self._receive, now=self._hear)

    def _hear(self, inbound: Inbound) -> bool:
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


def tag_answer(writer: RecordWriter | None, value: object, settle_s: float, *, busy: bool = False) -> Answer:
    """Take on what is asked, and say how many entries of the former tag are not on disk. `writer` is None for one that
    saves nothing; `busy` says that its worker is in a handler."""
    tag = Tag.from_value(value.get("tag")) if isinstance(value, dict) else None
    if tag is None:
        return Answer(failed={TRIAL: f"this is no tag: {value!r:.100}"})
    unsaved = 0 if writer is None else writer.settle(writer.tagging.take(tag), Deadline(settle_s))
    return Answer((TRIAL,), facts={"unsaved": unsaved, "busy": int(busy)})
