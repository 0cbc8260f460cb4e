"""What a program does on the data plane: publish, and listen."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.calls.client import PendingCall, callable_methods
from ether.calls.proxy import Proxy, make_proxy
from ether.connection import causes as context
from ether.connection.deadline import Deadline
from ether.connection.link import Inbound, Link
from ether.errors import (
    CallError,
    ConfigError,
    NoResponder,
    NotAllowedHere,
    RequestTimeout,
    StoreFailed,
    TransportError,
    ValidationFailed,
)
from ether.protocol.answers import error_status, pending_status, status_of
from ether.protocol.dedup_window import DedupWindow
from ether.recording.receipt import Saved
from ether.session.session import Session
from ether.spec.marks import MarkKind
from ether.wire.topics import SessionTopics, check_topic, check_topic_filter

if TYPE_CHECKING:
    import asyncio

    from ether.recording.writer import RecordWriter

_STATUS_ERRORS = (CallError, ValidationFailed, StoreFailed, ConfigError)
"""What becomes a status of a save, instead of being raised."""

_REMEMBERED_TOPICS = 4096
_UNCOLLECTED = 4096
"""Calls begun to be collected later that are kept although nobody has collected them yet."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a program receives it.

    `time` is in unix seconds at the source. `id`, `source`, `time` are None, and `parents` empty, where a stranger
    sent it (a microcontroller, `mosquitto_pub`).
    """

    topic: str
    value: object
    id: str | None
    source: str | None
    time: float | None
    parents: tuple[str, ...]


class Subscription:
    """Messages on a topic, from the moment it was made, in order. A context manager; iterating waits for ever.

    What has not been read counts as unread for the sender, too: nothing is dropped, a full queue slows it down.
    """

    def __init__(self, link: Link, topics: SessionTopics, topic: str, qos: int) -> None:
        self._link = link
        self._topics = topics
        self._filter = topics.data_filter(check_topic_filter(topic))
        self._arrived: queue.SimpleQueue[Inbound | None] = queue.SimpleQueue()
        self._receive = self._arrived.put
        self._closed = False
        self._seen = DedupWindow()
        link.listen(self._filter, self._receive, now=self._take, qos=qos)

    def _take(self, inbound: Inbound) -> bool:
        self._arrived.put(inbound)
        return True

    def get(self, timeout_s: float | None = 10.0) -> Message:
        """The next message. Raises `TimeoutError` after `timeout_s` seconds (None: never), `DecodeError` for one
        that cannot be understood, `EOFError` once closed."""
        deadline = None if timeout_s is None else Deadline(timeout_s)
        while True:
            try:
                inbound = self._arrived.get(timeout=None if deadline is None else deadline.left())
            except queue.Empty:
                raise TimeoutError(f"no message on {self._filter!r} within {timeout_s:g} s") from None
            if inbound is None:
                raise EOFError("the subscription was closed")
            try:
                message = message_from(self._topics, inbound)
            finally:
                inbound.done()
            if not self._seen.before(message.id):
                return message

    def __iter__(self) -> Iterator[Message]:
        while not self._closed:
            try:
                yield self.get(timeout_s=None)
            except EOFError:
                return

    def close(self) -> None:
        """Stop listening and let go of what was not read. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._link.unlisten(self._filter, self._receive)
        while not self._arrived.empty():
            unread = self._arrived.get()
            if unread is not None:
                unread.done()
        self._arrived.put(None)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Client:
    """Publishing, listening and calling by the user's own names."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self.session = Session(link, topics)
        self.record_writer: RecordWriter | None = None
        """Brings what is to be saved to disk; None where that is nobody's wish (in a lab)."""
        self._later: dict[str, PendingCall] = {}
        self._resolved: dict[str, str] = {}

    def publish(self, value: object, topic: str, qos: int = 1, *, save: bool = False) -> Saved | None:
        """Publish a value; a publish inside a handler names the handled message as its parent. What is saved, because
        the session records it or by `save`, comes back as `Saved`."""
        mqtt_topic = self._resolved.get(topic) or self._resolve(topic)
        writer = self.record_writer
        if writer is not None and (save or writer.wants(topic)):
            return writer.publish(topic, mqtt_topic, value, qos, context.parents(), {"asked": True} if save else {})
        if save:
            raise NotAllowedHere("saving", "nothing is recorded in a lab")
        self.link.publish(mqtt_topic, value, qos=qos, parents=context.parents())
        return None

    def record(self, value: object, name: str) -> Saved:
        """Bring a value to disk that goes to no topic; inside a handler the handled message is its parent."""
        if self.record_writer is None:
            raise NotAllowedHere("ether.record()", "nothing is recorded in a lab")
        return self.record_writer.record("record", check_topic(name), value, context.parents(), {})

    def _resolve(self, topic: str) -> str:
        """Checked once for each topic; a program that invents topics without end fills no memory."""
        mqtt_topic = self.topics.data(check_topic(topic))
        if len(self._resolved) < _REMEMBERED_TOPICS:
            self._resolved[topic] = mqtt_topic
        return mqtt_topic

    # -- calls

    def begin(
        self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind, *, later: bool = False
    ) -> PendingCall:
        """Send a request to an instance or to any of a class. Raises `NoResponder`, and `RequestTimeout` where the
        broker did not let us ask in time."""
        deadline = Deadline(timeout_s)
        try:
            opened_now = self.session.open(timeout_s)
        except TransportError as error:
            call = f"{service}.{method}"
            raise RequestTimeout(call, service, timeout_s, f"could not be asked: {error}") from error
        left_s = deadline.left() if opened_now else timeout_s
        asked_again = False
        while True:
            try:
                return self.session.calls.begin(service, method, params, left_s, kind, later=later)
            except NoResponder:
                # Who was announced before now, by whomever, is known after this; then it may be about to come back.
                known = asked_again or not self.session.hear_the_latest(deadline)
                if known and not self.session.await_return(service, deadline):
                    raise
                asked_again = True
                left_s = deadline.left()

    def call(self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind) -> Any:
        """Send a request and wait for its value; raises the truth about why there is none."""
        return self.session.calls.wait(self.begin(service, method, params, timeout_s, kind))

    async def call_async(self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind) -> Any:
        """The same, without blocking the event loop; cancelling the task cancels the call."""
        import asyncio

        loop = asyncio.get_running_loop()
        pending = await loop.run_in_executor(None, self.begin, service, method, params, timeout_s, kind)
        await self._settled(pending)
        return pending.result()

    async def _settled(self, pending: PendingCall) -> None:
        """Return when it is settled, or, for a save, at its deadline."""
        import asyncio

        settled = asyncio.Event()
        pending.when_done(partial(_call_in, asyncio.get_running_loop(), settled.set))
        try:
            await asyncio.wait_for(settled.wait(), max(0.0, pending.deadline - time.monotonic()))
        except TimeoutError:
            self.session.calls.expire(pending)
        except asyncio.CancelledError:
            self._cancel(pending)
            raise

    # -- saves

    def save(self, service: str, method: str, params: object, timeout_s: float) -> dict[str, Any]:
        """Make a save and wait for its answer; a status, whatever becomes of it."""
        name, saves = f"{service}.{method}", self.session.saves
        if not saves.kept:
            return as_status(lambda: self.call(service, method, params, timeout_s, MarkKind.SAVE), name)
        try:
            pending = saves.begin(service, method, params, timeout_s, waited=True)
        except _STATUS_ERRORS as error:
            return error_status(error)
        try:
            self.session.calls.await_end(pending)
        except BaseException:  # Ctrl-C: it goes on without us
            saves.end_wait(pending)
            raise
        return self._status(pending, saves.end_wait(pending))

    async def save_async(self, service: str, method: str, params: object, timeout_s: float) -> dict[str, Any]:
        """The same, without blocking the event loop; cancelling the task cancels the call."""
        import asyncio

        saves, loop = self.session.saves, asyncio.get_running_loop()
        try:
            if not saves.kept:
                value = await self.call_async(service, method, params, timeout_s, MarkKind.SAVE)
                return status_of(value, f"{service}.{method}")
            pending = await loop.run_in_executor(None, saves.begin, service, method, params, timeout_s)
            await self._settled(pending)
        except _STATUS_ERRORS as error:
            return error_status(error)
        return self._status(pending, await loop.run_in_executor(None, saves.end_wait, pending))

    def _status(self, pending: PendingCall, why_not_over: str | None) -> dict[str, Any]:
        if why_not_over is None:
            return as_status(pending.result, pending.call)
        call_id = pending.correlation.hex()
        self._forget_the_uncollected()
        self._later[call_id] = pending
        return pending_status(call_id, why_not_over)

    def keep_saves(self, where: Callable[[], Path], owner: str, *, own: bool) -> None:
        """From now on saves survive this process, in a folder that `where` finds; those of processes that died are
        delivered: of `owner`'s earlier lives, or, unless `own`, of everybody in this session."""
        self.session.saves.keep_in(where, owner)
        for pending in self.session.saves.take_over(own=own):
            self._later[pending.correlation.hex()] = pending

    def proxy(self, service: str, timeout_s: float, *, of_class: bool) -> Proxy:
        """An object with the methods of a remote class, made of its announcement alone. Raises `NoResponder`."""
        self.session.open(timeout_s)
        announcement = self.session.calls.described(service, of_class=of_class)
        about = announcement.about
        kinds = {kind.value: kind for kind in (MarkKind.GET, MarkKind.SAVE)}
        methods = dict(callable_methods(announcement))

        def call(method: str, params: dict[str, Any]) -> Any:
            kind = kinds[methods[method][0]]
            if kind is MarkKind.GET:
                return self.call(service, method, params, timeout_s, kind)
            return self.save(service, method, params, timeout_s)

        described = {name: description for name, (_, description) in methods.items()}

        def state() -> str:
            members = self.session.members(service)
            return ", ".join(f"{m.state.value} on {m.about.get('host', 'an unknown host')}" for m in members) or "gone"

        return make_proxy(call, service, str(about.get("class")), str(about.get("doc", "")), described, state=state)

    # -- calls that are collected later

    def begin_later(self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind) -> str:
        """Send a request; returns the id by which its answer is collected."""
        self._forget_the_uncollected()
        saves = self.session.saves
        if kind is MarkKind.SAVE and saves.kept:
            pending = saves.begin(service, method, params, timeout_s, later=True)
        else:
            pending = self.begin(service, method, params, timeout_s, kind, later=True)
        call_id = pending.correlation.hex()
        self._later[call_id] = pending
        return call_id

    def _forget_the_uncollected(self) -> None:
        """A program that never collects fills no memory: past a limit the oldest that are over are let go."""
        for call_id in list(self._later) if len(self._later) >= _UNCOLLECTED else ():
            pending = self._later[call_id]
            if time.monotonic() >= pending.deadline:
                self.session.calls.expire(pending)  # a save goes on, and counts until it is over
            if pending.settled:
                del self._later[call_id]

    def later(self, call_id: str) -> PendingCall:
        """The call under way; raises `KeyError` for what was never begun here or was collected before."""
        try:
            return self._later[call_id]
        except KeyError:
            raise KeyError(f"no call {call_id!r} is under way here: it was collected before, or never begun") from None

    def cancel(self, call_id: str) -> None:
        """Tell the method that its result is not wanted any more."""
        self._cancel(self.later(call_id))

    def _cancel(self, pending: PendingCall) -> None:
        (self.session.calls if pending.when_cut is None else self.session.saves).cancel(pending)

    def collect(self, call_id: str, timeout_s: float | None) -> Any:
        """Wait for a call's value, by its own deadline or for `timeout_s` seconds, whichever is sooner; for that of a
        save that is pending past its deadline `timeout_s` seconds. A save gives a status.

        Raises `TimeoutError` where `timeout_s` was sooner: the call goes on and can be collected again.
        """
        pending = self.later(call_id)
        until = pending.deadline if timeout_s is None else time.monotonic() + timeout_s
        if until < pending.deadline and not pending.wait(until):
            raise TimeoutError(f"{pending.call} has not answered within {timeout_s:g} s; it goes on")
        self.session.calls.await_end(pending)
        if pending.when_cut is not None and not pending.settled and not pending.wait(until):
            return pending_status(call_id, self.session.saves.promise(pending))
        self._later.pop(call_id, None)
        return pending.result() if pending.kind is not MarkKind.SAVE else as_status(pending.result, pending.call)

    # -- messages

    def subscribe(self, topic: str, qos: int = 1) -> Subscription:
        """Listen to a topic (wildcards allowed); returns when the broker has confirmed."""
        return Subscription(self.link, self.topics, topic, qos)


def message_from(topics: SessionTopics, inbound: Inbound) -> Message:
    """Decode; raises `DecodeError`."""
    unpacked = inbound.unpack()
    topic = topics.user_topic(inbound.delivery.topic)
    head = unpacked.headers
    if head is None:
        return Message(topic, unpacked.value, None, None, None, ())
    return Message(topic, unpacked.value, head.id, head.source, head.time, head.parents)


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function on an event loop's thread; nothing where the loop has been closed meanwhile."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return


def as_status(call: Callable[[], Any], name: str) -> dict[str, Any]:
    """What `ether.save` returns: a status, whatever the call does."""
    try:
        result = call()
    except _STATUS_ERRORS as error:
        return error_status(error)
    return status_of(result, name)
