"""The half of the front door that calls other instances: `get`, `save` and their kin, proxies, `sync`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ether.decorators import ether_sync
from ether.spec.marks import MarkKind

if TYPE_CHECKING:
    from ether.session.client import Client
    from ether.session.lease_client import InstanceLease

F = TypeVar("F", bound=Callable[..., Any])

CALL_TIMEOUT_S = 10.0
LATER_TIMEOUT_S = 3600.0


class Calling(ABC):
    """Calls, for whoever has joined a session."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The way into the session; raises `NotJoined`, which names the call."""

    # -- calls

    def get(self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call a method marked `ether_get` in another process, and return its value.

        `service` is an instance's name, or a class name: then any ready instance of it, the least busy first.
        `params` maps to the method's arguments as a message does. `timeout_s` is a deadline that travels along: an
        expired request is not run.

        Raises `RemoteError` (also the builtin that the method raised), `NoResponder`, `InstanceLost`,
        `RequestTimeout`, `ValidationFailed`.
        """
        return self._joined("ether.get()").call(service, method, params, timeout_s, MarkKind.GET)

    def save(
        self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """Call a method marked `ether_save`, so that the call survives: it is on disk before it is sent, is sent until
        it is answered, and is run once, whatever is restarted meanwhile.

        Returns `{"status": "success", "result": …, "message": …}`; for what went wrong and will not be tried again
        `{"status": "error", "error": …, "message": …}`; for what is not answered by the deadline
        `{"status": "pending", "call_id": …, "message": …}`: it goes on, after the end of this program by the next that
        runs in this session, and `ether.collect(call_id)` tells what became of it.
        """
        return self._joined("ether.save()").save(service, method, params, timeout_s)

    async def aget(self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """`get` for async code: any number may be in flight."""
        return await self._joined("ether.aget()").call_async(service, method, params, timeout_s, MarkKind.GET)

    async def asave(
        self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """`save` for async code."""
        return await self._joined("ether.asave()").save_async(service, method, params, timeout_s)

    def get_later(self, service: str, method: str, params: object = None, timeout_s: float = LATER_TIMEOUT_S) -> str:
        """Begin a `get`; returns at once an id for `collect`, `cancel` and `progress_of`."""
        return self._joined("ether.get_later()").begin_later(service, method, params, timeout_s, MarkKind.GET)

    def save_later(self, service: str, method: str, params: object = None, timeout_s: float = LATER_TIMEOUT_S) -> str:
        """Begin a `save`; returns at once an id."""
        return self._joined("ether.save_later()").begin_later(service, method, params, timeout_s, MarkKind.SAVE)

    @overload
    def collect(self, call_id: str, timeout_s: float | None = None, *, show: bool = False) -> Any: ...
    @overload
    def collect(self, call_id: Sequence[str], timeout_s: float | None = None, *, show: bool = False) -> list[Any]: ...
    def collect(self, call_id: str | Sequence[str], timeout_s: float | None = None, *, show: bool = False) -> Any:
        """What `get` or `save` would have returned or raised, once it is there; of several, a list in their order.

        `timeout_s` bounds the wait: it raises `TimeoutError`, and the call goes on. `show` draws its progress as a bar
        on standard error. Of a save that is pending it tells the status as it is now, or in `timeout_s` seconds.
        """
        client = self._joined("ether.collect()")
        if isinstance(call_id, str):
            return _collected(client, call_id, timeout_s, show)
        return [_collected(client, each, timeout_s, show) for each in call_id]

    def cancel(self, call_id: str) -> None:
        """Tell the method that its result is not wanted any more; `collect` then raises `Cancelled` as soon as the
        method heeds it, at its next `ether.progress()` or `ether.cancelled()`. What waits in a queue is not begun."""
        self._joined("ether.cancel()").cancel(call_id)

    def progress(self, fraction: float, text: str = "") -> None:
        """Inside of a method: report how far it is (0 to 1). Raises `Cancelled` where the caller has cancelled.
        Outside of a call it does nothing."""
        from ether.calls.server import tell_progress
        from ether.connection.causes import current

        if (call := current().call) is not None:
            tell_progress(call, fraction, text)

    def cancelled(self) -> bool:
        """Inside of a method: True where the caller has cancelled."""
        from ether.connection.causes import current

        call = current().call
        return call is not None and call.cancelled

    def progress_of(self, call_id: str) -> tuple[float, str] | None:
        """How far a call is, as its method last reported: fraction and text; None where it has reported nothing."""
        return self._joined("ether.progress_of()").later(call_id).progress

    def log_of(self, call_id: str) -> list[dict[str, Any]]:
        """What the method of a call has logged so far, on whichever machine: `time`, `level`, `message`."""
        return list(self._joined("ether.log_of()").later(call_id).log)

    def instance(self, name: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """An object with the methods of a running instance: `ether.instance("camera1").snap(exposure=0.1)`.

        Names, signatures and docstrings are the remote class's own, from its announcement; nothing is imported. A
        method marked `ether_get` returns its value, one marked `ether_save` a status. Raises `NoResponder`.
        """
        return self._joined("ether.instance()").proxy(name, timeout_s, of_class=False)

    def service(self, class_name: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """The same for a class: each call goes to one of its ready instances, the least busy first."""
        return self._joined("ether.service()").proxy(class_name, timeout_s, of_class=True)

    def lease(self, name: str, *, reason: str = "", timeout_s: float = CALL_TIMEOUT_S) -> InstanceLease:
        """Have an instance for this program alone: `with ether.lease("camera1", reason="calibration"): …`. Within the
        block calls and syncs of all other programs and instances are refused (`InstanceLeased`, which names this one);
        what they had begun is waited for, at most `timeout_s` seconds. It ends with the block, and by itself when this
        program dies.

        Raises, on entering, `InstanceLeased` where somebody else has it, `NoResponder`, `RequestTimeout`; at the end of
        the block `LeaseEnded` where it ended before: the instance was started again, or this program was cut off.
        """
        from ether.session.lease_client import InstanceLease
        from ether.system.process_owner import owner_facts

        client = self._joined("ether.lease()")
        return InstanceLease(client, name, reason, timeout_s, owner_facts(client.link.source, ""))

    # -- all together

    @overload
    def sync(self, topic: str, /, *, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> dict[str, Any]: ...
    @overload
    def sync(self, /, *, topic: str) -> Callable[[F], F]: ...
    def sync(self, called: str | None = None, /, *, topic: str | None = None, timeout_s: float = CALL_TIMEOUT_S,
             **arguments: Any) -> Any:  # fmt: skip
        """`ether.sync("prepare_trial", exposure=0.1)` runs every method marked with that sync topic on all ready
        instances at the same time, and returns what each returned. `@ether.sync(topic="prepare_trial")` marks one.

        Raises `SyncError` that names who failed, died or did not answer within `timeout_s` seconds; `NoResponder` where
        nobody has such a method. An instance that joins after the call began is not waited for.
        """
        if called is None:
            return ether_sync(topic=topic)
        if topic is not None:
            arguments["topic"] = topic
        client = self._joined("ether.sync()")
        client.session.open(timeout_s)
        return client.session.sync(called, arguments, timeout_s)


def _collected(client: Client, call_id: str, timeout_s: float | None, show: bool) -> Any:
    from ether.calls.progress import ProgressBar

    pending = client.later(call_id)
    bar = ProgressBar(pending.call) if show else None
    if bar is not None:
        pending.watch(bar.draw)
    try:
        return client.collect(call_id, timeout_s)
    finally:
        if bar is not None:
            bar.close()
