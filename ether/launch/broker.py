"""The session's own broker: `python -I -m broker` as a child with private settings.

Isolated (`-I`), because a user's own `broker.py` in the working directory must shadow nothing. Promise: a broker that
dies is started again at the same address with the same settings; its clients reconnect and repeat their announcements.
The trap: a broker that never became ready is not started again, because then its settings are at fault.
"""

from __future__ import annotations

import json
import os
import site
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ether.config import broker as config_broker
from ether.config.broker_url import DEFAULT_WS_PATH
from ether.connection.deadline import Deadline
from ether.errors import BrokerFailed, TransportError
from ether.launch.child import Child
from ether.launch.process_group import ProcessGroup
from ether.log import get_ether_logger
from ether.security.credentials import Credentials
from ether.security.lab_key import USERNAME, load_or_make_key
from ether.session.discovery import mdns
from ether.system.folders import private_folder
from ether.transport.endpoint import Endpoint
from ether.version import VERSION

__all__ = ["BrokerFacts", "BrokerProcess", "private_folder"]

logger = get_ether_logger("Ether")

T = TypeVar("T")

_RESTARTS = 5
_RESTART_WINDOW_S = 60.0
_RETURN_S = 5.0
"""Within this time a broker that ended is ready again, on a busy machine, too."""

