"""The front door. `Ether` is a plain class; `ether.ether` is one instance of it, and nothing below imports it.

The object holds at most one session: one that it started (`tap`), or one that it was given because this process
is an instance. It does nothing until `tap()`: importing costs no thread, no socket and no file.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ether.decorators import ether_sync
from ether.errors import CallError, LifecycleFailed, NotAllowedHere, NotJoined, ValidationFailed
from ether.protocol.answers import error_status, status_of
from ether.spec.marks import START_TOPIC, MarkKind

if TYPE_CHECKING:
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.process.launch import Launch
    from ether.runtime.changes import Changes
    from ether.runtime.client import Client, Subscription

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 10.0
LATER_TIMEOUT_S = 3600.0


class Ether:
    """A program's way into a session."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._launch: Launch | None = None
        self._client: Client | None = None
        self._changes: Changes | None = None
        self._pid = os.getpid()

    # -- joining and leaving

    def tap(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | EtherConfig | None = None,
        *,
        session: str | None = None,
        broker: str | Mapping[str, Any] | None = None,
        restart: bool = False,
        takeover: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Ether:
        """Join the running session, or start one; returns when every autorun instance of `config` is ready.

        `config` is a path to a YAML file, a dict or an `EtherConfig`; `session` and `broker` (a URL, "embedded", or a
        mapping such as `{"engine": "amqtt"}`) take the place of what it says. Without a configuration the running
        session is looked for (docs/discovery.md); a configuration that names no session starts one of its own. A
        program that joined takes its own instances along when it leaves, and nobody else's.

        `restart` ends a session that this program has, first. `takeover` replaces instances of the same names that
        others run. Returns this object, which is a context manager that shuts down at the end.

        Raises `ConfigError`; `StartFailed`, which names each instance that is not ready and shows its traceback;
        `NameTaken`; `SeveralSessions`; `BrokerFailed`; `BrokerUnreachable`; `NotAllowedHere` inside of an instance or
        when a session runs already. Nothing is left running after an error.
        """
        from ether.config import load_config

        with self._lock:
            self._make_room(restart)
            described = load_config(config)
            given = {key: value for key, value in (("session", session), ("broker", broker)) if value is not None}
            merged = load_config({**dict(described), **given}) if given else described
            self._start(merged, takeover, timeout_s)
        return self

    def shutdown(self) -> None:
        """End the session that this program started: work in flight drains, then save_all, cleanup and stop run
        everywhere, in that order. Without a session nothing happens.

        Raises `LifecycleFailed` with everything that went wrong, when all is over.
        """
        problems = self._stop()
        if problems:
            raise LifecycleFailed("shutdown", problems)

    def save_all(self) -> dict[str, list[str]]:
        """Run every method marked `ether_save_all`; returns the names of the methods that ran, by instance.

        Raises `LifecycleFailed` that names who failed, died or did not answer.
        """
        return self._launched("ether.save_all()").lifecycle("save_all")

    def cleanup(self) -> dict[str, list[str]]:
        """Run every method marked `ether_cleanup`; as `save_all`."""
        return self._launched("ether.cleanup()").lifecycle("cleanup")

    # -- messages

    def start(self) -> None:
        """Publish to the topic `start`, for which `@ether_start()` methods wait."""
        self._joined("ether.start()").publish(None, START_TOPIC)

    def pub(self, data: object = None, topic: str = "general", *, qos: int = 1) -> None:
        """Publish a dict, model, dataclass, list, number, string, bytes or numpy array (any shape and dtype).

        `qos` 1 arrives at least once while sender, broker and receiver live; 0 may be lost. Returns when the message
        is on its way. Raises `EncodeError` with the place inside `data` that cannot be sent, `PayloadTooLarge`,
        `PublishTimeout`.
        """
        self._joined("ether.pub()").publish(data, topic, qos)

    def subscribe(self, topic: str, *, qos: int = 1) -> Subscription:
        """Receive a topic's messages in this program (`+` and `#` are wildcards): a context manager with
        `get(timeout_s=…)`, and an iterator. No message published after this call returns is missed."""
        return self._joined("ether.subscribe()").subscribe(topic, qos)

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
        """Call a method marked `ether_save`; returns `{"status": "success", "result": …, "message": …}`, or, for
        whatever went wrong, `{"status": "error", "error": …, "message": …}`."""
        from ether.runtime.client import as_status

        client = self._joined("ether.save()")
        return as_status(lambda: client.call(service, method, params, timeout_s, MarkKind.SAVE), f"{service}.{method}")

    async def aget(self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """`get` for async code: any number may be in flight."""
        return await self._joined("ether.aget()").call_async(service, method, params, timeout_s, MarkKind.GET)

    async def asave(
        self, service: str, method: str, params: object = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, Any]:
        """`save` for async code."""
        client = self._joined("ether.asave()")
        try:
            result = await client.call_async(service, method, params, timeout_s, MarkKind.SAVE)
        except (CallError, ValidationFailed) as error:
            return error_status(error)
        return status_of(result, f"{service}.{method}")

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
        on standard error.
        """
        client = self._joined("ether.collect()")
        if isinstance(call_id, str):
            return _collected(client, call_id, timeout_s, show)
        return [_collected(client, each, timeout_s, show) for each in call_id]

    def cancel(self, call_id: str) -> None:
        """Tell the method that its result is not wanted any more; `collect` then raises `Cancelled` as soon as the
        method heeds it, at its next `ether.progress()` or `ether.cancelled()`. What waits in a queue is not begun."""
        client = self._joined("ether.cancel()")
        client.session.calls.cancel(client.later(call_id))

    def progress(self, fraction: float, text: str = "") -> None:
        """Inside of a method: report how far it is (0 to 1). Raises `Cancelled` where the caller has cancelled.
        Outside of a call it does nothing."""
        from ether.runtime.context import current
        from ether.runtime.serving import tell_progress

        if (call := current().call) is not None:
            tell_progress(call, fraction, text)

    def cancelled(self) -> bool:
        """Inside of a method: True where the caller has cancelled."""
        from ether.runtime.context import current

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

    def host(self, obj: object, name: str, *, takeover: bool = False) -> None:
        """Make a live object of this program an instance: others call it and it receives messages, on a thread of its
        own. Calls from this program reach it directly, without the broker. Raises `NameTaken`, or with `takeover`
        replaces whoever has the name: nothing that the earlier one still sends is heard."""
        self._launched("ether.host()").host(obj, name, takeover=takeover)

    def unhost(self, name: str) -> None:
        """The object leaves the session, and is as it was."""
        self._launched("ether.unhost()").unhost(name)

    # -- one instance, while everything runs

    def add(self, name: str, config: Mapping[str, Any] | EtherInstanceConfig, *, timeout_s: float = DEFAULT_TIMEOUT_S
            ) -> None:  # fmt: skip
        """Start one more instance in this session, described as under `instances:` in the YAML (`{"class_path": …}`).
        Returns when it is ready; raises `ConfigError`, `NameTaken`, `StartFailed`."""
        from ether.config import load_config

        described = load_config({"instances": {name: config}}).named_instances()
        for chosen, instance in described.items():
            self._launched("ether.add()").add(chosen, instance, timeout_s)

    def remove(self, name: str) -> None:
        """Stop one instance that this program started: its work in flight drains, then it saves, cleans up and ends.
        Raises `LifecycleFailed` with what went wrong, `KeyError` for one that this program does not keep."""
        if problems := self._launched("ether.remove()").remove(name):
            raise LifecycleFailed("remove", problems)

    def restart(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Stop one instance of this program in order, and start it again. Calls that come meanwhile wait for it."""
        self._launched("ether.restart()").restart(name, timeout_s)

    # -- who is there

    def instances(self) -> list[dict[str, Any]]:
        """Every instance of the session, by name: `name`, `state`, `class`, `host`, `pid`, `since` (unix seconds),
        `error`, and what else it announces."""
        session = self._joined("ether.instances()").session
        session.open(CALL_TIMEOUT_S)
        return [
            {"name": member.name, "state": member.state.value, "error": member.error, **member.about}
            for member in session.announcements()
            if member.kind == "instance"
        ]

    def session_info(self) -> dict[str, Any]:
        """The session: `session`, `host`, `pid`, `since` (unix seconds), `version` and `broker` of the program that
        started it, and the names of all `instances` and `programs`."""
        session = self._joined("ether.session_info()").session
        session.open(CALL_TIMEOUT_S)
        members = session.announcements()
        return {
            "session": session.topics.session,
            **session.info(CALL_TIMEOUT_S),
            "instances": [member.name for member in members if member.kind == "instance"],
            "programs": [member.name for member in members if member.kind != "instance"],
        }

    def on_change(self, callback: Callable[[dict[str, Any]], object]) -> None:
        """Call `callback` whenever an instance joins, leaves, dies, hangs or comes back, with what `instances()` says
        of it; one change after the other, on a thread of Ether's own. What it raises is logged."""
        from ether.runtime.changes import Changes

        session = self._joined("ether.on_change()").session
        session.open(CALL_TIMEOUT_S)
        if self._changes is None:
            self._changes = Changes(session)
        self._changes.add(callback)

    # -- facts

    @property
    def session_id(self) -> str | None:
        """The name of the session, None outside of one."""
        return self._client.topics.session if self._client else None

    @property
    def broker_url(self) -> str | None:
        """The embedded broker's URL, user and password included, for `mosquitto_sub` and its like; None where the
        broker is not this program's own."""
        return self._launch.broker_url if self._launch else None

    # -- inside

    def adopt(self, client: Client | None) -> None:
        """Make this object speak for an instance of this process (Ether's own child processes and tests do that);
        None ends it."""
        with self._lock:
            self._client, self._launch, self._pid = client, None, os.getpid()

    def _make_room(self, restart: bool) -> None:
        if self._client is not None and self._launch is None:
            raise NotAllowedHere("ether.tap()", "this process is an instance of a session that runs already")
        if self._launch is None:
            return
        if not restart:
            why = (
                f"session {self.session_id!r} runs already; ether.shutdown() ends it, ether.tap(restart=True) does both"
            )
            raise NotAllowedHere("ether.tap()", why)
        self.shutdown()

    def _start(self, config: EtherConfig, takeover: bool, timeout_s: float) -> None:
        from ether.logs import get_ether_logger, install_console
        from ether.process.finding import running_session
        from ether.process.launch import Launch, new_session_name

        install_console()
        config, found = running_session(config, os.environ)
        session = found.name if found is not None else config.session or new_session_name()
        if found is None:
            get_ether_logger().info("Starting Ether session: %s...", session)
        else:
            get_ether_logger().info("Joining Ether session: %s on %s (%s)...", session, found.host, found.how)
        launch = Launch(config, session, found, takeover=takeover)
        self._client = launch.start(timeout_s)
        self._launch, self._pid = launch, os.getpid()
        atexit.register(self._at_exit)
        get_ether_logger().info("Ether system started successfully")

    def _stop(self) -> dict[str, str]:
        with self._lock:
            if self._launch is None or self._pid != os.getpid():  # a forked child must not end its parent's session
                return {}
            from ether.logs import get_ether_logger

            launch, session = self._launch, self.session_id
            atexit.unregister(self._at_exit)
            get_ether_logger().info("%s Ether session: %s...", "Leaving" if launch.joined else "Shutting down", session)
            try:
                problems = launch.stop()
            finally:
                self._launch = self._client = None
                if self._changes is not None:
                    self._changes.close()
                    self._changes = None
            get_ether_logger().info("Ether system shutdown complete")
            return problems

    def _at_exit(self) -> None:
        self._stop()  # what went wrong is in the log

    def _joined(self, call: str) -> Client:
        if self._client is None:
            raise NotJoined(call)
        return self._client

    def _launched(self, call: str) -> Launch:
        if self._launch is None:
            if self._client is not None:
                raise NotAllowedHere(call, "an instance cannot wait for all instances; call it in the main program")
            raise NotJoined(call)
        return self._launch

    def __enter__(self) -> Ether:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<Ether: {f'session {self.session_id!r}' if self._client else 'no session'}>"


def _collected(client: Client, call_id: str, timeout_s: float | None, show: bool) -> Any:
    from ether.runtime.client import as_status
    from ether.runtime.progress_bar import ProgressBar

    pending = client.later(call_id)
    bar = ProgressBar(pending.call) if show else None
    if bar is not None:
        pending.watch(bar.draw)
    try:
        if pending.kind is not MarkKind.SAVE:
            return client.collect(call_id, timeout_s)
        return as_status(lambda: client.collect(call_id, timeout_s), pending.call)
    finally:
        if bar is not None:
            bar.close()
