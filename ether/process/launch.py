"""A session that this program started: its broker, its instances, from the first process to the last.

Starting: broker and instances start side by side; each instance gets its settings when the broker is ready, and
counts when it has announced `ready`. Stopping, always in this order, each step bounded and reported: drain the
work in flight, save_all, cleanup, stop, then the broker. Whatever cannot be asked any more is killed.
"""

from __future__ import annotations

import difflib
import os
import shutil
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial

from ether.config import EtherConfig
from ether.config import broker as config_broker
from ether.errors import EtherError, LifecycleFailed, NotAllowedHere, StartFailed, TransportError
from ether.logs import get_ether_logger
from ether.process.children import Child, changed_environment, import_path, running_script, start_instance
from ether.process.embedded_broker import EmbeddedBroker, private_folder
from ether.process.group import ProcessGroup, make_group
from ether.process.registry import registry_marks, registry_options
from ether.process.settings import InstanceSettings
from ether.protocol.presence import State
from ether.runtime.assembly import make_link
from ether.runtime.client import Client
from ether.runtime.deadline import Deadline
from ether.runtime.here import InstanceHere, OpenLink
from ether.runtime.link import Link
from ether.runtime.session import NeverAtRest, Session
from ether.transport.base import Will
from ether.transport.endpoint import Endpoint
from ether.version import VERSION
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

STEP_TIMEOUT_S = 10.0
"""For each of drain, save_all, cleanup and stop."""

_LEAVE_TIMEOUT_S = 2.0
_LAST_WORDS_TIMEOUT_S = 2.0
_RETURN_TIMEOUT_S = 3.0
"""For an instance that is just reconnecting when everything ends."""

PROGRAM = "main"
"""The source that stands in the headers of what the main program publishes."""


