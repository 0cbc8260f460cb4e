"""The front door. `Ether` is a plain class; `ether.ether` is one instance of it, and no lower layer imports it.

An object has at most one session: one that it started or joined (`tap`), or one that it was given because this process
runs an instance (`adopt`). Promise: nothing happens before `tap()`; importing starts no thread, opens no socket and
writes no file. The trap: imports inside of the methods are deliberate, since a test weighs what `import ether` loads.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ether.api.calling import Calling
from ether.api.lineage import Making
from ether.api.plotting import Plotting
from ether.api.reading import Reading
from ether.api.running import Running
from ether.api.watching import Watching
from ether.errors import LifecycleFailed, NotAllowedHere, NotJoined
from ether.errors.keywords import named_keywords
from ether.protocol.request_table import CALL_TIMEOUT_S
from ether.spec.marks import START_TOPIC
from ether.spec.nothing import NOTHING

if TYPE_CHECKING:
    from ether.config import EtherConfig, EtherInstanceConfig
    from ether.launch.launcher import Launch
    from ether.launch.template.ground import Ground
    from ether.protocol.presence import Announcement
    from ether.recording.saved import Saved
    from ether.session.changes import Changes
    from ether.session.client import Client, Subscription
    from ether.session.watching.live_plot import LivePlot

DEFAULT_TIMEOUT_S = 30.0
_OTHER_NAMES = {
    "publish": "pub", "send": "pub", "emit": "pub", "put": "pub", "produce": "pub", "write": "pub",
    "call": "get", "request": "get", "invoke": "get", "rpc": "get", "query": "get", "ask": "get",
    "connect": "tap", "join": "tap", "open": "tap", "init": "tap", "launch": "tap",
    "stop": "shutdown", "close": "shutdown", "quit": "shutdown", "disconnect": "shutdown", "end": "shutdown",
    "sub": "subscribe", "listen": "subscribe", "on": "subscribe", "consume": "subscribe",
    "log": "record", "store": "record", "save_value": "record", "proxy": "instance", "register": "host",
    "list": "instances", "nodes": "instances", "devices": "instances", "wait": "wait_for", "read": "data",
}  # fmt: skip
"""What other tools call the same."""


_INSIDERS = frozenset({"adopt", "watch_start", "on_shutdown_asked"})
"""What Ether's command line and instances call."""


class Launching(NamedTuple):
    """How `tap` starts what it starts."""

    takeover: bool
    sim: bool
    timeout_s: float


