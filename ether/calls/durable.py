"""Durable calls: written to disk before they are sent, and sent again until they are answered.

The caller's thread writes a call to the outbox, sends it and waits. A retry thread (`ether.calls.durable_retry`) looks
after calls that are not answered soon. At its deadline a caller gets `pending`, and the call goes on, in this run or in
the next one.

Promises: before `pending` is returned, the call is on disk, fsynced. An error is final: a call that ended with an error
is not sent again.

The trap: a call to an instance of this very process is made directly and not written to disk; it ends with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ether.calls.client import PendingCall, doing
from ether.calls.durable_records import SavedCall, new_call_id
from ether.calls.durable_retry import ANSWERS, CallSession, DurableCall, DurableRetry, leave
from ether.connection.deadline import Deadline
from ether.errors import Cancelled, NoResponder, PayloadError, StoreFailed, TransportError
from ether.protocol.answers import SAVE, SAVE_LATER
from ether.spec.marks import MarkKind
from ether.system.clock import wall_time
from ether.wire.codec import encode
from ether.wire.origin import mark_of


class DurableCalls:
    """The durable calls of one process."""

    def __init__(self, session: CallSession) -> None:
        self._session = session
        self._retry: DurableRetry | None = None
        self._left: set[bytes] = set()
        """The correlations of calls that were not answered when this process left the session."""

    def keep_in(self, where: Callable[[], Path], owner: str) -> None:
        """Make saves durable from now on, in a folder of the session that `where` finds; `owner`, the name of this
        instance or program, is part of a file's name. Without this (in a lab) saves are ordinary calls."""
        self._retry = DurableRetry(self._session, where, owner)

    @property
    def kept(self) -> bool:
        """Whether saves are durable."""
        return self._retry is not None

    def take_over(self, *, own: bool) -> list[PendingCall]:
        """Go on with the calls of dead processes: of this owner's earlier runs (`own`), or of all owners."""
        return self._retry.take_over(own=own) if self._retry is not None else []

    def close(self) -> None:
        """Leave the session: callers that wait get `pending`. A second call does nothing."""
        if self._retry is not None:
            left = self._retry.close()
            self._left |= {call.pending.correlation for call in left}
            leave(left)

    # -- making

    def begin(
        self, service: str, method: str, params: object, timeout_s: float, *, later: bool = False, waited: bool = False
    ) -> PendingCall:
        """Write a call to disk and send it. `waited`: the caller calls `end_wait` after its wait.

        Raises `NoResponder` where no instance can take the call and none that could is coming back, `StoreFailed` and
        `ConfigError` where it cannot be written to disk, and `PayloadError` where `params` cannot be sent.
        """
        assert self._retry is not None
        deadline = Deadline(timeout_s)
        body = encode(params)
        instance = self._find(service, method, deadline)
        calls = self._session.calls
        if instance in calls.local_instances:
            return calls.begin(instance, method, params, deadline.left(), MarkKind.SAVE, later=later)
        if not self._session.link.transport.connected:
            instance = ""  # where a class was named, another instance may take the call when the connection is back
        schema = SAVE_LATER if later else SAVE
        call = self._made(service, method, instance, timeout_s, schema, waited)
        self._retry.outbox().add(call.saved, body)
        self._retry.take_on(call)
        if instance:
            self._send(call, params)
        else:
            self._retry.hurry(call)
        return call.pending

    def _find(self, service: str, method: str, deadline: Deadline) -> str:
        """The instance that the call goes to; "" where the call has to wait, because the instance is away or this
        process cannot tell. Raises `NoResponder` where no instance can answer it.

        An announcement may be on its way when the first look finds no instance. Unless this process already knows
        instances of that name or class (then the refusal is certain), it waits once for everything that the broker
        accepted before now, and looks again.
        """
        session, retry = self._session, self._retry
        assert retry is not None
        try:
            session.open(deadline.left())
        except TransportError:
            return ""
        caught_up = False
        while True:
            try:
                return session.calls.choose(service, method, MarkKind.SAVE)
            except NoResponder:
                if retry.may_come(service):
                    return ""
                if caught_up or (session.members(service) and session.link.transport.connected):
                    raise
                if not (session.link.transport.connected and session.hear_the_latest(deadline)):
                    return ""
                caught_up = True

    def _made(
        self, service: str, method: str, instance: str, timeout_s: float, schema: str, waited: bool
    ) -> DurableCall:
        assert self._retry is not None
        now = wall_time()
        call_id, journal = new_call_id(int(now * 1000)), self._retry.journal_of(instance) if instance else ""
        pending = PendingCall(f"{service}.{method}", instance, MarkKind.SAVE, timeout_s, call_id)
        caller = " ".join(filter(None, (self._session.link.source, mark_of(pending.origin))))
        saved = SavedCall(call_id.hex(), service, method, instance, journal, now, caller)
        return DurableCall(saved, pending, schema, waited=waited, promised=False)

    def _send(self, call: DurableCall, params: object) -> None:
        assert self._retry is not None
        call.sends = 1
        try:
            self._session.calls.send(call.pending, call.saved.method, params, call.schema, call.pending.timeout_s)
        except PayloadError:
            self._retry.forget(call)
            raise
        except TransportError:
            return  # the retry thread sends it again in a moment

    # -- the end of a wait

    def end_wait(self, pending: PendingCall) -> str | None:
        """Tell that the caller waits no longer. None where the call is over; otherwise the call is on disk and goes on,
        and the text says why it is not over."""
        retry = self._retry
        call = retry.get(pending) if retry is not None else None
        if retry is None or call is None:
            return self.promise(pending) if pending.correlation in self._left else None
        if pending.settled:
            retry.forget(call)
            return None
        call.promised, call.waited = True, False
        why = self.promise(pending)
        if pending.wait(0.0):
            # It was settled meanwhile. The thread that settled it may have seen `waited` still set, and then left the
            # removal from disk to this thread; removing it twice is harmless.
            retry.forget(call)
            return None
        return why

    def promise(self, pending: PendingCall) -> str:
        """Make a call durable; returns why it is not over yet."""
        retry = self._retry
        assert retry is not None
        why = f"{pending.call} is not answered yet: {self._why(pending)}"
        try:
            if (call := retry.get(pending)) is not None:
                call.promised = True
                retry.make_durable(call)
        except StoreFailed as error:
            return f"{why}. It goes on, but only as long as this program runs: {error}"
        return f"{why}. It is kept on disk and goes on; do not repeat it"

    def cancel(self, pending: PendingCall) -> None:
        """The caller has lost interest: ask the instance to stop, or, where it is away, withdraw the call."""
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
        call = self._retry.get(pending) if self._retry is not None else None
        if call is not None and call.refused:
            return call.refused
        known = self._session.announcement(pending.instance) if pending.instance else None
        if known is not None and known.state in ANSWERS:
            return f"{pending.instance} {doing(pending.status)}"
        service = pending.instance or pending.call.rpartition(".")[0]
        states = [f"{member.name} is {member.state.value}" for member in self._session.members(service)]
        return ", ".join(states) or f"{service} is not there"
