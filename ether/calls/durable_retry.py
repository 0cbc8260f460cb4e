"""Sends saves again until they are answered: the calls under way, their file, and the thread that looks after them.

The thread begins with a save and ends when nothing is under way. A call is due when the connection is back, when
its instance is ready again, and after pauses that grow to half a minute.

Promises: a call that was sent to an instance is never sent to another one, nor to the same name with another journal:
it may have begun there. What a program does not wait for any more is logged when it ends.

The trap: the session tells of changes on its dispatch thread, holding its own lock. What is called there only notes
something; nothing here calls the session with this module's lock held.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ether.calls.client import PendingCall
from ether.errors import (
    DecodeError,
    EtherError,
    InstanceLost,
    Interrupted,
    NoResponder,
    PayloadError,
    StoreFailed,
    TransportError,
)
from ether.log import get_ether_logger
from ether.protocol.answers import SAVE_LATER
from ether.protocol.presence import LIVES, TAKES_PART, Announcement, State
from ether.spec.marks import MarkKind
from ether.system.backoff import Backoff
from ether.wire.codec import Body, decode

if TYPE_CHECKING:
    from ether.calls.durable_outbox import CallOutbox, SavedCall
    from ether.session.session import Session

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_QUEUE_TIMEOUT_S = 2.0
"""For room in the outgoing queue, and for opening the session."""
_END_TIMEOUT_S = 5.0
_AWAKE = -math.inf

ANSWERS = LIVES
COMES_BACK = (State.STARTING, State.RESTARTING, State.LOST)

logger = get_ether_logger("Ether")


class DurableCall:
    """One save under way. `due` is on the monotonic clock."""

    def __init__(self, call: SavedCall, pending: PendingCall, schema: str, *, waited: bool, promised: bool) -> None:
        self.call, self.pending, self.schema = call, pending, schema
        self.waited = waited
        """A thread of the program waits for it, and takes it off the disk when it is answered."""
        self.promised = promised
        """The program was told that it goes on: its end is logged, and a name that is not known may still come."""
        self.context = contextvars.copy_context()
        self.lost = False
        self.sends = 0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self.due = 0.0
        self.put_off()

    def put_off(self) -> None:
        """Try again after a pause, each one longer."""
        self.due = time.monotonic() + self._backoff.next_s()

    def hurry(self) -> None:
        """Something changed: try at once."""
        self._backoff.reset()
        self.due = 0.0

    def unbind(self) -> None:
        """Nobody got it: any instance of its class may."""
        self.call, self.sends = self.call._replace(instance="", journal=""), 0
        self.pending.instance = ""


class DurableRetry:
    """The saves of one process that are not over."""

    def __init__(self, session: Session, where: Callable[[], Path], owner: str) -> None:
        """`where` finds the folder for files of this session; `owner` is part of a file's name."""
        self._session, self._where, self._owner = session, where, owner
        self._outbox: CallOutbox | None = None
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._under_way: dict[bytes, DurableCall] = {}
        self._over: list[DurableCall] = []
        self._thread: threading.Thread | None = None
        self._wakes_at = _AWAKE
        self._listening = False
        self.closed = False

    def outbox(self) -> CallOutbox:
        """This process's file, made with the first save. Raises `StoreFailed` and `ConfigError`."""
        with self._opening:
            if self._outbox is None:
                if self.closed:
                    raise StoreFailed("keep a call in", str(self._where()), "the session was left")
                from ether.calls.durable_outbox import CallOutbox

                self._outbox = CallOutbox(self._where(), self._owner)
            return self._outbox

    def get(self, pending: PendingCall) -> DurableCall | None:
        """A call's part here; None where it is over, or never was."""
        return self._under_way.get(pending.correlation)

    def take_on(self, save: DurableCall) -> None:
        """It is on disk; from now on it is looked after."""
        save.pending.when_cut = partial(self._cut, save)
        save.pending.when_late = partial(self._late, save)
        with self._changed:
            self._listen()
            self._under_way[save.pending.correlation] = save
            self._wake(save.due)
        save.pending.when_done(partial(self._settled, save))

    def make_durable(self, save: DurableCall) -> None:
        """Return when it is on disk for good. Raises `StoreFailed`."""
        if not self.closed:  # which is when it was put there
            self.outbox().sync(save.call.call_id)

    def _late(self, save: DurableCall) -> None:
        try:
            self.make_durable(save)
        except StoreFailed:
            return  # it is tried again, and told, when it is promised

    def forget(self, save: DurableCall) -> None:
        """It is over: take it off the disk."""
        with self._changed:
            self._under_way.pop(save.pending.correlation, None)
        try:
            self.outbox().remove(save.call.call_id)
        except StoreFailed as error:
            logger.warning("%s; %s will be asked again, and answer as before", error, save.pending.call)

    def hurry(self, save: DurableCall) -> None:
        """Try at once."""
        with self._changed:
            save.hurry()
            self._wake(save.due)

    def take_over(self, *, own: bool) -> list[PendingCall]:
        """Go on with the calls of processes that died: those of our owner's earlier lives, or of everybody."""
        owner = self._owner if own else None
        calls: Sequence[SavedCall]
        problems: Sequence[EtherError]
        try:
            if next(self._where().glob("*"), None) is None:  # as a rule; and SQLite need not be loaded
                return []
            from ether.calls.durable_outbox import files_in

            if not files_in(self._where(), owner):
                return []
            calls, problems = self.outbox().take_over(owner)
        except EtherError as error:
            calls, problems = [], [error]
        for problem in problems:
            logger.error("saves of an earlier run are not delivered: %s", problem)
        return [self._taken_over(call) for call in calls]

    def _taken_over(self, call: SavedCall) -> PendingCall:
        name = f"{call.service}.{call.method}"
        pending = PendingCall(name, call.instance, MarkKind.SAVE, 0.0, bytes.fromhex(call.call_id))
        save = DurableCall(call, pending, SAVE_LATER, waited=False, promised=True)
        save.hurry()
        self.take_on(save)
        logger.info("%s, saved by %s and not answered yet, is sent again", name, call.caller)
        return pending

    def close(self) -> list[DurableCall]:
        """Stop, and let go of the file: what is in it is the next run's. Returns what is not over. Twice is fine."""
        with self._changed:
            self.closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_TIMEOUT_S)
        with self._changed:
            left = [save for save in self._under_way.values() if not save.pending.settled]
            self._over = [save for save in self._under_way.values() if save.pending.settled]
            self._under_way = {}
        with self._opening:
            if self._outbox is not None:
                self._close(self._outbox, left)
        return left

    def _close(self, outbox: CallOutbox, left: list[DurableCall]) -> None:
        try:
            for save in self._over:
                outbox.remove(save.call.call_id)
            if left:
                outbox.sync()
        except StoreFailed as error:
            logger.error("saves that are not answered may be lost: %s", error)
        self._over = []
        outbox.close()
        if left:
            names = ", ".join(sorted({save.pending.call for save in left}))
            logger.warning("%d saves are not answered (%s); they are sent when the session runs next", len(left), names)

    # -- what happens, told on threads that must not wait

    def _settled(self, save: DurableCall) -> None:
        if save.waited:
            return
        with self._changed:
            self._over.append(save)
            self._wake(0.0)

    def _cut(self, save: DurableCall, error: EtherError) -> None:
        """What it was sent to has died, or is not connected."""
        with self._changed:
            save.lost = True
            if isinstance(error, NoResponder) and save.sends == 1:
                save.unbind()
            save.put_off()
            self._wake(save.due)

    def _on_member(self, announcement: Announcement) -> None:
        if announcement.state not in TAKES_PART:
            return
        with self._changed:
            for save in self._under_way.values():
                if not save.call.instance or (save.lost and save.call.instance == announcement.name):
                    save.hurry()
                    self._wake(save.due)

    def _on_connection(self, up: bool) -> None:
        if not up:
            return
        with self._changed:
            for save in self._under_way.values():
                save.hurry()
                self._wake(save.due)

    # -- the thread

    def _wake(self, due: float) -> None:
        """Have somebody who looks at it then; under the lock."""
        if self.closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ether-saves", daemon=True)
            self._thread.start()
        elif due < self._wakes_at:
            self._changed.notify()

    def _listen(self) -> None:
        """Hear from now on what makes calls due."""
        if not self._listening:
            self._listening = True
            self._session.watch(self._on_member)
            self._session.link.on_connection.append(self._on_connection)

    def _run(self) -> None:
        while (work := self._work()) is not None:
            due, over = work
            for save in over:
                self._end(save)
            for save in due:
                self._attempt(save)

    def _work(self) -> tuple[list[DurableCall], list[DurableCall]] | None:
        """What is due, and what is over; None at the end, and when nothing is under way."""
        with self._changed:
            while not self.closed:
                over, self._over = self._over, []
                now = time.monotonic()
                due = [s for s in self._under_way.values() if s.due <= now and not s.pending.settled]
                if due or over:
                    return due, over
                waiting = [save.due for save in self._under_way.values() if not save.pending.settled]
                if not waiting:
                    break
                self._wakes_at = min(waiting)
                self._changed.wait(self._wakes_at - now)
                self._wakes_at = _AWAKE
            self._thread = None
            return None

    def _end(self, save: DurableCall) -> None:
        if save.promised:
            _log_end(save)
        self.forget(save)

    def _attempt(self, save: DurableCall) -> None:
        with self._changed:
            save.put_off()
        try:
            if save.call.is_too_old(time.time()):
                raise NoResponder(save.pending.call, "it is too old, and given up")
            self._session.open(_QUEUE_TIMEOUT_S)
            if self._session.link.transport.connected and self._is_addressed(save):
                self._send(save)
        except (PayloadError, Interrupted) as error:
            self._fail(save, error)
        except NoResponder as error:
            given_up = save.call.is_too_old(time.time())
            if given_up or not (save.promised or self.may_come(save.call.service)):
                self._fail(save, error)
        except (TransportError, StoreFailed) as error:
            logger.info("%s could not be sent again: %s", save.pending.call, error)

    def may_come(self, service: str) -> bool:
        """Whether everybody of this name or class is away, and somebody may come back."""
        states = [member.state for member in self._session.members(service)]
        return any(state in COMES_BACK for state in states) and not any(state in ANSWERS for state in states)

    def _is_addressed(self, save: DurableCall) -> bool:
        """Whether it can be sent now: one that nobody has been asked yet is bound to whoever is ready. Raises
        `NoResponder`, and `Interrupted` where its instance keeps another journal than when it was sent."""
        call = save.call
        if not call.instance:
            instance = self._session.calls.choose(call.service, call.method, MarkKind.SAVE)
            save.call = call._replace(instance=instance, journal=self.journal_of(instance))
            self.outbox().bind(call.call_id, save.call.instance, save.call.journal)
            save.pending.instance = instance
            return True
        known = self._session.announcement(call.instance)
        if known is None or known.state not in ANSWERS:
            return False
        journal = self.journal_of(call.instance)
        if call.journal and journal and journal != call.journal:
            where = known.about.get("host", "an unknown host")
            why = f"{call.instance} (on {where}) has another journal now, which does not say whether it was run before"
            raise Interrupted(save.pending.call, f"{why}. It is not run again")
        return not call.journal or bool(journal)

    def journal_of(self, instance: str) -> str:
        """The id of the journal that an instance announces, "" where it announces none."""
        known = self._session.announcement(instance)
        journal = known.about.get("journal") if known is not None else None
        return journal if isinstance(journal, str) else ""

    def _send(self, save: DurableCall) -> None:
        body = self.outbox().body(save.call.call_id)
        if body is None:  # answered this very moment
            return
        value = _value(body)
        save.lost = False
        save.sends += 1
        send = self._session.calls.send
        save.context.run(send, save.pending, save.call.method, value, save.schema, _QUEUE_TIMEOUT_S)

    def _fail(self, save: DurableCall, error: EtherError) -> None:
        if self._session.calls.give_up(save.pending):
            save.pending.fail(error)


def leave(saves: list[DurableCall]) -> None:
    """Wake whoever waits for these: the session is over here."""
    for save in saves:
        save.pending.when_cut = None
        save.pending.cut(InstanceLost(save.pending.call, save.call.service, "the session was left"))


def _value(body: Body) -> object:
    try:
        return decode(body.payload, body.content_type)
    except DecodeError as error:
        raise PayloadError(f"what was kept of the call cannot be read: {error}") from error


def _log_end(save: DurableCall) -> None:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(save.call.made))
    try:
        save.pending.result()
    except EtherError as error:
        logger.warning("%s, saved by %s at %s, has failed: %s", save.pending.call, save.call.caller, made, error)
    else:
        logger.info("%s, saved by %s at %s, was delivered", save.pending.call, save.call.caller, made)