@named_keywords("ether")
class Ether(Calling, Making, Plotting, Reading, Running, Watching):
    """A program's access to its session: starting, joining and ending it, messages, calls, runs and recorded data."""

    NOTHING: Final = NOTHING
    """What a method marked `ether_pub` returns that has nothing to say: no message, unlike None."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._launch: Launch | None = None
        self._client: Client | None = None
        self._changes: Changes | None = None
        self._watch: Callable[[Announcement], object] | None = None
        self._pid = os.getpid()
        self._plots: list[LivePlot] = []
        self._given: tuple[str | None, str] = (None, "")
        """The session's name and the digest of the configuration that the last `tap` was given."""

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
        start: bool = True,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Ether:
        """Join the running session, or start one. Returns when every autorun instance of `config` is ready.

        `config` is the path of a YAML file, a dict or an `EtherConfig`. `session` and `broker` (a URL, "embedded", or
        a mapping such as `{"engine": "amqtt"}`) replace what it says about them. Without a configuration, the running
        session is searched for (docs/discovery.md). A configuration that describes instances and names no session
        starts a session of its own. When a program that has joined leaves, only the instances that it started end.

        The same configuration twice is the same session: in a program that has it already nothing happens, and while
        another program of this machine has started it, this one joins and starts none of its instances again. With
        `start=False` a session is only joined, and `SessionNotFound` raised where there is none.

        With `restart`, a session that this program already has is ended first. With `takeover`, instances of other
        programs that have the names of this one's are replaced. With `sim`, the simulated lab that the configuration
        describes under `simulate:` replaces the bench: no hardware is touched, and every record is marked as simulated.
        `timeout_s` bounds the start, in seconds.

        Returns this object, which is a context manager that shuts down at its end.

        Raises `ConfigError`; `StartFailed`, which names each instance that is not ready, with its traceback;
        `NameTaken`; `SeveralSessions`; `BrokerFailed`; `BrokerUnreachable`; `NotAllowedHere` inside of an instance, or
        where this program has a session already. After an error nothing is left running.
        """
        from ether.config import changed, digest_of, load_config
        from ether.errors.tracebacks import show_at_the_users_line
        from ether.log import get_ether_logger

        show_at_the_users_line()
        with self._lock:
            described = load_config(config)
            given = {key: value for key, value in (("session", session), ("broker", broker)) if value is not None}
            merged = changed(described, **given) if given else described
            digest = digest_of(merged) + ("-sim" if sim else "")
            if not restart and self._launch is not None and self._given == (merged.session, digest):
                get_ether_logger().info("Ether session %s runs already with this configuration", self.session_id)
                return self
            self._make_room(restart)
            self._given = (merged.session, digest)
            self._start(merged, digest, start, Launching(takeover, sim, timeout_s))
        return self

    def shutdown(self) -> None:
        """End the session that this program started, or leave the session that it joined.

        First the messages and calls under way are finished; then all instances run their `ether_save_all` methods, then
        `ether_cleanup`, then `ether_shutdown`, and end. Each step has a time limit. Without a session, nothing happens.

        Raises `LifecycleFailed` at the end, with everything that failed on the way.
        """
        problems = self._stop()
        if problems:
            raise LifecycleFailed("shutdown", problems)

    def save_all(self) -> dict[str, list[str]]:
        """Run every method marked `ether_save_all`, on all instances. Returns the names of the methods that ran, by
        instance name.

        Raises `LifecycleFailed`, which names each instance that failed, died or did not answer.
        """
        return self._launched("ether.save_all()").lifecycle("save_all")

    def cleanup(self) -> dict[str, list[str]]:
        """Run every method marked `ether_cleanup`. Result and errors are those of `save_all`."""
        return self._launched("ether.cleanup()").lifecycle("cleanup")

    # -- messages

    def start(self) -> None:
        """Publish an empty message on the topic `start`, which calls all methods marked `@ether_start()`."""
        self._joined("ether.start()").publish(None, START_TOPIC)

    def pub(self, data: object = None, topic: str = "general", *, qos: int = 1, save: bool = False) -> Saved | None:
        """Publish a message on a topic. `data` is a dict, pydantic model, dataclass, list, number, string, bytes or
        numpy array (any shape and dtype), or a nesting of them; None is an empty message.

        A message with `qos` 1 arrives at least once while sender, broker and receiver live; with 0 it may be lost.
        Returns as soon as the message is in the send queue.

        With `save`, or where the session records the topic, the message ends up on disk exactly once, whatever process
        is killed meanwhile. Then a receipt is returned, which tells when it is on disk: `ether.pub(7, topic="dose",
        save=True).wait()`. Otherwise the result is None.

        Raises `EncodeError`, which names the part of `data` that cannot be sent; `PayloadTooLarge`; `PublishTimeout`
        where the send queue stays full; `OutboxFull` where a message to be saved finds no room on disk; `InvalidName`.
        """
        return self._joined("ether.pub()").publish(data, topic, qos, save=save)

    def record(self, value: object, name: str = "value") -> Saved:
        """Save a value under a name, without publishing it. `value` is anything that `pub` takes.

        Returns a receipt at once; its `wait()` returns when the value is on disk and synced. Inside of a handler, the
        message that is being handled is recorded as the value's cause. Raises `EncodeError`, `PayloadTooLarge`,
        `OutboxFull`, `InvalidName`."""
        return self._joined("ether.record()").record(value, name)

    def flush(self, timeout_s: float = CALL_TIMEOUT_S) -> int:
        """Wait until everything that this process has saved so far is on disk, for at most `timeout_s` seconds.
        Returns the number of entries that are not on disk yet: 0 is success."""
        from ether.connection.deadline import Deadline

        record_writer = self._joined("ether.flush()").record_writer
        return 0 if record_writer is None else record_writer.flush(Deadline(timeout_s))

    def subscribe(
        self, topic: str, *, qos: int = 1, keep: str | int | None = None, max_age: str | None = None
    ) -> Subscription:
        """Receive the messages on a topic in this program (`+` and `#` are wildcards).

        Returns a subscription, which is a context manager and an iterator of messages, with `get(timeout_s=…)` for the
        next one. No message that is published after this call has returned is missed.

        `keep` and `max_age` are as for `ether_sub`: `keep="latest"` gives only the newest message that waits, of each
        topic and source; `max_age="0.5s"` none that is older. `skipped` counts what is left out. Raises `ConfigError`
        for another `keep` or `max_age`, `InvalidName`."""
        client = self._joined("ether.subscribe()")
        subscription = client.subscribe(topic, qos, keep, max_age)
        client.topic_check.heard(topic)
        return subscription

    # -- objects of this program

    def host(self, obj: object, name: str, *, takeover: bool = False) -> None:
        """Make an object of this program an instance of the session: other programs can call it, and it receives
        messages, on a thread of its own. Calls from this program reach it directly, without the broker.

        Raises `NameTaken` where another instance has the name. With `takeover` that one is replaced instead, and
        messages that it still sends are refused by every process."""
        self._launched("ether.host()").host(obj, name, takeover=takeover)

    def unhost(self, name: str) -> None:
        """Take an object out of the session again. The object itself is as it was before `host`."""
        self._launched("ether.unhost()").unhost(name)

    # -- one instance, while everything runs

    def add(self, name: str, config: Mapping[str, Any] | EtherInstanceConfig, *, timeout_s: float = DEFAULT_TIMEOUT_S
            ) -> None:  # fmt: skip
        """Start one more instance. `config` describes it as under `instances:` in the YAML: `{"class_path": …}`.

        Returns when the instance is ready; `timeout_s` bounds its start, in seconds. Raises `ConfigError`, `NameTaken`,
        `StartFailed`."""
        from ether.config import load_config

        described = load_config({"instances": {name: config}}).named_instances()
        for chosen, instance in described.items():
            self._launched("ether.add()").add(chosen, instance, timeout_s)

    def remove(self, name: str) -> None:
        """Stop one instance that this program started. It finishes its messages and calls under way, saves, cleans up
        and ends, as in `shutdown`.

        Raises `LifecycleFailed` with everything that failed on the way, `KeyError` for an instance that this program
        has not started."""
        if problems := self._launched("ether.remove()").remove(name):
            raise LifecycleFailed("remove", problems)

    def restart(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Stop one instance that this program started, as `remove` does, and start it again. Calls to it wait
        meanwhile. Returns when it is ready; raises `KeyError`, `StartFailed`."""
        self._launched("ether.restart()").restart(name, timeout_s)

    def reload(self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Give one instance that this program started the code that stands in its files now. The new process is built
        while the one of before serves; then that one finishes what it does, hands over the value of its method
        `ether_state`, where its class has one, to `ether_restore` of the new one, and ends. Messages and calls wait
        meanwhile. Where the new code cannot be imported or built, or its `ether_restore` raises, the instance goes on
        as it was: `NotReloaded`. Also raises `KeyError`, `StartFailed`."""
        self._launched("ether.reload()").reload(name, timeout_s)

    # -- the members of the session

    def instances(self) -> list[dict[str, Any]]:
        """All instances of the session, sorted by name (a notebook shows a table). Each is a dict with `name`, `state`,
        `class`, `host`, `pid`, `since` (unix seconds), `error`, and whatever else the instance announces.

        While this program has no connection, `last_known` is True: all values are those from before the connection was
        lost, at `offline_since` (unix seconds). The `state` of an instance that took part then is `unreachable`, and
        `last_state` is the one from before; objects that this program hosts are as they are."""
        from ether.api.shown import Rows, row_of

        session = self._joined("ether.instances()").session
        session.open(CALL_TIMEOUT_S)
        since = session.link.offline_since
        stale = {"last_known": False} if since is None else {"last_known": True, "offline_since": since}
        members = (member for member in session.announcements() if member.kind == "instance")
        return Rows({**row_of(session, member), **stale, **member.about} for member in members)

    def session_info(self) -> dict[str, Any]:
        """The session, as a dict: its name as `session`; `host`, `pid`, `since` (unix seconds), `version` and `broker`
        of the program that leads it; the names of all `instances` and `programs`.

        `offline_since` is None while this program has a connection; otherwise the time of its loss (unix seconds), and
        all other values are those from before."""
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
        """Call `callback` whenever an instance joins, leaves, dies, hangs or returns. Its argument is the instance's
        dict, as `instances()` returns it. Changes come one after the other, on a thread of Ether's own. An exception
        of the callback is logged."""
        from ether.session.changes import Changes

        session = self._joined("ether.on_change()").session
        session.open(CALL_TIMEOUT_S)
        if self._changes is None:
            self._changes = Changes(session)
        self._changes.add(callback)

    # -- facts

    @property
    def session_id(self) -> str | None:
        """The name of the session; None without one."""
        return self._client.topics.session if self._client else None

    @property
    def broker_url(self) -> str | None:
        """The URL of the embedded broker, with user and password, for programs such as `mosquitto_sub`; None where this
        program has not started the broker."""
        return self._launch.broker_url if self._launch else None

    # -- for programs that run others' sessions, such as the command line

    def watch_start(self, event: Callable[[Announcement], object]) -> None:
        """Call `event` with every change of the presence table from the next `tap()` on, already while that is waiting.

        It is called on the dispatch thread, so it must only enqueue. Other programs use `on_change`."""
        self._watch = event

    def on_shutdown_asked(self, callback: Callable[[], object]) -> None:
        """Let other programs end this session (`ether down`). When one of them asks, `callback` is called on a thread
        of Ether's own; it should make another thread call `ether.shutdown()`."""
        self._launched("ether.on_shutdown_asked()").on_shutdown_asked(callback)

    # -- inside

    def adopt(self, client: Client | None) -> None:
        """Give this object the session of an instance that runs in this process; None takes it away. Ether's own child
        processes and `ether.testing` do so."""
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

    def _start(self, config: EtherConfig, digest: str, start: bool, how: Launching) -> None:
        from ether.config import changed
        from ether.log import get_ether_logger, install_console
        from ether.session.discovery.elsewhere import search_elsewhere
        from ether.session.discovery.search import only_running, remember, running_session, with_environment
        from ether.session.name_claim import new_session_name
        from ether.session.start_lock import starting_alone
        from ether.system.folders import calls_folder, file_name

        install_console()
        logger = get_ether_logger()
        if how.sim:
            from ether.launch.simulated.lab import all_here

            config = all_here(config)
        config = with_environment(config, os.environ)
        found = running_session(config, os.environ) if start else only_running(config, os.environ)
        with starting_alone(None if found is not None else config.session, how.timeout_s):
            if found is None and config.session is not None:
                found = running_session(config, os.environ, again=True)  # another program may have started it
            session = found.name if found is not None else config.session or new_session_name()
            elsewhere = None
            if found is None:
                logger.info("Starting Ether session: %s...", session)
                elsewhere = search_elsewhere(config, os.environ)
            else:
                logger.info("Joining Ether session: %s on %s (%s)...", session, found.host, found.how)
                if config.instances and found.configuration == digest:
                    logger.info("It was started with this very configuration (pid %s): nothing is started", found.pid)
                    config = changed(config, instances={}, record=None)
            ground = _ground_for(config)
            from ether.launch.launcher import Launch  # while both work: it takes a quarter of a second

            try:
                launch = Launch(
                    config, session, found, takeover=how.takeover, sim=how.sim, elsewhere=elsewhere, ground=ground
                )
            except BaseException:
                ground.close()
                if elsewhere is not None:
                    elsewhere.close()
                raise
            launch.configuration = digest
            client = self._client = launch.start(how.timeout_s, self._watch)
            client.keep_saves(lambda: calls_folder(session), file_name(client.link.source), own=False)
        if launch.found is not None:
            remember(launch.found, os.environ)
        elif config.session is not None and not config.instances:
            self._warn_of_others(session)
        self._launch, self._pid = launch, os.getpid()
        atexit.register(self._at_exit)
        logger.info("Ether system started successfully")

    def _warn_of_others(self, session: str) -> None:
        """A program without instances names a session mostly to join it."""
        from ether.errors import running_sessions
        from ether.log import get_ether_logger
        from ether.session.discovery.local_sessions import read_records

        others = [record.session for record in read_records(os.environ) if record.session != session]
        if others:
            get_ether_logger().warning(
                "no session %r was found, so one was started%s (start=False only joins)",
                session, running_sessions(session, others),
            )  # fmt: skip

    def _stop(self) -> dict[str, str]:
        with self._lock:
            if self._launch is None or self._pid != os.getpid():  # a forked child must not end its parent's session
                return {}
            from ether.log import get_ether_logger

            launch, session = self._launch, self.session_id
            atexit.unregister(self._at_exit)
            get_ether_logger().info("%s Ether session: %s...", "Leaving" if launch.joined else "Shutting down", session)
            try:
                self._stop_plots()
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
        self._client.link.check_not_forked(call)
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

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            from difflib import get_close_matches

            public = [each for each in dir(type(self)) if not each.startswith("_")]
            meant = _OTHER_NAMES.get(name) or next(iter(get_close_matches(name, public, n=1)), None)
            hint = f" Did you mean ether.{meant}?" if meant and not name.startswith("_") else ""
            raise AttributeError(f"ether has no {name!r}.{hint}", name=name, obj=self)

    def __dir__(self) -> list[str]:
        """What completion offers: not what Ether's own parts call."""
        return [name for name in super().__dir__() if name not in _INSIDERS]

    def __repr__(self) -> str:
        return f"<Ether: {f'session {self.session_id!r}' if self._client else 'no session'}>"

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the session with its instances. Nothing is waited for."""
        if self._client is None:
            return None
        from ether.api.shown import Rows, row_of, text_as_html

        members = self._client.session.announcements()
        rows = Rows(row_of(self._client.session, member) for member in members if member.kind == "instance")
        return text_as_html(f"session {self.session_id}") + rows._repr_html_()


def _ground_for(config: EtherConfig) -> Ground:
    """The ground of this program's processes, on which the template process begins at once, if there is to be one."""
    from ether.launch.template.ground import Ground

    ground = Ground(config.preload)
    if any(each.autorun and each.fork and each.host is None for each in config.instances.values()):
        ground.begin()
    return ground
