"""The front door. `Ether` is a plain class; `ether.ether` is one instance of it, and nothing below imports it.

The object holds at most one session: one that it started (`tap`), or one that it was given because this process
is an instance. It does nothing until `tap()`: importing costs no thread, no socket and no file.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.api.calling import CALL_TIMEOUT_S, Calling
from ether.api.reading import Reading
from ether.api.running import Running
from ether.errors import LifecycleFailed, NotAllowedHere, NotJoined
from ether.spec.marks import START_TOPIC

if TYPE_CHECKING:
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.launch.launcher import Launch
    from ether.protocol.presence import Announcement
    from ether.recording.receipt import Saved
    from ether.session.changes import Changes
    from ether.session.client import Client, Subscription

DEFAULT_TIMEOUT_S = 30.0


class Ether(Calling, Reading, Running):
    """A program's way into a session."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._launch: Launch | None = None
        self._client: Client | None = None
        self._changes: Changes | None = None
        self._watch: Callable[[Announcement], object] | None = None
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
        sim: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Ether:
        """Join the running session, or start one; returns when every autorun instance of `config` is ready.

        `config` is a path to a YAML file, a dict or an `EtherConfig`; `session` and `broker` (a URL, "embedded", or a
        mapping such as `{"engine": "amqtt"}`) take the place of what it says. Without a configuration the running
        session is looked for (docs/discovery.md); a configuration that names no session starts one of its own. A
        program that joined takes its own instances along when it leaves, and nobody else's.

        `restart` ends a session that this program has, first. `takeover` replaces instances of the same names that
        others run. `sim` puts the simulated lab of the configuration's `simulate:` in place of the bench: no hardware
        is touched, and every record says so. Returns this object, a context manager that shuts down at the end.

        Raises `ConfigError`; `StartFailed`, which names each instance that is not ready and shows its traceback;
        `NameTaken`; `SeveralSessions`; `BrokerFailed`; `BrokerUnreachable`; `NotAllowedHere` inside of an instance or
        when a session runs already. Nothing is left running after an error.
        """
        from ether.config import changed, load_config

        with self._lock:
            self._make_room(restart)
            described = load_config(config)
            given = {key: value for key, value in (("session", session), ("broker", broker)) if value is not None}
            merged = changed(described, **given) if given else described
            self._start(merged, takeover, sim, timeout_s)
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

    def pub(self, data: object = None, topic: str = "general", *, qos: int = 1, save: bool = False) -> Saved | None:
        """Publish a dict, model, dataclass, list, number, string, bytes or numpy array (any shape and dtype).

        `qos` 1 arrives at least once while sender, broker and receiver live; 0 may be lost. Returns when the message
        is on its way. Raises `EncodeError` with the place inside `data` that cannot be sent, `PayloadTooLarge`,
        `PublishTimeout`.

        With `save`, or where the session records the topic, it is on disk in the end, once, whatever is killed
        meanwhile; what is returned tells when: `ether.pub(7, topic="dose", save=True).wait()`. Raises `OutboxFull`.
        """
        return self._joined("ether.pub()").publish(data, topic, qos, save=save)

    def record(self, value: object, name: str = "value") -> Saved:
        """Bring a value to disk that nobody needs to hear of, under a name. Returns at once; `.wait()` of what is
        returned returns when it is on disk, synced. Inside of a handler the message that is being handled is noted as
        its cause. Raises `EncodeError`, `PayloadTooLarge`, `OutboxFull`."""
        return self._joined("ether.record()").record(value, name)

    def flush(self, timeout_s: float = CALL_TIMEOUT_S) -> int:
        """Wait until all that this process gave to be saved is on disk; returns how many entries are not."""
        from ether.connection.deadline import Deadline

        record_writer = self._joined("ether.flush()").record_writer
        return 0 if record_writer is None else record_writer.flush(Deadline(timeout_s))

    def subscribe(self, topic: str, *, qos: int = 1) -> Subscription:
        """Receive a topic's messages in this program (`+` and `#` are wildcards): a context manager with
        `get(timeout_s=…)`, and an iterator. No message published after this call returns is missed."""
        return self._joined("ether.subscribe()").subscribe(topic, qos)

    # -- objects of this program

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
        `error`, and what else it announces. `last_known` is true while this program has no connection: the rest is as
        it was when it was lost, and `offline_since` (unix seconds) says when that was."""
        session = self._joined("ether.instances()").session
        session.open(CALL_TIMEOUT_S)
        since = session.link.offline_since
        stale = {"last_known": False} if since is None else {"last_known": True, "offline_since": since}
        return [
            {"name": member.name, "state": member.state.value, "error": member.error, **stale, **member.about}
            for member in session.announcements()
            if member.kind == "instance"
        ]

    def session_info(self) -> dict[str, Any]:
        """The session: `session`, `host`, `pid`, `since` (unix seconds), `version` and `broker` of the program that
        started it, and the names of all `instances` and `programs`. `offline_since` (unix seconds) says since when this
        program has no connection, and the rest is what it knew then; None while it has one."""
        session = self._joined("ether.session_info()").session
        session.open(CALL_TIMEOUT_S)
        members = session.announcements()
        return {
            "session": session.topics.session,
            **session.info(CALL_TIMEOUT_S),
            "offline_since": session.link.offline_since,
            "instances": [member.name for member in members if member.kind == "instance"],
            "programs": [member.name for member in members if member.kind != "instance"],
        }

    def on_change(self, callback: Callable[[dict[str, Any]], object]) -> None:
        """Call `callback` whenever an instance joins, leaves, dies, hangs or comes back, with what `instances()` says
        of it; one change after the other, on a thread of Ether's own. What it raises is logged."""
        from ether.session.changes import Changes

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

    # -- for programs that run others' sessions, such as the command line

    def watch_start(self, event: Callable[[Announcement], object]) -> None:
        """Tell `event` of every change in the table of members from the next `tap()` on, while it is still waiting. It
        is called on the dispatch thread and must only note something; `on_change` is for everybody else."""
        self._watch = event

    def on_shutdown_asked(self, callback: Callable[[], object]) -> None:
        """Let other programs end this session (`ether down`): `callback` is called, on a thread of Ether's own, when
        one of them asks, and should lead to `ether.shutdown()` on another thread."""
        self._launched("ether.on_shutdown_asked()").on_shutdown_asked(callback)

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

    def _start(self, config: EtherConfig, takeover: bool, sim: bool, timeout_s: float) -> None:
        from ether.launch.launcher import Launch
        from ether.launch.simulated_lab import all_here
        from ether.log import get_ether_logger, install_console
        from ether.session.discovery.search import remember, running_session, starting_alone, with_environment
        from ether.session.name_claim import new_session_name
        from ether.system.folders import calls_folder, file_name

        install_console()
        config = with_environment(all_here(config) if sim else config, os.environ)
        found = running_session(config, os.environ)
        with starting_alone(None if found is not None else config.session, timeout_s):
            if found is None and config.session is not None:
                found = running_session(config, os.environ)  # it may have been started while we waited
            session = found.name if found is not None else config.session or new_session_name()
            if found is None:
                get_ether_logger().info("Starting Ether session: %s...", session)
            else:
                get_ether_logger().info("Joining Ether session: %s on %s (%s)...", session, found.host, found.how)
            launch = Launch(config, session, found, takeover=takeover, sim=sim)
            client = self._client = launch.start(timeout_s, self._watch)
            client.keep_saves(lambda: calls_folder(session), file_name(client.link.source), own=False)
        if found is not None:
            remember(found, os.environ)
        self._launch, self._pid = launch, os.getpid()
        atexit.register(self._at_exit)
        get_ether_logger().info("Ether system started successfully")

    def _stop(self) -> dict[str, str]:
        with self._lock:
            if self._launch is None or self._pid != os.getpid():  # a forked child must not end its parent's session
                return {}
            from ether.log import get_ether_logger

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
