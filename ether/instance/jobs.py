"""What an instance's worker is given to do: one message for a method, one tick of a schedule.

Promise: whatever user code raises is one log record, and the job is over: the message is acknowledged, the tick's turn
is free again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ether.connection.link import Inbound
from ether.errors import InSafeState, PayloadError
from ether.spec.arguments import shown
from ether.spec.methods import MethodSpec
from ether.wire.envelope import unpack_headers

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance


class MessageJob:
    """One message for one method."""

    __slots__ = ("_inbound", "_instance", "_method")

    def __init__(self, instance: HostedInstance, inbound: Inbound, method: MethodSpec) -> None:
        self._instance, self._inbound, self._method = instance, inbound, method

    def run(self) -> None:
        """Handle it."""
        self._instance.handle(self._inbound, self._method)
        self._finish()

    def failed(self, error: BaseException) -> None:
        """Say so, with everything that helps."""
        delivery = self._inbound.delivery
        headers = unpack_headers(delivery.payload, delivery.properties)
        details: dict[str, object] = {
            "method": f"{self._instance.spec.name}.{self._method.name}",
            "topic": self._instance.topics.user_topic(delivery.topic),
            "message_id": headers.id if headers else None,
            "source": headers.source if headers else None,
            "payload": _payload_shown(self._inbound),
        }
        try:
            self._instance.report(f"{details['method']} failed", error, details)
        finally:
            self._finish()

    def _finish(self) -> None:
        self._instance.count_handled()
        self._inbound.done()


class TickJob:
    """One tick; `finish` is called when it is over, with whether it was run."""

    __slots__ = ("_finish", "_instance", "_method", "_when")

    def __init__(self, instance: HostedInstance, method: str, when: str, finish: Callable[[bool], None]) -> None:
        self._instance, self._method, self._when, self._finish = instance, method, when, finish

    def run(self) -> None:
        """Call the method."""
        self._instance.tick(self._method)
        self._finish(True)

    def failed(self, error: BaseException) -> None:
        """Say so; the next tick comes."""
        held = isinstance(error, InSafeState)  # told once, when the safe state began
        try:
            if not held:
                self._instance.report(f"{self._instance.spec.name}.{self._method} (every {self._when})", error, {})
        finally:
            self._finish(not held)


def _payload_shown(inbound: Inbound) -> str:
    try:
        return shown(inbound.unpack().value)
    except PayloadError:
        return f"{len(inbound.delivery.payload)} bytes: {shown(inbound.delivery.payload[:200])}"
