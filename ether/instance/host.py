"""What the parts of an instance need of it, as Protocols: a part never takes `HostedInstance` itself.

`HostedInstance` builds its parts and keeps them; these Protocols say which of its methods each part may use. What calls
and leases need is stated in the room below (`ether.calls.host`, `ether.calls.lease_server`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ether.calls.lease_server import LeaseHost, LeaseServer
from ether.connection.link import Inbound
from ether.protocol.barrier import Answer
from ether.spec.methods import ClassSpec, MethodSpec
from ether.wire.topics import SessionTopics

if TYPE_CHECKING:
    from ether.recording.writer import RecordWriter


class InstanceHost(LeaseHost, Protocol):
    """What every part needs: the instance's identity, its logger and worker, and `report()`."""

    @property
    def object(self) -> object:
        """The user's object."""

    @property
    def spec(self) -> ClassSpec:
        """The class and its marked methods."""

    @property
    def topics(self) -> SessionTopics:
        """The topics of the session."""

    @property
    def incarnation(self) -> str:
        """The id under which this start of the instance is announced."""


class DeviceHost(InstanceHost, Protocol):
    """Calls methods of the object on the instance's own account."""

    def function(self, name: str) -> Callable[..., Any]:
        """A property's reader or setter, or the object's own method."""

    def call_own(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method, by its name or path, that no message caused; raises whatever goes wrong."""


class DriverHost(InstanceHost, Protocol):
    """Publishes what a driver says by itself."""

    @property
    def closed(self) -> bool:
        """Whether the last steps have begun."""

    def taken_by_driver(self, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The driver has called a function that was handed over to it; never raises."""

    def stream(self, method: str, stopped: threading.Event) -> bool:
        """Call a streaming method once and publish what comes; whether it is to be called again at once."""


class JobHost(InstanceHost, Protocol):
    """Handles messages and ticks."""

    def handle(self, inbound: Inbound, method: MethodSpec) -> None:
        """Decode, validate, call; raises whatever goes wrong."""

    def tick(self, method: str) -> None:
        """Call a method because its time has come; raises whatever goes wrong."""

    def finished(self, inbound: Inbound, method: str) -> None:
        """A message is done with, whatever became of it."""


class ControlHost(InstanceHost, Protocol):
    """Carries out what the control plane asks for."""

    @property
    def lease_server(self) -> LeaseServer:
        """Refuses syncs while another program holds the lease."""

    @property
    def record_writer(self) -> RecordWriter | None:
        """None where this instance records nothing."""

    def pass_on(self) -> None:
        """Leave the messages that have not been begun to the next incarnation, where it can get them."""

    @property
    def closed(self) -> bool:
        """Whether the last steps have begun: nothing else is run any more."""

    def begin_no_message(self) -> None:
        """The end has come before all messages were handled: begin no more of them."""

    def begin_end(self) -> None:
        """The cleanup begins: from now on nothing is run but the last steps."""

    def perform(self, verb: str, asked: Mapping[str, Any]) -> Answer | None:
        """Carry out a control verb on the worker; None for a verb that is not known."""

    def make_safe(self, why: str, tell: Callable[[Answer], object]) -> None:
        """Ask for the safe state, or for its end; `tell` gets the answer. Returns at once."""

    def status(self) -> dict[str, object]:
        """What the instance is doing now."""
