"""The jobs of an instance's worker: one message for a method, one tick of a schedule.

Promise: whatever user code raises becomes one log record, and the job is over: the message is acknowledged, and the
next tick may run.
"""

from __future__ import annotations

from collections.abc import Callable

from ether.connection.link import Inbound
from ether.connection.mailbox import Key, Mailbox
from ether.connection.worker import FOREIGN
from ether.errors import DeviceOffline, InSafeState, PayloadError
from ether.instance.host import JobHost
from ether.spec.arguments import shown
from ether.spec.methods import MethodSpec
from ether.wire.envelope import unpack_headers
from ether.wire.head import node_of


class MessageJob:
    """One message for one method."""

    __slots__ = ("_host", "_inbound", "_method")

    def __init__(self, host: JobHost, inbound: Inbound, method: MethodSpec) -> None:
        self._host, self._inbound, self._method = host, inbound, method

    @property
    def node(self) -> str:
        """As `worker.MessageOf`. Read only where there is a backlog."""
        headers = self._inbound.headers()
        return FOREIGN if headers is None else node_of(headers.id)

    def run(self) -> None:
        """Handle the message."""
        self._host.handle(self._inbound, self._method)
        self._finish()

    def failed(self, error: BaseException) -> None:
        """Log the failure, with the message's id, topic, source and payload."""
        delivery = self._inbound.delivery
        headers = unpack_headers(delivery.payload, delivery.properties)
        details: dict[str, object] = {
            "method": f"{self._host.spec.name}.{self._method.name}",
            "topic": self._host.topics.user_topic(delivery.topic),
            "message_id": headers.id if headers else None,
            "source": headers.source if headers else None,
            "payload": _payload_shown(self._inbound),
        }
        try:
            self._host.report(f"{details['method']} failed", error, details)
        finally:
            self._finish()

    def _finish(self) -> None:
        self._host.finished(self._inbound, self._method.name)
        self._inbound.done()


class NextMessageJob:
    """A turn of a method that does not want all messages: handles what its mailbox has for it, if there is anything."""

    __slots__ = ("_host", "_key", "_mailbox", "_message", "_method", "node")

    def __init__(self, host: JobHost, mailbox: Mailbox, method: MethodSpec, node: str, key: Key) -> None:
        """`node` as `worker.MessageOf`: the sender of the row's messages, `ANYBODY` where it has those of several."""
        self._host, self._mailbox, self._method, self._key, self.node = host, mailbox, method, key, node
        self._message: MessageJob | None = None

    def run(self) -> None:
        """Handle the message."""
        inbound = self._mailbox.take(self._key)
        if inbound is not None:
            self._message = MessageJob(self._host, inbound, self._method)
            self._message.run()

    def failed(self, error: BaseException) -> None:
        """As `MessageJob.failed`."""
        if self._message is not None:
            self._message.failed(error)


class TickJob:
    """One tick. `finish` is called when it is over, with whether the method was run."""

    __slots__ = ("_finish", "_host", "_method", "_when")

    def __init__(self, host: JobHost, method: str, when: str, finish: Callable[[bool], None]) -> None:
        self._host, self._method, self._when, self._finish = host, method, when, finish

    def run(self) -> None:
        """Call the method."""
        self._host.tick(self._method)
        self._finish(True)

    def failed(self, error: BaseException) -> None:
        """Log the failure; the next tick comes. A refusal by the safe state, or of a device that is gone, is not
        logged: its begin was."""
        refused = isinstance(error, InSafeState | DeviceOffline)
        try:
            if not refused:
                self._host.report(f"{self._host.spec.name}.{self._method} (every {self._when})", error, {})
        finally:
            self._finish(not refused)


def _payload_shown(inbound: Inbound) -> str:
    try:
        return shown(inbound.unpack().value)
    except PayloadError:
        return f"{len(inbound.delivery.payload)} bytes: {shown(inbound.delivery.payload[:200])}"
