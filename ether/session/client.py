"""A program's access to its session by the user's own names: publish, subscribe, record, call, save, collect later.

`Client` resolves names to MQTT topics and brings the parts together: the link publishes, `Session` knows the members,
`CallClient` and `DurableCalls` make requests, the record writer saves. Promise: a message that is published or recorded
inside a handler names the handled message as its parent.

The trap: the first use of most calls opens the session, which may wait for the broker.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from ether.calls.client import PendingCall, callable_methods
from ether.calls.proxy import Proxy, make_proxy
from ether.config.keep import KEEP_ALL, Keep, parse_keep
from ether.config.topic_parts import parse_topic
from ether.connection import causes as context
from ether.connection.deadline import Deadline
from ether.connection.input_rules import Input
from ether.connection.inputs import NAMED, NO_LINEAGE, Lineage, lineage_of
from ether.connection.keep_rules import Skipped, SkippedLog
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.connection.mailbox import Key, Mailbox
from ether.errors import (
    CallError,
    ConfigError,
    EncodeError,
    NoResponder,
    NotAllowedHere,
    PublishRefused,
    RequestTimeout,
    StoreFailed,
    TransportError,
    ValidationFailed,
)
from ether.errors.keywords import named_keywords
from ether.log import get_ether_logger
from ether.protocol.answers import error_status, pending_status, status_of
from ether.protocol.dedup_window import DedupWindow
from ether.protocol.message_age import MessageAges
from ether.protocol.presence import TAKES_PART, Announcement
from ether.protocol.request_table import CALL_TIMEOUT_S
from ether.protocol.topic_cache import TopicCache
from ether.recording.saved import Saved
from ether.session.own_rights import OwnRights
from ether.session.session import Session
from ether.session.topic_check import TopicCheck
from ether.spec.marks import MarkKind
from ether.spec.nothing import NOTHING
from ether.wire.topics import OUTSIDE, SessionTopics, check_topic, check_topic_filter

if TYPE_CHECKING:
    import asyncio

    from ether.recording.writer import RecordWriter

logger = get_ether_logger("Ether")

_STATUS_ERRORS = (CallError, ValidationFailed, StoreFailed, ConfigError, PublishRefused)
"""Errors that `ether.save` returns as a status instead of raising them."""

_REMEMBERED_PROXIES = 256
_UNCOLLECTED = 4096
"""How many calls that were begun with `get_later` or `save_later` are held until they are collected."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a program receives it.

    `time` is in unix seconds by the sender's clock; `parents` are the ids of the messages that caused it. Of a message
    without Ether's headers (from a microcontroller, `mosquitto_pub`), `id`, `source` and `time` are None, and
    `parents` is empty.
    """

    topic: str
    value: object
    id: str | None
    source: str | None
    time: float | None
    parents: tuple[str, ...]
    seq: int | None = None
    """Its number among those of its source on its topic."""


@named_keywords("Subscription")
class Subscription:
    """The messages on a topic, in order, from the moment of its construction. A context manager; iterating waits
    without end for the next message.

    Nothing is dropped, unless `keep` or `max_age` asks for it: what has not been read waits here, and when that is
    much, at its source (docs/concurrency.md).
    """

    def __init__(
        self, link: Link, topics: SessionTopics, topic: str, qos: int, keep: Keep = KEEP_ALL, *, is_input: bool = True
    ) -> None:
        """`is_input`: what is read here may go into what this program makes."""
        self._link, self._is_input = link, is_input
        self._topics = topics
        self._filter = topics.data_filter(check_topic_filter(topic))
        self._arrived: queue.SimpleQueue[Inbound | _Turn | None] = queue.SimpleQueue()
        self._mailbox = None if keep == KEEP_ALL else Mailbox(keep, MessageAges())
        self._skipped_log = SkippedLog(str(keep))
        self._receive = self._take
        self._closed = False
        self._seen = DedupWindow()
        link.listen(self._filter, self._receive, now=self._receive, qos=qos)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._arrived.qsize()} waiting"
        return f"<Subscription to {self._topics.user_topic(self._filter)!r}: {state}>"

    @property
    def skipped(self) -> Skipped:
        """How many messages were skipped so far: `by_keep`, because newer ones waited, and `by_age`."""
        return Skipped() if self._mailbox is None else self._mailbox.skipped

    def _take(self, inbound: Inbound) -> bool:
        """On the transport's thread: spares the change to the dispatch thread, since it only enqueues."""
        if self._mailbox is None:
            self._arrived.put(inbound)
        elif (turn := self._mailbox.put(inbound)) is not None:
            self._arrived.put(_Turn(*turn))
        return True

    def get(self, timeout_s: float | None = 10.0) -> Message:
        """The next message. Raises `TimeoutError` after `timeout_s` seconds (None: wait without end), `DecodeError`
        for a message that cannot be decoded, `EOFError` after `close()`."""
        deadline = None if timeout_s is None else Deadline(timeout_s)
        while True:
            try:
                arrived = self._arrived.get(timeout=None if deadline is None else deadline.left())
            except queue.Empty:
                raise TimeoutError(f"no message on {self._filter!r} within {timeout_s:g} s") from None
            if arrived is None:
                raise EOFError("the subscription was closed")
            inbound = self._taken(arrived)
            if inbound is None:
                continue
            try:
                message = message_from(self._topics, inbound)
                headers = inbound.headers()
            finally:
                inbound.done()
            if not self._seen.before(message.id):  # a retransmitted message may arrive twice
                if self._is_input:
                    self._link.inputs.give((inbound.delivery.topic, headers))
                return message

    def _taken(self, arrived: Inbound | _Turn) -> Inbound | None:
        """The message for a turn of the mailbox; None where it was skipped meanwhile."""
        if isinstance(arrived, Inbound):
            return arrived
        assert self._mailbox is not None
        inbound = self._mailbox.take(arrived.key)
        self._tell_skipped()
        return inbound

    def _tell_skipped(self, *, last: bool = False) -> None:
        if line := self._skipped_log.line(self.skipped, time.monotonic(), last=last):
            topic = self._topics.user_topic(self._filter)
            logger.info("a subscription of %s to %r has %s", self._link.source, topic, line)

    def __iter__(self) -> Iterator[Message]:
        while not self._closed:
            try:
                yield self.get(timeout_s=None)
            except EOFError:
                return

    def close(self) -> None:
        """Unsubscribe, and drop messages that were not read. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._link.unlisten(self._filter, self._receive)
        while not self._arrived.empty():
            unread = self._arrived.get()
            if isinstance(unread, Inbound):
                unread.done()
        if self._mailbox is not None:
            self._mailbox.close()
            self._tell_skipped(last=True)
        self._arrived.put(None)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Turn(NamedTuple):
    """Something waits in a row of the mailbox."""

    key: Key


class Client:
    """One program's access to its session."""

    def __init__(self, link: Link, topics: SessionTopics) -> None:
        self.link = link
        self.topics = topics
        self.session = Session(link, topics)
        self.topic_check = TopicCheck(self.session)
        self.record_writer: RecordWriter | None = None
        """Brings data to disk; None where nothing is recorded (in a `Lab`)."""
        self.rights: OwnRights | None = None
        """What may be done here, on a device that has not all rights; None: everything."""
        self._later: dict[str, PendingCall] = {}
        self._proxies: dict[tuple[str, float | None, bool], tuple[Announcement, Proxy]] = {}
        """Each proxy has a class of its own, which costs more than a call: those that were made, by what was asked."""
        self._resolved: TopicCache[str] = TopicCache()
        self._record_names: TopicCache[str] = TopicCache()
        """Names of records that were checked: a program saves under few, and often."""

    def publish(self, value: object, topic: str, qos: int = 1, *, save: bool = False) -> Saved | None:
        """Publish a value on a topic. Returns the receipt where the message is saved, because the session records the
        topic or by `save`; otherwise None. `NOTHING` is not published."""
        mqtt_topic = self._resolved.get(topic) or self._resolve(topic)
        if value is NOTHING:
            return None
        writer = self.record_writer
        origin = context.origin()
        extra = None if origin is None else ExtraHeaders(origin=origin)
        if extra is not None and topic.startswith(OUTSIDE):
            context.check_device(topic, f"publishing by {self.link.source}")
        if writer is not None and (save or writer.wants(topic)):
            more = {"asked": True} if save else {}
            try:
                return writer.publish(topic, mqtt_topic, value, qos, self._lineage_of(value), more, extra)
            except EncodeError as error:
                raise error.of(f"the message on {topic!r}") from None
        if save:
            raise NotAllowedHere("saving", "nothing is recorded in a lab")
        try:
            self.link.publish(mqtt_topic, value, qos=qos, parents=lineage_of(value, 0, ()).parents, extra=extra)
        except EncodeError as error:
            raise error.of(f"the message on {topic!r}") from None
        return None

    def _lineage_of(self, value: object) -> Lineage:
        inputs = self.link.inputs
        if not inputs.upto and not NAMED:  # this process has heard nothing that a result could be made of
            parents = context.parents()
            return Lineage(parents, described=False) if parents else NO_LINEAGE
        return lineage_of(value, inputs.upto, inputs.in_work())

    def record(self, value: object, name: str) -> Saved:
        """Save a value under a name without publishing it; returns the receipt."""
        if self.record_writer is None:
            raise NotAllowedHere("ether.record()", "nothing is recorded in a lab")
        lineage = self._lineage_of(value)
        if type(name) is not str or name not in self._record_names:
            self._record_names.remember(check_topic(name), name)
        try:
            return self.record_writer.record("record", name, value, lineage, {}, context.origin())
        except EncodeError as error:
            raise error.of(f"the record {name!r}") from None

    def _resolve(self, topic: str) -> str:
        """The MQTT topic, checked once for each topic. A bounded number is remembered, since a program may make up
        topics without end."""
        mqtt_topic = self.topics.data(check_topic(topic))
        if self.rights is not None:
            self.rights.check_publish(topic)
        self._resolved.remember(topic, mqtt_topic)
        if topic in self._resolved:
            self.topic_check.published(topic)
        return mqtt_topic

    # -- calls

    def patience_s(self, service: str, method: str) -> float:
        """How long a caller waits that does not say it: 10 s, and as long as the method says that it takes."""
        return CALL_TIMEOUT_S + (self.session.calls.takes_s(service, method) or 0.0)

    def begin(
        self, service: str, method: str, params: object, timeout_s: float | None, kind: MarkKind, *, later: bool = False
    ) -> PendingCall:
        """Send a request to an instance, or to any ready instance of a class. `timeout_s` None: `patience_s`. Raises
        `NoResponder` where there is none, `RequestTimeout` where the broker cannot be reached in time."""
        if self.rights is not None:
            self.rights.check_call(service, method)
        session, spent_s = self.session, 0.0
        if not session.opened:
            spent_s = self._open_to_call(service, method, CALL_TIMEOUT_S if timeout_s is None else timeout_s)
        if timeout_s is None:
            timeout_s = CALL_TIMEOUT_S + (session.calls.takes_s(service, method) or 0.0)
        left_s, began, asked_again = max(0.0, timeout_s - spent_s), time.monotonic(), False
        while True:
            try:
                return session.calls.begin(service, method, params, left_s, kind, later=later)
            except EncodeError as error:
                raise error.of(f"the arguments of {service}.{method}") from None
            except NoResponder:
                # The instance may have been announced a moment ago. After the first refusal this program catches up
                # with the broker and tries again; after the second, all announcements are known, and the only hope
                # left is an instance that is being restarted.
                deadline = Deadline(max(0.0, began + timeout_s - spent_s - time.monotonic()))
                known = asked_again or not session.hear_the_latest(deadline)
                if known and not session.await_return(service, deadline):
                    raise
                asked_again = True
                left_s = deadline.left()

    def _open_to_call(self, service: str, method: str, timeout_s: float) -> float:
        """Open the session; returns how long it took."""
        began = time.monotonic()
        try:
            self.session.open(timeout_s)
        except TransportError as error:
            call = f"{service}.{method}"
            raise RequestTimeout(call, service, timeout_s, f"could not be asked: {error}") from error
        return time.monotonic() - began

    def _check_call(self, service: str, method: str) -> None:
        if self.rights is not None:
            self.rights.check_call(service, method)

    def sync(self, topic: str, arguments: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """As `Session.sync`, where this may be done here."""
        if self.rights is not None:
            self.rights.check_command("ether.sync()")
        self.session.open(timeout_s)
        return self.session.sync(topic, arguments, timeout_s)

    def call(self, service: str, method: str, params: object, timeout_s: float | None, kind: MarkKind) -> Any:
        """Send a request and wait for its value; otherwise raises the error that says why there is none."""
        return self.session.calls.wait(self.begin(service, method, params, timeout_s, kind))

    async def call_async(
        self, service: str, method: str, params: object, timeout_s: float | None, kind: MarkKind
    ) -> Any:
        """As `call`, without blocking the event loop; cancelling the task cancels the call."""
        import asyncio

        loop = asyncio.get_running_loop()
        pending = await loop.run_in_executor(None, self.begin, service, method, params, timeout_s, kind)
        await self._settled(pending)
        return pending.result()

    async def _settled(self, pending: PendingCall) -> None:
        """Return when the call is settled or has reached its deadline. Cancels the call when the task is cancelled."""
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

    def save(self, service: str, method: str, params: object, timeout_s: float | None) -> dict[str, Any]:
        """Call a method marked `@ether_save` and wait for its answer; always returns a status. Raises `NotAllowed`."""
        self._check_call(service, method)
        timeout_s = self.patience_s(service, method) if timeout_s is None else timeout_s
        name, saves = f"{service}.{method}", self.session.saves
        if not saves.kept:
            return as_status(lambda: self.call(service, method, params, timeout_s, MarkKind.SAVE), name)
        try:
            pending = saves.begin(service, method, params, timeout_s, waited=True)
        except EncodeError as error:
            raise error.of(f"the arguments of {name}") from None
        except _STATUS_ERRORS as error:
            return error_status(error)
        try:
            self.session.calls.await_end(pending)
        except BaseException:  # Ctrl-C ends the wait, not the save, which is on disk
            saves.end_wait(pending)
            raise
        return self._status(pending, saves.end_wait(pending))

    async def save_async(self, service: str, method: str, params: object, timeout_s: float | None) -> dict[str, Any]:
        """As `save`, without blocking the event loop; cancelling the task cancels the call."""
        import asyncio

        self._check_call(service, method)
        timeout_s = self.patience_s(service, method) if timeout_s is None else timeout_s
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
        """The status of a save: its result, or `pending` with an id by which it is collected later."""
        if why_not_over is None:
            return as_status(pending.result, pending.call)
        call_id = pending.correlation.hex()
        self._forget_the_uncollected()
        self._later[call_id] = pending
        return pending_status(call_id, why_not_over)

    def keep_saves(self, where: Callable[[], Path], owner: str, *, own: bool) -> None:
        """Keep saves on disk from now on, in the folder that `where` returns, so that they survive this process. Saves
        of processes that have died are delivered: those of earlier processes of `owner`, and unless `own`, those of
        every program of this session."""
        self.session.saves.keep_in(where, owner)
        for pending in self.session.saves.take_over(own=own):
            self._later[pending.correlation.hex()] = pending

    def proxy(self, service: str, timeout_s: float | None, *, of_class: bool) -> Proxy:
        """A proxy with the methods of a remote instance (or class, with `of_class`), made from its announcement alone.
        `timeout_s` bounds this call, and each call of the proxy; None: `patience_s`. Raises `NoResponder`."""
        self.session.open(CALL_TIMEOUT_S if timeout_s is None else timeout_s)
        announcement = self.session.calls.described(service, of_class=of_class)
        key = (service, timeout_s, of_class)
        earlier = self._proxies.get(key)
        if earlier is not None and earlier[0] is announcement:
            return earlier[1]
        proxy = self._proxy_of(announcement, service, timeout_s, of_class=of_class)
        if len(self._proxies) >= _REMEMBERED_PROXIES:
            self._proxies.clear()
        self._proxies[key] = announcement, proxy
        return proxy

    def _proxy_of(self, announcement: Announcement, service: str, timeout_s: float | None, *, of_class: bool) -> Proxy:
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

        def renew() -> Proxy | None:
            answering = [member for member in self.session.members(service) if member.state in TAKES_PART]
            if not answering or announcement.incarnation in (member.incarnation for member in answering):
                return None
            return self.proxy(service, timeout_s, of_class=of_class)

        doc = str(about.get("doc", ""))
        return make_proxy(call, service, str(about.get("class")), doc, described, state=state, renew=renew)

    # -- calls whose results are collected later

    def begin_later(self, service: str, method: str, params: object, timeout_s: float, kind: MarkKind) -> str:
        """Send a request; returns the id by which its result is collected."""
        self._check_call(service, method)
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
        """Above the limit, drop calls that have ended and were not collected, so that a program that never collects
        does not fill the memory."""
        for call_id in list(self._later) if len(self._later) >= _UNCOLLECTED else ():
            pending = self._later[call_id]
            if time.monotonic() >= pending.deadline:
                self.session.calls.expire(pending)  # a save is not settled by this: it goes on
            if pending.settled:
                del self._later[call_id]

    def later(self, call_id: str) -> PendingCall:
        """The call with this id. Raises `KeyError` where it was never begun here, or was collected before."""
        try:
            return self._later[call_id]
        except KeyError:
            raise KeyError(f"no call {call_id!r} is under way here: it was collected before, or never begun") from None

    def cancel(self, call_id: str) -> None:
        """Cancel the call with this id: the method is told that its result is no longer wanted."""
        self._cancel(self.later(call_id))

    def _cancel(self, pending: PendingCall) -> None:
        (self.session.calls if pending.when_cut is None else self.session.saves).cancel(pending)

    def collect(self, call_id: str, timeout_s: float | None) -> Any:
        """Wait for a call's value until its own deadline or for `timeout_s` seconds, whichever comes first. A save
        that is still pending after its deadline is awaited for `timeout_s` seconds. A save gives a status.

        Raises `TimeoutError` where `timeout_s` comes first: the call goes on, and can be collected later.
        """
        pending = self.later(call_id)
        until = pending.deadline if timeout_s is None else time.monotonic() + timeout_s
        if until < pending.deadline and not self.session.calls.wait_until(pending, until):
            raise TimeoutError(f"{pending.call} has not answered within {timeout_s:g} s; it goes on")
        self.session.calls.await_end(pending)
        if pending.when_cut is not None and not pending.settled and not pending.wait(until):
            return pending_status(call_id, self.session.saves.promise(pending))
        self._later.pop(call_id, None)
        return pending.result() if pending.kind is not MarkKind.SAVE else as_status(pending.result, pending.call)

    # -- messages

    def subscribe(
        self, topic: str, qos: int = 1, keep: str | int | None = None, max_age: str | None = None,
        *, is_input: bool = True,
    ) -> Subscription:  # fmt: skip
        """Subscribe to a topic (wildcards allowed); returns when the broker has confirmed the subscription. `is_input`
        as for `Subscription`. Named levels (`pump/{id}`) are as `+`. Raises `ConfigError` for a `keep` or `max_age`
        that is none."""
        topic, _ = parse_topic(topic)
        if self.rights is not None:
            self.rights.check_hear(topic)
        return Subscription(self.link, self.topics, topic, qos, parse_keep(keep, max_age), is_input=is_input)

    def give(self, message: Message) -> None:
        """A message is handed to the program: it may go into what that makes."""
        mqtt_topic = self.topics.data(message.topic)
        self.link.inputs.give(Input("data", mqtt_topic, message.source or "", message.seq or 0, message.id or ""))


def message_from(topics: SessionTopics, inbound: Inbound) -> Message:
    """Decode a received message. Raises `DecodeError`."""
    unpacked = inbound.unpack()
    topic = topics.user_topic(inbound.delivery.topic)
    head = unpacked.headers
    if head is None:
        return Message(topic, unpacked.value, None, None, None, ())
    return Message(topic, unpacked.value, head.id, head.source, head.time, head.parents, head.seq)


def message_in_work(topics: SessionTopics) -> Message | None:
    """The message, or the call, that the code that calls this is handling; None where there is none."""
    cause = context.current()
    if cause.message is not None:
        return message_from(topics, cause.message)
    if cause.call is not None:  # one within the process has no message, and so no id
        message_id = cause.message_id if cause.call.caller else None
        return Message(cause.call.call, None, message_id, cause.call.caller or None, None, ())
    return None


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function on an event loop's thread; does nothing where the loop has been closed meanwhile."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        return


def as_status(call: Callable[[], Any], name: str) -> dict[str, Any]:
    """The status that `ether.save` returns for a call: of its result, or of its error."""
    try:
        result = call()
    except _STATUS_ERRORS as error:
        return error_status(error)
    return status_of(result, name)