def new_session_name() -> str:
    """A name for a session whose configuration gives none: when it began, and random bits."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


class Launch:
    """One started session. Made by `start()`, ended by `stop()`."""

    def __init__(self, config: EtherConfig, session: str) -> None:
        self.config = config
        self.topics = SessionTopics(session)
        self._folder = private_folder()
        self._group: ProcessGroup = make_group(self._folder)
        self._broker: EmbeddedBroker | None = None
        self._children: dict[str, Child] = {}
        self._ended: dict[str, str] = {}
        self._ready = False
        self._stopping = threading.Event()
        self._link: Link | None = None
        self._session: Session | None = None
        self._open_link: OpenLink | None = None
        self._here: dict[str, InstanceHere] = {}

    # -- starting

    def start(self, timeout_s: float) -> Client:
        """Start everything; returns when every autorun instance is ready. Raises `StartFailed` and
        `BrokerFailed`; nothing is left running then."""
        deadline = Deadline(timeout_s)
        try:
            self._start_processes()
            endpoint, limit = self._broker_address(deadline)
            self._open_link = partial(_opened, endpoint, limit)
            link = self._link = self._open_link(PROGRAM, None)
            client = Client(link, self.topics)
            session = self._session = client.session
            self._hand_over_settings(endpoint, limit, deadline)
            session.open(deadline.left())
            link.announce(self.topics.session_info, self._session_info(endpoint))
            self._wait_ready(session, deadline)
        except BaseException:
            self._abandon()
            raise
        self._ready = True
        return client

    @property
    def session(self) -> Session:
        """This program's view of the session."""
        assert self._session is not None
        return self._session

    @property
    def broker_url(self) -> str | None:
        """The embedded broker's URL for other programs, None where the broker is not ours."""
        return self._broker.url if self._broker else None

    def _start_processes(self) -> None:
        self._warn_of_registry_typos()
        if isinstance(self.config.broker, config_broker.EmbeddedBroker):
            self._broker = EmbeddedBroker(self.config.broker, self._group, self._folder)
        for name, instance in self.config.named_instances().items():
            if instance.autorun:
                self._children[name] = start_instance(name, self._group, self._on_end)

    def _warn_of_registry_typos(self) -> None:
        """An entry that no instance names may be of a base class; one that is nearly an instance's class is not."""
        used = {instance.class_path for instance in self.config.instances.values()}
        for class_path in self.config.registry.keys() - used:
            if nearest := difflib.get_close_matches(class_path, used, n=1, cutoff=0.9):
                logger.warning("registry: no instance is a %s; did you mean %s?", class_path, nearest[0])

    def _broker_address(self, deadline: Deadline) -> tuple[Endpoint, int | None]:
        if isinstance(self.config.broker, config_broker.ExternalBroker):
            return external_endpoint(self.config.broker), None
        assert self._broker is not None
        facts = self._broker.wait_ready(deadline.left())
        logger.info("Broker: %s %s on %s:%s", facts.engine, facts.version, facts.host, facts.port)
        return self._broker.endpoint, facts.max_packet_bytes

    def _hand_over_settings(self, endpoint: Endpoint, limit: int | None, deadline: Deadline) -> None:
        instances = self.config.named_instances()
        for name, child in self._children.items():
            instance = instances[name]
            settings = InstanceSettings(
                session=self.topics.session,
                name=name,
                class_path=instance.class_path,
                args=list(instance.args),
                kwargs=instance.constructor_kwargs,
                concurrency=instance.concurrency,
                registry=registry_options(self.config),
                endpoint=dict(endpoint.to_dict()),
                max_packet_bytes=limit,
                import_path=import_path(),
                script=running_script(),
                environment=changed_environment(),
                connect_timeout_s=deadline.left(),
            )
            child.send(settings.to_bytes())

    def _session_info(self, endpoint: Endpoint) -> dict[str, object]:
        return {
            "session": self.topics.session,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.time(),
            "version": VERSION,
            "broker": endpoint.address,
        }

    def _wait_ready(self, session: Session, deadline: Deadline) -> None:
        reasons = session.wait_ready(self._children, deadline, lambda: self._ended)
        if reasons:
            raise StartFailed(self.topics.session, reasons)

    def _on_end(self, child: Child) -> None:
        how = child.how_it_ended()
        if self._session is not None and not self._ready:
            try:
                self._session.catch_up(_LAST_WORDS_TIMEOUT_S)  # it may have announced why
            except EtherError:
                pass  # then its exit code must do
        self._ended[child.name] = how
        if self._session is not None:
            self._session.lost(child.name, how)
        if self._ready and not self._stopping.is_set():
            logger.error("instance %s ended: %s", child.name, how)

    # -- objects of this process

    def host(self, obj: object, name: str) -> None:
        """Make an object of this process an instance of the session; raises `NotAllowedHere` for a taken name."""
        known = self.session.announcement(name)
        if known is not None and known.state in (State.STARTING, State.READY):
            raise NotAllowedHere("ether.host()", f"there is an instance {name!r} already")
        assert self._open_link is not None
        registry = registry_marks(registry_options(self.config))
        here = InstanceHere(name, obj, self.topics, self._open_link, registry)
        self._here[name] = here
        self.session.calls.here[name] = here.instance
        self.session.wait_ready([name], Deadline(STEP_TIMEOUT_S), dict)

    def unhost(self, name: str) -> None:
        """The object leaves the session; nothing where it is not hosted here."""
        here = self._here.pop(name, None)
        if here is not None:
            self.session.calls.here.pop(name, None)
            here.close()
            if self.session.link.transport.connected:
                self.session.catch_up(_LAST_WORDS_TIMEOUT_S)  # whoever calls it next is told that it has left

    # -- stopping

    def lifecycle(self, verb: str) -> dict[str, list[str]]:
        """Ask all ready instances to `save_all` or `cleanup`; returns what ran where, raises `LifecycleFailed`."""
        barrier = self.session.ask(verb, sorted(self.session.ready()), STEP_TIMEOUT_S)
        if reasons := barrier.reasons(STEP_TIMEOUT_S):
            raise LifecycleFailed(verb, reasons)
        return {name: list(answer.ran) for name, answer in sorted(barrier.answers.items())}

    def stop(self) -> dict[str, str]:
        """Stop everything in order; returns what went wrong, by instance, empty when nothing did. Never raises for
        what an instance does."""
        self._stopping.set()
        problems: dict[str, list[str]] = {}
        silent: set[str] = set()
        try:
            for step in ("drain", "save_all", "cleanup", "stop"):
                for name, why in self._step(step, silent).items():
                    logger.error("%s: %s: %s", step, name, why)
                    problems.setdefault(name, []).append(f"{step}: {why}")
            for name in silent & self._children.keys():
                self._children[name].terminate()
            for name in self._end_children(STEP_TIMEOUT_S):
                logger.error("instance %s did not end and was killed", name)
                problems.setdefault(name, []).append("did not end and was killed")
        finally:
            self._abandon()
        return {name: "; ".join(whys) for name, whys in problems.items()}

    def _step(self, step: str, silent: set[str]) -> Mapping[str, str]:
        """Take one step with everybody who is alive and has answered so far. Who does not answer joins `silent`: it is
        asked no more, and in the end told to finish by a signal, which it obeys after what it is doing."""
        alive = [name for name, child in self._children.items() if child.exit_code is None]
        participants = [name for name in (*alive, *self._here) if name not in silent]
        if not participants:
            return {}
        try:
            if not self.session.link.transport.connected:
                raise TransportError("the broker is gone")
            away = self.session.wait_ready(participants, Deadline(_RETURN_TIMEOUT_S), lambda: self._ended)
            if away:  # alive, and not back from a lost connection: a signal must tell them
                silent.update(away.keys() - self._ended.keys())
                participants = [name for name in participants if name not in away]
            ask = self.session.drain if step == "drain" else partial(self.session.ask, step)
            barrier = ask(participants, timeout_s=STEP_TIMEOUT_S)
        except NeverAtRest as error:
            return {"the session": str(error)}
        except EtherError as error:  # what follows must happen all the same
            silent.update(participants)
            return dict.fromkeys(participants, f"could not be asked: {error}")
        silent.update(barrier.missing)
        return barrier.reasons(STEP_TIMEOUT_S)

    def _end_children(self, timeout_s: float) -> list[str]:
        deadline = Deadline(timeout_s)
        return [name for name, child in self._children.items() if not child.end(deadline.left())]

    def _abandon(self) -> None:
        """End whatever is left, at once. Twice is fine."""
        self._stopping.set()
        self._end_children(0)
        for name in list(self._here):
            self.unhost(name)
        if self._session is not None:
            self._session.calls.close()
        if self._link is not None:
            self._clear_announcements(self._link)
            self._link.close()
        if self._broker is not None:
            self._broker.stop(_LEAVE_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._group.close()

    def _clear_announcements(self, link: Link) -> None:
        """An embedded broker forgets with its end; on any other one nothing of ours must stay."""
        if self._broker is not None or not link.transport.connected:
            return
        try:
            for name in self._children:
                link.withdraw(self.topics.state(name), _LEAVE_TIMEOUT_S)
            link.withdraw(self.topics.session_info, _LEAVE_TIMEOUT_S)
        except EtherError as error:
            logger.warning("could not clear the announcements of session %s: %s", self.topics.session, error)


def _opened(endpoint: Endpoint, limit: int | None, source: str, will: Will | None) -> Link:
    link = make_link(endpoint, source, will=will, max_packet_bytes=limit)
    link.open(STEP_TIMEOUT_S)
    return link


def external_endpoint(broker: config_broker.ExternalBroker) -> Endpoint:
    """Where a broker that runs already listens."""
    address = broker.address
    return Endpoint(
        "tcp" if address.path is None else "unix",
        host=address.host or "",
        port=address.port or config_broker.DEFAULT_MQTT_PORT,
        path=address.path or "",
        username=address.username,
        password=address.password,
    )
