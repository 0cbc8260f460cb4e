"""What calls need of the instance that answers them.

An instance lies above this room (`ether.instance.hosted`), so this room states its needs as Protocols. What a lease
needs stands beside it (`ether.calls.lease_server.LeaseHost`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ether.calls.lease_server import LeaseHost, LeaseServer
from ether.connection.causes import CallContext
from ether.connection.inputs import Lineage
from ether.connection.worker import Job
from ether.protocol.presence import Announcement
from ether.spec.methods import ClassSpec


class CallRecorder(Protocol):
    """Brings served calls to disk."""

    def wants(self, topic: str) -> bool:
        """Whether the session records this topic, or the calls of this `instance.method`."""

    def keep_call(
        self, call: str, message_id: str | None, value: object, lineage: Lineage, caller: str,
        origin: str | None = None,
    ) -> None:  # fmt: skip
        """Record a call. Raises `EtherError` and `ValueError`."""


class CallRequest(NamedTuple):
    """A call, received or made within the process. `deadline` is on the monotonic clock."""

    method: str
    caller: str
    correlation: bytes | None
    message_id: str | None
    trace: str | None
    deadline: float | None
    watched: bool
    parents: tuple[str, ...] = ()
    asker: str = ""
    """The reply topic, which identifies the calling program."""
    origin: str | None = None
    """As `Headers.origin`."""


class CallHost(LeaseHost, Protocol):
    """What answering a call needs of its instance."""

    @property
    def spec(self) -> ClassSpec:
        """The class and its marked methods."""

    @property
    def incarnation(self) -> str:
        """The id under which this start of the instance is announced."""

    @property
    def lease_server(self) -> LeaseServer:
        """Refuses calls while another program holds the lease."""

    @property
    def record_writer(self) -> CallRecorder | None:
        """None where this instance records nothing."""

    def status(self) -> dict[str, object]:
        """What the instance is doing now."""

    def cannot_call(self, method: str) -> str | None:
        """Why a method cannot be called from outside; None where it can. Asked when a call arrives, and when its turn
        has come."""

    def takes_turn(self, method: str) -> bool:
        """Whether a method runs in turn with messages, and not on threads of its own."""

    def before(self, method: str, job: Job, node: str) -> int | None:
        """How many jobs are to be run before a call that waits; None where it does not wait."""

    def messages_of(self, node: str) -> int:
        """How many messages of a sender wait on the worker."""

    def serves(self, trace: str | None) -> bool:
        """Whether a handler waits for this chain of calls."""

    def submit_call(self, method: str, job: Job, trace: str | None, node: str) -> None:
        """Queue a call of that node."""

    def call(self, request: CallRequest, payload: object, call: CallContext) -> Any:
        """Validate the payload and call the method that is asked for; raises whatever goes wrong."""

    def count_expired(self) -> None:
        """A request was not run, because its deadline had passed."""


class LocalCallee(CallHost, Protocol):
    """An instance of this very process, which is called without the broker."""

    def call_here(self, method: str, job: Job, trace: str | None, node: str) -> None:
        """Run a call of that node, or queue it where a job runs."""

    def announcement(self) -> Announcement:
        """What is announced of the instance while it is ready."""
