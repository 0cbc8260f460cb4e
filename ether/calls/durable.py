"""DurableCalls: calls that survive. Written to disk before they are sent, and sent again until they are answered.

The caller's thread writes a call down, sends it and waits; what is not answered soon is looked after by a thread beside
(`ether.calls.durable_retry`). At its deadline a caller is told `pending`, and the call goes on, here or in the next
run.

Promises: before `pending` is returned the call is on disk, fsynced. An error is final: what ended with one is not sent
again.

The trap: a call to an instance of this very process is called directly and not written down: it ends with the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ether.calls.client import PendingCall, doing
from ether.calls.durable_retry import ANSWERS, DurableCall, DurableRetry, leave
from ether.connection.deadline import Deadline
from ether.errors import Cancelled, NoResponder, PayloadError, StoreFailed, TransportError
from ether.protocol.answers import SAVE, SAVE_LATER
from ether.spec.marks import MarkKind
from ether.wire.codec import encode

if TYPE_CHECKING:
    from ether.session.session import Session


class DurableCalls:
    """The saves of one process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._resender: DurableRetry | None = None
        self._left: set[bytes] = set()

    def keep_in(self, where: Callable[[], Path], owner: str) -> None:
        """From now on saves survive, in a folder of the session's that `where` finds; `owner` names this instance or
        program in a file's name. Without this they are calls like any other (in a lab)."""
        self._resender = DurableRetry(self._session, where, owner)

    @property
    def kept(self) -> bool:
        """Whether saves survive."""
        return self._resender is not None

    def take_over(self, *, own: bool) -> list[PendingCall]:
        """Go on with the saves of processes that died: those of our own earlier lives, or of everybody."""
        return self._resender.take_over(own=own) if self._resender is not None else []

    def close(self) -> None:
        """The session is over here: whoever waits is told `pending`. Twice is fine."""
        if self._resender is not None:
            left = self._resender.close()
            self._left |= {save.pending.correlation for save in left}
            leave(left)

    # -- making

    def begin(
        self, service: str, method: str, params: object, timeout_s: float, *, later: bool = False, waited: bool = False
    ) -> PendingCall:
        """Write a save down and send it. `waited`: the caller calls `end_wait` after its wait.

        Raises `NoResponder` where nobody can take it and nobody comes back who could, `StoreFailed` and `ConfigError`
        where it cannot be written down, and what the value cannot be sent for.
        """
        assert self._resender is not None
        deadline = Deadline(timeout_s)
        body = encode(params)
        instance = self._find(service, method, deadline)
        calls = self._session.calls
        if instance in calls.here:
            return calls.begin(instance, method, params, deadline.left(), MarkKind.SAVE, later=later)
        if not self._session.link.transport.connected:
            instance = ""  # of a class it may be another one when the connection is back
        schema = SAVE_LATER if later else SAVE
        save = self._made(service, method, instance, timeout_s, schema, waited)
        self._resender.outbox().add(save.call, body)
        self._resender.take_on(save)
        if instance:
            self._send(save, params)
        else:
            self._resender.hurry(save)
        return save.pending

    def _find(self, service: str, method: str, deadline: Deadline) -> str:
        """The instance to ask, "" where it is away or nobody can say."""
        session, resender = self._session, self._resender
        assert resender is not None
        try:
            session.open(deadline.left())
        except TransportError:
            return ""
        asked = False
        while True:
            try:
                return session.calls.choose(service, method, MarkKind.SAVE)
            except NoResponder:
                if resender.may_come(service):
                    return ""
                if asked or (session.members(service) and session.link.transport.connected):
                    raise
                if not (session.link.transport.connected and session.hear_the_latest(deadline)):
                    return ""
                asked = True

    def _made(
        self, service: str, method: str, instance: str, timeout_s: float, schema: str, waited: bool
    ) -> DurableCall:
        from ether.calls.durable_journal import new_call_id
        from ether.calls.durable_outbox import SavedCall

        assert self._resender is not None
        now = time.time()
        call_id, journal = new_call_id(int(now * 1000)), self._resender.journal_of(instance) if instance else ""
        call = SavedCall(call_id.hex(), service, method, instance, journal, now, self._session.link.source)
        pending = PendingCall(f"{service}.{method}", instance, MarkKind.SAVE, timeout_s, call_id)
        return DurableCall(call, pending, schema, waited=waited, promised=False)

    def _send(self, save: DurableCall, params: object) -> None:
        assert self._resender is not None
        save.sends = 1
        try:
            self._session.calls.send(save.pending, save.call.method, params, save.schema, save.pending.timeout_s)
        except PayloadError:
            self._resender.forget(save)
            raise
        except TransportError:
            return  # it is due again in a moment

    # -- the end of a wait

    def end_wait(self, pending: PendingCall) -> str | None:
        """The caller waits no longer. None where the call is over; else it is on disk and goes on, and this is why it
        is not over."""
        resender = self._resender
        save = resender.get(pending) if resender is not None else None
        if resender is None or save is None:
            return self.promise(pending) if pending.correlation in self._left else None
        if pending.settled:
            resender.forget(save)
            return None
        save.promised, save.waited = True, False
        why = self.promise(pending)
        if pending.wait(0.0):  # meanwhile; and whoever settled it may have seen that we wait, and left the rest to us
            resender.forget(save)
            return None
        return why

    def promise(self, pending: PendingCall) -> str:
        """Put a call on disk for good; returns why it is not over yet."""
        resender = self._resender
        assert resender is not None
        why = f"{pending.call} is not answered yet: {self._why(pending)}"
        try:
            if (save := resender.get(pending)) is not None:
                save.promised = True
                resender.make_durable(save)
        except StoreFailed as error:
            return f"{why}. It goes on, but only as long as this program runs: {error}"
        return f"{why}. It is kept on disk and goes on; do not repeat it"

    def cancel(self, pending: PendingCall) -> None:
        """The caller has lost interest: ask the instance to stop, or take the call back where that is away."""
        known = self._session.announcement(pending.instance) if pending.instance else None
        if known is not None and known.state in ANSWERS and self._session.link.transport.connected:
            self._session.calls.cancel(pending)
        elif self._session.calls.give_up(pending):
            pending.fail(Cancelled(pending.call))

    def _why(self, pending: PendingCall) -> str:
        if pending.correlation in self._left:
            return "the session was left, and is to run again first"
        if not self._session.link.transport.connected:
            return "there is no connection to the broker"
        known = self._session.announcement(pending.instance) if pending.instance else None
        if known is not None and known.state in ANSWERS:
            return f"{pending.instance} {doing(pending.status)}"
        service = pending.instance or pending.call.rpartition(".")[0]
        states = [f"{member.name} is {member.state.value}" for member in self._session.members(service)]
        return ", ".join(states) or f"{service} is not there"
