"""Saves on the answering side: each is run once per call id, whatever is restarted in between.

Before the method runs, the journal of its instance is asked, and notes that it is begun; before the answer leaves, it
notes what came of it.

Promises: a call that was finished before gets the answer that it had then; one that was begun and not finished is
answered with `Interrupted`, and not run. Where the journal cannot be written the call is answered with an error that
names the file and the cause, and the instance lives.

The trap: both notes wait for the disk, on the worker. That is what a save costs more than a `get`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ether.errors import DecodeError, EncodeError, EtherError, TransportError
from ether.log import get_ether_logger
from ether.protocol.answers import INTERRUPTED, UNKEPT, ErrorReport
from ether.wire.codec import Body, decode, encode

if TYPE_CHECKING:
    from ether.calls.durable_journal import CallJournal, JournaledResult, JournalEntry

logger = get_ether_logger("Ether")

Respond = Callable[[object, ErrorReport | None], None]

_AGAIN = "It was not run again."


class InstanceJournal:
    """The journal of one instance, opened when it can be: what is wrong with the disk today may be mended tomorrow."""

    def __init__(self, where: Callable[[], Path]) -> None:
        """`where` finds the file. What keeps it from being opened is logged, and then told to each caller."""
        self._where = where
        self._lock = threading.Lock()
        self._journal: CallJournal | None = None
        try:
            self.id = self.opened().id
        except EtherError as error:
            self.id = ""
            logger.error("saves will be refused: %s", error)

    def opened(self) -> CallJournal:
        """Raises `StoreFailed` and `ConfigError`."""
        with self._lock:
            if self._journal is None:
                from ether.calls.durable_journal import CallJournal

                self._journal = CallJournal(self._where())
            return self._journal

    def close(self) -> None:
        """Let go of the file. Twice is fine."""
        with self._lock:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


class JournaledCall:
    """One save on its way through the worker: `begin`, then `respond`."""

    def __init__(
        self, journal: InstanceJournal, call_id: bytes, call: str, respond: Respond, forget: Callable[[], None]
    ) -> None:
        """`respond` sends the answer; `forget` lets go of a delivery that needs none."""
        self._journal, self._id, self._call = journal, call_id, call
        self._respond, self._forget = respond, forget
        self._begun = False

    def begin(self) -> bool:
        """On disk that it is begun. False where it is not to be run; then it has been answered."""
        try:
            found = self._journal.opened().begin(self._id)
        except EtherError as error:
            self._answer(None, _unkept(error, f"{self._call} was not run"))
            return False
        if isinstance(found, tuple):
            self._answer(*_as_it_was(found, self._call))
            return False
        return self._judge(found)

    def _judge(self, found: JournalEntry) -> bool:
        if found.value == "new":
            self._begun = True
        elif found.value == "running":  # its first delivery will be answered
            self._forget()
        else:
            self._answer(None, ErrorReport(INTERRUPTED, "Interrupted", _WHY[found.value]))
        return self._begun

    def respond(self, value: object, error: ErrorReport | None) -> None:
        """The end: on disk before the answer leaves."""
        if self._begun:
            self._begun = False
            value, error = self._finished(value, error)
        self._answer(value, error)

    def _finished(self, value: object, error: ErrorReport | None) -> tuple[object, ErrorReport | None]:
        try:
            body = encode(value if error is None else error.to_value())
        except EncodeError as unsendable:
            error = ErrorReport("raised", type(unsendable).__name__, str(unsendable))
            body = encode(error.to_value())
        try:
            self._journal.opened().finish(self._id, body, error.class_name if error else None)
        except EtherError as unkept:
            logger.error("%s ran, and that is not on disk: %s", self._call, unkept)
            return None, _unkept(unkept, f"{self._call} was run, and {_outcome(error)}, but that could not be kept")
        return value, error

    def _answer(self, value: object, error: ErrorReport | None) -> None:
        try:
            self._respond(value, error)
        except TransportError as unsent:
            logger.warning(
                "the answer of %s could not be sent, and waits to be asked for again: %s", self._call, unsent
            )


_WHY = {
    "interrupted": f"it had begun when the instance died, and how far it came is not known. {_AGAIN}",
    "forgotten": f"it is older than what the instance remembers, so it may have been run before. {_AGAIN}",
}


def _outcome(error: ErrorReport | None) -> str:
    return "returned" if error is None else f"raised {error.class_name}: {error.message}"


def _unkept(error: EtherError, what: str) -> ErrorReport:
    return ErrorReport(UNKEPT, type(error).__name__, f"{what}: {error}")


def _as_it_was(kept: JournaledResult, call: str) -> tuple[object, ErrorReport | None]:
    """The answer that a call had when it was run."""
    if kept.body is None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(kept.finished))
        why = f"{call} was run at {at}, and what it returned is not kept any more. {_AGAIN}"
        return None, ErrorReport(INTERRUPTED, "Interrupted", why)
    value: Body = kept.body
    try:
        answer = decode(value.payload, value.content_type)
    except DecodeError as error:
        return None, ErrorReport(UNKEPT, "DecodeError", f"{call} was run, and its answer cannot be read: {error}")
    return (answer, None) if kept.error is None else (None, ErrorReport.from_value(answer))
