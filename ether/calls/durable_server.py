"""The answering side of durable calls: an instance's journal, opened when needed, and one call on its way through it.

Promise: a call is noted in the journal before it runs, and its answer before the answer leaves. A call that arrives
again gets its first answer, or is refused; it is not run again.

The trap: the journal is an SQLite file, and most instances have no method marked `ether_save`. So SQLite is loaded when
a journal is opened, not with this module.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ether.calls.durable_records import JournaledResult, JournalEntry
from ether.errors import DecodeError, EncodeError, EtherError, TransportError
from ether.log import get_ether_logger
from ether.protocol.answers import INTERRUPTED, UNKEPT, UNSENT, ErrorReport
from ether.wire.codec import decode, encode

if TYPE_CHECKING:
    from ether.calls.durable_server_journal import CallJournal

logger = get_ether_logger("Ether")

Respond = Callable[[object, ErrorReport | None], None]

_AGAIN = "It was not run again."
_REFUSALS = {
    JournalEntry.INTERRUPTED: f"it had begun when the instance died, and how far it came is not known. {_AGAIN}",
    JournalEntry.FORGOTTEN: f"it is older than what the instance remembers, so it may have been run before. {_AGAIN}",
}


class InstanceJournal:
    """The journal of one instance. A disk that cannot be used now may work again later, so opening is tried again with
    every call."""

    def __init__(self, where: Callable[[], Path]) -> None:
        """`where` finds the file. An error at this first opening is logged; later ones are each caller's answer."""
        self._where = where
        self._lock = threading.Lock()
        self._journal: CallJournal | None = None
        try:
            self.id = self.opened().id
        except EtherError as error:
            self.id = ""
            logger.error("saves will be refused: %s", error)

    def opened(self) -> CallJournal:
        """The open journal. Raises `StoreFailed` and `ConfigError`."""
        with self._lock:
            if self._journal is None:
                from ether.calls.durable_server_journal import CallJournal

                self._journal = CallJournal(self._where())
            return self._journal

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


class JournaledCall:
    """One durable call on its way through the worker: `begin`, then `respond`."""

    def __init__(
        self, journal: InstanceJournal, call_id: bytes, call: str, respond: Respond, forget: Callable[[], None]
    ) -> None:
        """`respond` sends the answer; `forget` releases a delivery that needs no answer."""
        self._journal, self._id, self._call = journal, call_id, call
        self._respond, self._forget = respond, forget
        self._begun = False

    def begin(self) -> bool:
        """Note on disk that the call begins. False where it must not be run; then it has been answered here."""
        try:
            found = self._journal.opened().begin(self._id)
        except EtherError as error:
            self._answer(None, _unkept(error, f"{self._call} was not run"))
            return False
        if isinstance(found, JournaledResult):
            self._answer(*_stored_answer(found, self._call))
        elif found is JournalEntry.NEW:
            self._begun = True
        elif found is JournalEntry.RUNNING:
            self._forget()  # the answer to its first delivery is the answer to this one, too
        else:
            self._answer(None, ErrorReport(INTERRUPTED, "Interrupted", _REFUSALS[found]))
        return self._begun

    def respond(self, value: object, error: ErrorReport | None) -> None:
        """Note the answer on disk, then send it."""
        if self._begun:
            self._begun = False
            value, error = self._finished(value, error)
        self._answer(value, error)

    def _finished(self, value: object, error: ErrorReport | None) -> tuple[object, ErrorReport | None]:
        """Store the answer; gives the answer to send, which says so where it could not be stored."""
        try:
            body = encode(value if error is None else error.to_value())
        except EncodeError as unsendable:
            error = ErrorReport(UNSENT, type(unsendable).__name__, str(unsendable))
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


def _outcome(error: ErrorReport | None) -> str:
    return "returned" if error is None else f"raised {error.class_name}: {error.message}"


def _unkept(error: EtherError, what: str) -> ErrorReport:
    return ErrorReport(UNKEPT, type(error).__name__, f"{what}: {error}")


def _stored_answer(stored: JournaledResult, call: str) -> tuple[object, ErrorReport | None]:
    """The answer that a call had when it was run."""
    if stored.body is None:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stored.finished))
        why = f"{call} was run at {at}, and what it returned is not kept any more. {_AGAIN}"
        return None, ErrorReport(INTERRUPTED, "Interrupted", why)
    try:
        answer = decode(stored.body.payload, stored.body.content_type)
    except DecodeError as error:
        return None, ErrorReport(UNKEPT, "DecodeError", f"{call} was run, and its answer cannot be read: {error}")
    return (answer, None) if stored.error is None else (None, ErrorReport.from_value(answer))
