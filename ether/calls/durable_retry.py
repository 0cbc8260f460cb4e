"""Sends durable calls again until they are answered: the calls under way, their outbox, and the retry thread.

The thread starts with the first call and ends when no call is under way. A call is due when the connection is back,
when its instance is ready again, and after pauses that double up to half a minute.

Promises: a call that was sent to an instance is never sent to another instance, nor to the same name with another
journal, because it may have begun there. The end of a call that no thread of the program waits for is logged.

The trap: the session reports changes on its dispatch thread while it holds its own lock. The callbacks here therefore
only note what happened and wake the retry thread; and nothing here calls the session while holding this module's lock.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ether.calls.client import CallClient, PendingCall
from ether.calls.durable_records import Age, SavedCall
from ether.connection.deadline import Deadline
from ether.connection.link import Link
from ether.errors import (
    DecodeError,
    EtherError,
    InstanceLost,
    Interrupted,
    NoResponder,
    PayloadError,
    PayloadTooLarge,
    PublishRefused,
    StoreFailed,
    TransportError,
)
from ether.log import get_ether_logger
from ether.protocol.answers import SAVE_LATER
from ether.protocol.presence import LIVES, TAKES_PART, Announcement, State
from ether.spec.marks import MarkKind
from ether.system.backoff import Backoff
from ether.system.clock import uptime
from ether.wire.codec import Body, decode

if TYPE_CHECKING:
    from ether.calls.durable_outbox import CallOutbox

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_QUEUE_TIMEOUT_S = 2.0
"""Limits the wait for room in the outgoing queue, and for opening the session."""
_END_TIMEOUT_S = 5.0
_AWAKE = -math.inf

ANSWERS = LIVES
COMES_BACK = (State.STARTING, State.RESTARTING, State.LOST)

logger = get_ether_logger("Ether")


class CallSession(Protocol):
    """What durable calls need of a session."""

    @property
    def calls(self) -> CallClient:
        """Sends requests."""

    @property
    def link(self) -> Link:
        """The connection to the broker."""

    def open(self, timeout_s: float) -> bool:
        """Listen to announcements and answers. Raises `TransportError`."""

    def hear_the_latest(self, deadline: Deadline) -> bool:
        """Wait for announcements that are on their way; False where no broker answers."""

    def announcement(self, name: str) -> Announcement | None:
        """The last announcement of an instance."""

    def members(self, service: str) -> list[Announcement]:
        """The last announcements of the instance of this name, or of the instances of the class of this name."""

    def watch(self, event: Callable[[Announcement], object]) -> None:
        """Call `event` with every change, on the dispatch thread."""


class DurableCall:
    """One durable call under way. `due` is on the monotonic clock."""

    def __init__(self, saved: SavedCall, pending: PendingCall, schema: str, *, waited: bool, promised: bool) -> None:
        self.saved, self.pending, self.schema = saved, pending, schema
        self.age = Age(uptime())
        self.waited = waited
        """A thread of the program waits for the answer, and removes the call from disk when it has come."""
        self.promised = promised
        """The program was told `pending`: the end of the call is logged, and an unknown name may still appear."""
        self.context = contextvars.copy_context()
        self.lost = False
        self.refused = ""
        """Why the broker did not take the request when it was last sent."""
        self.sends = 0
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self.due = 0.0
        self.put_off()

    def put_off(self) -> None:
        """Try again after a pause, which doubles with every try."""
        self.due = time.monotonic() + self._backoff.next_s()

    def hurry(self) -> None:
        """Try at once, because something has changed."""
        self._backoff.reset()
        self.due = 0.0

    def unbind(self) -> None:
        """No instance has received the call: any instance of its class may take it."""
        self.saved, self.sends = self.saved._replace(instance="", journal=""), 0
        self.pending.instance = ""


class DurableRetry:
    """The durable calls of one process that are under way."""

    def __init__(self, session: CallSession, where: Callable[[], Path], owner: str) -> None:
        """`where` finds the folder for files of this session; `owner` is part of a file's name."""
        self._session, self._where, self._owner = session, where, owner
        self._outbox: CallOutbox | None = None
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._under_way: dict[bytes, DurableCall] = {}
        self._over: list[DurableCall] = []
        self._thread: threading.Thread | None = None
        self._wakes_at = _AWAKE
        """When the waiting thread wakes by itself; `_AWAKE` while it does not wait."""
        self._listening = False
        self.closed = False

    def outbox(self) -> CallOutbox:
        """This process's file, made with the first durable call. Raises `StoreFailed` and `ConfigError`."""
        with self._opening:
            if self._outbox is None:
                if self.closed:
                    raise StoreFailed("keep a call in", str(self._where()), "the session was left")
                from ether.calls.durable_outbox import CallOutbox

                self._outbox = CallOutbox(self._where(), self._owner)
            return self._outbox

    def get(self, pending: PendingCall) -> DurableCall | None:
        """The durable call behind a pending call; None where it is over, or is not durable."""
        return self._under_way.get(pending.correlation)

    def take_on(self, call: DurableCall) -> None:
        """Look after a call from now on; it is on disk."""
        key = call.pending.correlation
        # By its key: both hold each other otherwise, and every saved call would be garbage in a circle.
        call.pending.when_cut = partial(self._cut, key)
        call.pending.when_late = partial(self._late, key)
        self._listen()
        with self._changed:
            self._under_way[key] = call
            self._wake(call.due)
        call.pending.when_done(partial(self._settled, call))

    def make_durable(self, call: DurableCall) -> None:
        """Return when the call would survive a power failure. Raises `StoreFailed`."""
        if not self.closed:  # `close` has synced the file
            self.outbox().sync(call.saved.call_id)

    def _late(self, key: bytes) -> None:
        if (call := self._under_way.get(key)) is None:
            return  # it is over
        try:
            self.make_durable(call)
        except StoreFailed:
            return  # `DurableCalls.promise` tries again, and tells the caller

    def forget(self, call: DurableCall) -> None:
        """Remove a call that is over from disk."""
        with self._changed:
            self._under_way.pop(call.pending.correlation, None)
        try:
            self.outbox().remove(call.saved.call_id)
        except StoreFailed as error:
            logger.warning("%s; %s will be asked again, and answer as before", error, call.pending.call)

    def hurry(self, call: DurableCall) -> None:
        """Try to send a call at once."""
        with self._changed:
            call.hurry()
            self._wake(call.due)

    def take_over(self, *, own: bool) -> list[PendingCall]:
        """Go on with the calls of dead processes: of this owner's earlier runs (`own`), or of all owners."""
        owner = self._owner if own else None
        calls: Sequence[SavedCall]
        problems: Sequence[EtherError]
        try:
            if next(self._where().glob("*"), None) is None:  # the usual case, which must not load SQLite
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

    def _taken_over(self, saved: SavedCall) -> PendingCall:
        name = f"{saved.service}.{saved.method}"
        pending = PendingCall(name, saved.instance, MarkKind.SAVE, 0.0, bytes.fromhex(saved.call_id))
        pending.origin = saved.mark
        call = DurableCall(saved, pending, SAVE_LATER, waited=False, promised=True)
        call.age = Age(uptime(), self.outbox().age_s(saved.call_id))
        call.sends = 1 if saved.instance else 0  # its earlier process may have sent it
        call.hurry()
        self.take_on(call)
        logger.info("%s, saved by %s and not answered yet, is sent again", name, saved.caller)
        return pending

    def close(self) -> list[DurableCall]:
        """Stop the thread and close the file. Returns the calls that are not over; the next run sends them. A second
        call returns nothing."""
        with self._changed:
            self.closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_TIMEOUT_S)
        with self._changed:
            left = [call for call in self._under_way.values() if not call.pending.settled]
            self._over = [call for call in self._under_way.values() if call.pending.settled]
            self._under_way = {}
        with self._opening:
            if self._outbox is not None:
                self._close(self._outbox, left)
        return left

    def _close(self, outbox: CallOutbox, left: list[DurableCall]) -> None:
        try:
            for call in self._over:
                outbox.remove(call.saved.call_id)
            if left:
                outbox.sync()
        except StoreFailed as error:
            logger.error("saves that are not answered may be lost: %s", error)
        self._over = []
        outbox.close()
        if left:
            names = ", ".join(sorted({call.pending.call for call in left}))
            logger.warning("%d saves are not answered (%s); they are sent when the session runs next", len(left), names)

    # -- callbacks, on threads that must not wait

    def _settled(self, call: DurableCall) -> None:
        """The call has its answer. Where a thread waits for it, that thread removes it from disk."""
        if call.waited:
            return
        with self._changed:
            self._over.append(call)
            self._wake(0.0)

    def _cut(self, key: bytes, error: EtherError) -> None:
        """The instance that the call was sent to has died, or is not connected, or the broker refuses the request.

        `NoResponder` after the only send means that the broker delivered the request to no subscriber: the call cannot
        have begun, so it may go to another instance. A refusal of the only send ends the call for the same reason, and
        so does one because of the size, which will not change. In every other case the call may have begun, and stays
        bound.
        """
        if (call := self._under_way.get(key)) is None:
            return  # it is over
        if isinstance(error, PublishRefused | PayloadTooLarge):
            if call.sends == 1 or isinstance(error, PayloadTooLarge):
                call.pending.fail(error)
                return
            call.refused = str(error)
        with self._changed:
            call.lost = True
            if isinstance(error, NoResponder) and call.sends == 1:
                call.unbind()
            call.put_off()
            self._wake(call.due)

    def _on_member(self, announcement: Announcement) -> None:
        """An instance is ready: try the calls that wait for it, and those that no instance has yet."""
        if announcement.state not in TAKES_PART:
            return
        with self._changed:
            for call in self._under_way.values():
                if not call.saved.instance or (call.lost and call.saved.instance == announcement.name):
                    call.hurry()
                    self._wake(call.due)

    def _on_connection(self, up: bool) -> None:
        if not up:
            return
        with self._changed:
            for call in self._under_way.values():
                call.hurry()
                self._wake(call.due)

    # -- the retry thread

    def _wake(self, due: float) -> None:
        """Make sure that the thread runs at `due`; under the lock."""
        if self.closed:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ether-saves", daemon=True)
            self._thread.start()
        elif due < self._wakes_at:  # never true while it is awake: it looks at all calls before it waits
            self._changed.notify()

    def _listen(self) -> None:
        """Subscribe to the events that make calls due, once; without the lock, because the session takes its own."""
        with self._changed:
            listening, self._listening = self._listening, True
        if not listening:
            self._session.watch(self._on_member)
            self._session.link.on_connection.append(self._on_connection)

    def _run(self) -> None:
        while (work := self._work()) is not None:
            due, over = work
            for call in over:
                self._guarded(self._end, call)
            for call in due:
                self._guarded(self._attempt, call)

    def _guarded(self, step: Callable[[DurableCall], None], call: DurableCall) -> None:
        try:
            step(call)
        except Exception:  # this loop must outlive everything: every call that waits depends on it
            logger.exception("%s could not be looked after; trying again", call.pending.call)

    def _work(self) -> tuple[list[DurableCall], list[DurableCall]] | None:
        """Wait for calls that are due or over; None when no call is under way, or at the end of the session."""
        with self._changed:
            while not self.closed:
                over, self._over = self._over, []
                now = time.monotonic()
                due = [call for call in self._under_way.values() if call.due <= now and not call.pending.settled]
                if due or over:
                    return due, over
                waiting = [call.due for call in self._under_way.values() if not call.pending.settled]
                if not waiting:
                    break
                self._wakes_at = min(waiting)
                self._changed.wait(self._wakes_at - now)
                self._wakes_at = _AWAKE
            self._thread = None  # under the lock, so that `_wake` starts a new thread for the next call
            return None

    def _end(self, call: DurableCall) -> None:
        if call.promised:
            _log_end(call)
        self.forget(call)

    def _attempt(self, call: DurableCall) -> None:
        """Send a call, where it can be sent now; give it up where no instance can ever answer it."""
        if call.pending.settled:  # while the calls were sent that were due with it
            return
        with self._changed:
            call.put_off()
        try:
            self._look_at_age(call)
            if call.age.is_too_old(uptime()):
                raise NoResponder(call.pending.call, "it is too old, and given up")
            self._session.open(_QUEUE_TIMEOUT_S)
            if self._session.link.transport.connected and self._is_addressed(call):
                self._send(call)
        except (PayloadError, Interrupted) as error:
            self._fail(call, error)
        except NoResponder as error:
            given_up = call.age.is_too_old(uptime())
            if given_up or not (call.promised or self.may_come(call.saved.service)):
                self._fail(call, error)
        except (TransportError, StoreFailed) as error:
            logger.info("%s could not be sent again: %s", call.pending.call, error)

    def _look_at_age(self, call: DurableCall) -> None:
        now = uptime()
        if call.age.is_to_be_noted(now):
            self.outbox().note_age(call.saved.call_id, call.age.seconds(now))

    def may_come(self, service: str) -> bool:
        """Whether every instance of this name or class is away, and at least one may come back."""
        states = [member.state for member in self._session.members(service)]
        return any(state in COMES_BACK for state in states) and not any(state in ANSWERS for state in states)

    def _is_addressed(self, call: DurableCall) -> bool:
        """Whether the call can be sent now. A call that was sent to no instance yet is bound to one that is ready.

        Raises `NoResponder` where there is none, and `Interrupted` where the call's instance has another journal than
        when the call was sent: that journal cannot say whether the call was run.
        """
        saved = call.saved
        if not saved.instance:
            instance = self._session.calls.choose(saved.service, saved.method, MarkKind.SAVE)
            call.saved = saved._replace(instance=instance, journal=self.journal_of(instance))
            self.outbox().bind(saved.call_id, call.saved.instance, call.saved.journal)
            call.pending.instance = instance
            return True
        known = self._session.announcement(saved.instance)
        if known is None or known.state not in ANSWERS:
            return False
        journal = self.journal_of(saved.instance)
        if saved.journal and journal and journal != saved.journal:
            where = known.about.get("host", "an unknown host")
            why = f"{saved.instance} (on {where}) has another journal now, which does not say whether it was run before"
            raise Interrupted(call.pending.call, f"{why}. It is not run again")
        return not saved.journal or bool(journal)

    def journal_of(self, instance: str) -> str:
        """The id of the journal that an instance announces; "" where it announces none."""
        known = self._session.announcement(instance)
        journal = known.about.get("journal") if known is not None else None
        return journal if isinstance(journal, str) else ""

    def _send(self, call: DurableCall) -> None:
        body = self.outbox().body(call.saved.call_id)
        if body is None:  # answered in this very moment
            return
        value = _value(body)
        call.lost, call.refused = False, ""
        call.sends += 1
        send = self._session.calls.send
        call.context.run(send, call.pending, call.saved.method, value, call.schema, _QUEUE_TIMEOUT_S)

    def _fail(self, call: DurableCall, error: EtherError) -> None:
        if self._session.calls.give_up(call.pending):
            call.pending.fail(error)


def leave(calls: list[DurableCall]) -> None:
    """Wake the threads that wait for these calls: this process leaves the session."""
    for call in calls:
        call.pending.when_cut = None
        call.pending.cut(InstanceLost(call.pending.call, call.saved.service, "the session was left"))


def _value(body: Body) -> object:
    try:
        return decode(body.payload, body.content_type)
    except DecodeError as error:
        raise PayloadError(f"what was kept of the call cannot be read: {error}") from error


def _log_end(call: DurableCall) -> None:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(call.saved.made))
    try:
        call.pending.result()
    except EtherError as error:
        logger.warning("%s, saved by %s at %s, has failed: %s", call.pending.call, call.saved.caller, made, error)
    else:
        logger.info("%s, saved by %s at %s, was delivered", call.pending.call, call.saved.caller, made)