_LONGEST_SOCKET_PATH = 100
"""Unix sockets take paths of about 104 (macOS) to 108 (Linux) bytes."""


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What the broker reported when it was ready."""

    engine: str
    version: str
    host: str
    port: int
    unix_socket: str | None
    protocols: tuple[str, ...]
    max_packet_bytes: int
    lan_host: str | None = None
    lan_port: int | None = None
    websocket_port: int | None = None


class BrokerProcess:
    """The broker child. It starts when this object is made; `wait_ready` waits, so that other processes can start
    meanwhile."""

    def __init__(self, config: config_broker.EmbeddedBroker, group: ProcessGroup, folder: str) -> None:
        """Start it; does not wait. `folder` is made, and the caller removes it. In it the broker has a folder of its
        own for settings and sockets, because it removes that when it ends."""
        self._config = config
        self._group = group
        self._credentials = _credentials(config)
        self._parent, self._folder = folder, os.path.join(folder, "broker")
        self._facts: BrokerFacts | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._times_ready = 0
        self._on_network: mdns.MdnsAnnouncement | None = None
        self._ended = ""
        self._starts: deque[float] = deque(maxlen=_RESTARTS)
        self._child = self._start()

    def wait_ready(self, timeout_s: float) -> BrokerFacts:
        """Return when clients can connect; raises `BrokerFailed`. Ends at the broker's ready line (`_on_ready`) or at
        its death (`_on_end`)."""
        with self._changed:
            self._changed.wait_for(lambda: self._facts or self._ended, timeout_s)
            if self._facts is not None:
                return self._facts
        raise BrokerFailed(self._ended or f"the embedded broker was not ready within {timeout_s:g} s")

    def connected(self, connect: Callable[[], T], deadline: Deadline) -> T:
        """The result of `connect`, which is called again where the broker died meanwhile and is started again. Raises
        what `connect` raises."""
        while True:
            ready = self._times_ready
            try:
                return connect()
            except TransportError:
                if not self._await_return(ready, deadline.left()):
                    raise

    def _await_return(self, times_ready: int, timeout_s: float) -> bool:
        """Wait for the broker to become ready once more than `times_ready` times; returns whether it has. Ends early
        where it has ended for good."""
        with self._changed:
            self._changed.wait_for(lambda: self._times_ready > times_ready or self._ended, min(timeout_s, _RETURN_S))
            return self._times_ready > times_ready

    @property
    def endpoint(self) -> Endpoint:
        """The fastest way for a program of this session: a Unix socket where there is one."""
        facts = self.wait_ready(0)
        login = self._credentials
        if facts.unix_socket:
            return Endpoint("unix", path=facts.unix_socket, username=login.username, password=login.password)
        return Endpoint("tcp", facts.host, facts.port, username=login.username, password=login.password)

    @property
    def url(self) -> str:
        """For any other MQTT program on this machine; holds the password."""
        facts = self.wait_ready(0)
        return f"mqtt://{self._credentials.username}:{self._credentials.password}@{facts.host}:{facts.port}"

    @property
    def lan_host(self) -> str | None:
        """The address at which other machines reach it, `0.0.0.0` for every address of this machine; None where it
        listens to this machine alone."""
        return self.wait_ready(0).lan_host

    @property
    def lan_port(self) -> int | None:
        """The port at `lan_host`."""
        return self.wait_ready(0).lan_port

    @property
    def lan_url(self) -> str | None:
        """For a person to type on another machine that holds the same lab key: no password in it."""
        facts = self.wait_ready(0)
        return None if facts.lan_port is None else Endpoint("tcp", _typed_host(facts), facts.lan_port).address

    @property
    def websocket_url(self) -> str | None:
        """The same for a machine behind a firewall; None where there is no such port."""
        facts = self.wait_ready(0)
        port = facts.websocket_port
        return None if port is None else Endpoint("ws", _typed_host(facts), port, DEFAULT_WS_PATH).address

    @property
    def entry(self) -> dict[str, str]:
        """What the session's entry says of it."""
        url = self.websocket_url
        return {"engine": self.wait_ready(0).engine} | ({} if url is None else {"websocket": url})

    def announce(self, session: str, environment: Mapping[str, str]) -> None:
        """Let other machines find the session, where the broker listens to them."""
        host, port = self.lan_host, self.lan_port
        if host is None or port is None or not mdns.browse_seconds(environment):
            return
        addresses = mdns.own_addresses() if host == config_broker.EVERYWHERE else [host]
        self._on_network = mdns.announce(session, port, addresses, VERSION, user=USERNAME)

    def stop(self, timeout_s: float) -> None:
        """Stop it. Twice is fine."""
        if self._on_network is not None:
            self._on_network.close()
            self._on_network = None
        with self._changed:
            self._stopping = True
            child = self._child
        child.send(b"stop\n")
        child.end(timeout_s)
        with suppress(OSError):
            os.rmdir(self._parent)  # where nothing else is in it

    def _start(self) -> Child:
        self._starts.append(time.monotonic())
        settings = os.path.join(self._folder, "settings.json")
        try:
            for folder in (self._parent, self._folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            with open(os.open(settings, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._settings(), file)
        except OSError as error:
            raise BrokerFailed(
                f"the embedded broker's private folder {self._folder} cannot be made: {error}"
            ) from error
        command = [sys.executable, *_isolation(), "-m", "broker", settings]
        return Child("broker", command, self._group, self._on_end, on_stdout=self._on_line, on_stderr=_on_log_line)

    def _settings(self) -> dict[str, Any]:
        socket_path = os.path.join(self._folder, "broker.sock")
        known, lan_host = self._facts, self._config.lan_host
        usable = sys.platform != "win32" and len(os.fsencode(socket_path)) <= _LONGEST_SOCKET_PATH
        return {
            "engine": self._config.engine,
            "host": "127.0.0.1",
            "port": known.port if known else (0 if lan_host else self._config.port),
            "lan_host": lan_host,
            "lan_port": (known.lan_port if known else self._config.port) if lan_host else 0,
            "websocket_port": self._config.websocket_port,
            "unix_socket": socket_path if usable else None,
            "username": self._credentials.username,
            "password": self._credentials.password,
            "max_packet_bytes": self._config.max_message_bytes,
            "private_dir": self._folder,
        }

    def _on_line(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": "warning", "text": line.rstrip()}
        if event.get("event") == "ready":
            self._on_ready(event)
        else:
            logger.warning("broker: %s", event.get("text", event))

    def _on_ready(self, event: Mapping[str, Any]) -> None:
        facts = BrokerFacts(
            engine=event["engine"],
            version=event["version"],
            host=event["host"],
            port=event["port"],
            unix_socket=event["unix_socket"],
            protocols=tuple(event["protocols"]),
            max_packet_bytes=event["max_packet_bytes"],
            lan_host=event["lan_host"],
            lan_port=event["lan_port"],
            websocket_port=event["websocket_port"],
        )
        with self._changed:
            self._facts = facts
            self._times_ready += 1
            self._changed.notify_all()

    def _on_end(self, child: Child) -> None:
        """On the child's waiting thread. The next broker is started under the lock, so that `stop` ends that one."""
        how = f"the embedded broker ended: {child.how_it_ended().rstrip()}"
        with self._changed:
            if self._stopping:
                return
            again = self._facts is not None and self._may_restart()
            if again:
                self._child = self._start()
            else:
                self._ended = how
                self._changed.notify_all()
        logger.error("%s%s", how, "\nStarted it again." if again else "")

    def _may_restart(self) -> bool:
        crowded = len(self._starts) == _RESTARTS and time.monotonic() - self._starts[0] < _RESTART_WINDOW_S
        return not crowded


def _credentials(config: config_broker.EmbeddedBroker) -> Credentials:
    """Random for a session of this machine alone. For other machines they follow from the lab key, which those hold."""
    return Credentials.random() if config.lan_host is None else load_or_make_key(os.environ).credentials()


def _typed_host(facts: BrokerFacts) -> str:
    """What a person types for this machine on another one."""
    return socket.gethostname() if facts.lan_host == config_broker.EVERYWHERE else facts.lan_host or ""


def _on_log_line(line: str) -> None:
    """The broker's own log. What a user must see comes as an event, and the last lines with its death."""
    logger.debug("broker: %s", line.rstrip())


def _isolation() -> list[str]:
    """`-I`, which also hides the user's own site-packages. Where Ether itself is installed there, `-E -P`: all else
    that `-I` does."""
    user_site = site.getusersitepackages() if site.ENABLE_USER_SITE else None
    installed_there = user_site is not None and __file__.startswith(user_site + os.sep)
    return ["-E", "-P"] if installed_there else ["-I"]
