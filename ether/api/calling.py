"""The part of the front door that calls other instances: `get`, `save` and their variants, proxies, leases, `sync`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ether.decorators import ether_sync
from ether.protocol.request_table import CALL_TIMEOUT_S
from ether.spec.marks import MarkKind

if TYPE_CHECKING:
    from ether.session.client import Client
    from ether.session.lease_client import InstanceLease

F = TypeVar("F", bound=Callable[..., Any])

LATER_TIMEOUT_S = 3600.0


class Calling(ABC):
    """Calls, for programs and instances that have a session."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The access to the session. Raises `NotJoined`, which names the call."""

    # -- calls

    def get(self, service: str, method: str, params: object = None, timeout_s: float | None = None) -> Any:
        """Call a method marked `ether_get` in another process, and return its value.

        `service` is the name of an instance, or of a class; of a class, the least busy ready instance is called.
        `params` are mapped to the method's arguments like the payload of a message: a dict by name, anything else to
        the sole parameter. `timeout_s` is a deadline in seconds that is sent along: a request that has expired is not
        run. Left out, it is 10 s, and as long as the method says that it takes (`takes`).

        Raises `RemoteError` where the method raises; its class is also that of the builtin exception, so that
        `except ValueError` works. Raises `NoResponder` where there is no such instance or method, `InstanceLost` where
        the instance dies, `RequestTimeout`, `ValidationFailed` for arguments that do not fit.
        """
        return self._joined("ether.get()").call(service, method, params, timeout_s, MarkKind.GET)

    def save(self, service: str, method: str, params: object = None, timeout_s: float | None = None) -> dict[str, Any]:
        """Call a method marked `ether_save` durably: the call is written to disk before it is sent, is sent again
        until it is answered, and is run exactly once, whatever is restarted meanwhile. Parameters are those of `get`.

        Returns a dict, and raises nothing for a call that fails:

        - `{"status": "success", "result": …, "message": …}`;
        - `{"status": "error", "error": "ValueError: …", "message": …}` for a failure that is final;
        - `{"status": "pending", "call_id": …, "message": …}` for a call without an answer by the deadline. It goes on,
          after the end of this program by the next one of this session. `ether.collect(call_id)` returns its result.
        """
        return self._joined("ether.save()").save(service, method, params, timeout_s)

    async def aget(self, service: str, method: str, params: object = None, timeout_s: float | None = None) -> Any:
        """`get` for async code. Any number of calls may be under way; cancelling the task cancels the call."""
        return await self._joined("ether.aget()").call_async(service, method, params, timeout_s, MarkKind.GET)

    async def asave(
        self, service: str, method: str, params: object = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """`save` for async code. Cancelling the task cancels the call."""
        return await self._joined("ether.asave()").save_async(service, method, params, timeout_s)

    def get_later(self, service: str, method: str, params: object = None, timeout_s: float = LATER_TIMEOUT_S) -> str:
        """Begin a `get`, and return at once its id, for `collect`, `cancel`, `progress_of` and `log_of`. Raises
        `NoResponder`, `RequestTimeout`."""
        return self._joined("ether.get_later()").begin_later(service, method, params, timeout_s, MarkKind.GET)

    def save_later(self, service: str, method: str, params: object = None, timeout_s: float = LATER_TIMEOUT_S) -> str:
        """Begin a `save`, and return at once its id; as `get_later`."""
        return self._joined("ether.save_later()").begin_later(service, method, params, timeout_s, MarkKind.SAVE)

    @overload
    def collect(self, call_id: str, timeout_s: float | None = None, *, show: bool = False) -> Any: ...
    @overload
    def collect(self, call_id: Sequence[str], timeout_s: float | None = None, *, show: bool = False) -> list[Any]: ...
    def collect(self, call_id: str | Sequence[str], timeout_s: float | None = None, *, show: bool = False) -> Any:
        """Wait for a call that was begun with `get_later` or `save_later`, and return or raise what `get` or `save`
        would. Of several ids, the results are a list in the same order.

        After `timeout_s` seconds (default: the call's own deadline) `TimeoutError` is raised, and the call goes on. A
        save that is pending past its deadline gives its status after `timeout_s` seconds, at once without. With `show`,
        the method's progress is drawn on standard error. Raises `KeyError` for an id that was collected before.
        """
        client = self._joined("ether.collect()")
        if isinstance(call_id, str):
            return _collected(client, call_id, timeout_s, show)
        return [_collected(client, each, timeout_s, show) for each in call_id]

    def cancel(self, call_id: str) -> None:
        """Ask for the end of a call. A call that has not begun is not run. A method that runs notices it at its next
        `ether.progress()` or `ether.cancelled()`; when it has ended, `collect` raises `Cancelled`."""
        self._joined("ether.cancel()").cancel(call_id)

    def progress(self, fraction: float, text: str = "") -> None:
        """Inside of a method: report its progress to the caller, as a fraction from 0 to 1 and a text. Raises
        `Cancelled` where the caller has cancelled. Outside of a call it does nothing."""
        from ether.calls.server import tell_progress
        from ether.connection.causes import current

        if (call := current().call) is not None:
            tell_progress(call, fraction, text)

    def cancelled(self) -> bool:
        """Inside of a method: whether the caller has cancelled the call. False outside of a call."""
        from ether.connection.causes import current

        call = current().call
        return call is not None and call.cancelled

    def progress_of(self, call_id: str) -> tuple[float, str] | None:
        """The last progress that the method of a call has reported, as fraction (0 to 1) and text; None before the
        first report. Raises `KeyError` for an unknown id."""
        return self._joined("ether.progress_of()").later(call_id).progress

    def log_of(self, call_id: str) -> list[dict[str, Any]]:
        """The log records of the method of a call so far, from any machine, as dicts: `time` (unix seconds), `level`,
        `message`. Raises `KeyError` for an unknown id."""
        return list(self._joined("ether.log_of()").later(call_id).log)

    def instance(self, name: str, *, timeout_s: float | None = None) -> Any:
        """A proxy of an instance: `ether.instance("camera1").snap(exposure=0.1)` calls the remote method `snap`.

        Its methods have the names, signatures and docstrings of the remote class, as the instance announces them; the
        class itself is not imported. A method marked `ether_get` returns its value, one marked `ether_save` a status.
        `timeout_s` bounds each call, in seconds, as of `get`. Raises `NoResponder` where there is no such instance.
        """
        return self._joined("ether.instance()").proxy(name, timeout_s, of_class=False)

    def service(self, class_name: str, *, timeout_s: float | None = None) -> Any:
        """A proxy of a class: each call goes to the least busy of its ready instances. Otherwise as `instance`."""
        return self._joined("ether.service()").proxy(class_name, timeout_s, of_class=True)

    def lease(self, name: str, *, reason: str = "", timeout_s: float = CALL_TIMEOUT_S) -> InstanceLease:
        """Exclusive use of an instance: `with ether.lease("camera1", reason="calibration"): …`.

        Inside of the block, the instance refuses calls and syncs of all other programs and instances (`InstanceLeased`,
        which names this program and the `reason`). On entering, calls that are under way are awaited, for at most
        `timeout_s` seconds. The lease ends with the block, and by itself when this program dies.

        Raises on entering `InstanceLeased` where another program has the lease, `NoResponder`, `RequestTimeout`. Raises
        at the end of the block `LeaseEnded` where the lease ended before: the instance was restarted, or this program
        was disconnected for too long.
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
        """Call or mark. `ether.sync("prepare_trial", exposure=0.1)` runs every method that is marked with this sync
        topic, on all ready instances at the same time, and waits for all of them. `@ether.sync(topic="prepare_trial")`
        marks a method.

        Returns the results by instance name; for an instance with several such methods, a dict by method name.

        Raises `SyncError`, which names each instance that failed, died or did not answer within `timeout_s` seconds;
        `NoResponder` where no ready instance has such a method. An instance that joins during the call is not awaited.
        """
        if called is None:
            return ether_sync(topic=topic)
        if topic is not None:
            arguments["topic"] = topic
        return self._joined("ether.sync()").sync(called, arguments, timeout_s)


def _collected(client: Client, call_id: str, timeout_s: float | None, show: bool) -> Any:
    from ether.calls.progress import ProgressBar

    pending = client.later(call_id)
    bar = ProgressBar(pending.call) if show else None
    try:
        if bar is not None:
            pending.watch(bar.draw)
        return client.collect(call_id, timeout_s)
    except KeyboardInterrupt:
        from ether.log import get_ether_logger

        get_ether_logger().warning(
            "%s goes on although nobody waits for it; ether.cancel(%r) asks for its end, ether.collect(%r) waits again",
            pending.call, call_id, call_id,
        )  # fmt: skip
        raise
    finally:
        if bar is not None:
            bar.close()
