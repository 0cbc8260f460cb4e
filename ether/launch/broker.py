"""The session's own broker: `python -I -m broker` as a child with private settings.

Isolated (`-I`), because a user's own `broker.py` in the working directory must shadow nothing. Promise: a broker that
dies is started again at the same address with the same settings, for as long as the session lives, after pauses that
grow (`EndlessRestarts`); its clients reconnect and repeat their announcements. The trap: a broker that never became
ready is not started again, because then its settings are at fault.
"""

from __future__ import annotations

import json
import os
import site
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ether.config import broker as config_broker
from ether.config.broker_url import DEFAULT_WS_PATH
from ether.connection.deadline import Deadline
from ether.errors import BrokerFailed, TransportError
from ether.launch.child import Child
from ether.launch.process_group import ProcessGroup
from ether.launch.restart_rules import LONGEST_PAUSE_S, EndlessRestarts
from ether.log import get_ether_logger
from ether.security.credentials import Credentials
from ether.security.lab_key import USERNAME, load_or_make_key
from ether.session.discovery import mdns
from ether.system.folders import private_folder
from ether.transport.endpoint import Endpoint
from ether.version import VERSION

if TYPE_CHECKING:
    from ether.session.renewal import Renews
    from ether.session.trust.broker_trust import BrokerTrust

__all__ = ["BrokerFacts", "BrokerProcess", "private_folder"]

logger = get_ether_logger("Ether")

T = TypeVar("T")

Rules = Callable[[Sequence[str], Collection[str]], Mapping[str, Mapping[str, Sequence[str]]]]
"""From the names of devices, and of those among them that have a password, to the rights that the broker is given:
`ether.security.rights.rules_of`."""
_EVERYTHING = {"publish": ["#"], "subscribe": ["#"], "receive": ["#"]}

RETURNS_S = LONGEST_PAUSE_S + 5.0
"""Within this time a broker that ended is ready again, on a busy machine, too."""
_SAYS_WHAT_TO_DO_FROM = 3
"""The restart in a row from which on the log says what to do: one or two may be somebody's `kill`."""

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

    def __init__(
        self, config: config_broker.EmbeddedBroker, group: ProcessGroup, folder: str, rules: Rules | None = None
    ) -> None:
        """Start it; does not wait. `folder` is made, and the caller removes it. In it the broker has a folder of its
        own for settings and sockets, because it removes that when it ends. `rules` gives the rights of other machines
        by their names; None: whoever is let in may do everything."""
        self._config = config
        self._group = group
        self._trust = _trust(config)
        self._credentials = _credentials(config)
        self._parent, self._folder = folder, os.path.join(folder, "broker")
        self._rules = None if self._trust is None else rules
        self._giving = threading.Lock()
        self._rights = self._rights_of_devices()
        self._facts: BrokerFacts | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._times_ready = 0
        self._on_network: mdns.MdnsAnnouncement | None = None
        self._ended = ""
        self._restarts = EndlessRestarts()
        self._started = 0.0
        self._child = self._start()
        if self._trust is not None and self._rules is not None:
            self._trust.on_change = self._give_rights

    @property
    def renews(self) -> Renews | None:
        """What renews the certificates of other machines; None where they have none."""
        return self._trust

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
            self._changed.wait_for(lambda: self._times_ready > times_ready or self._ended, min(timeout_s, RETURNS_S))
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
        """For a person to type on another machine that is a member of the lab: no password in it."""
        facts = self.wait_ready(0)
        kind: Literal["tcp", "tls"] = "tcp" if self._trust is None else "tls"
        return None if facts.lan_port is None else Endpoint(kind, _typed_host(facts), facts.lan_port).address

    @property
    def websocket_url(self) -> str | None:
        """The same for a machine behind a firewall; None where there is no such port."""
        facts = self.wait_ready(0)
        port = facts.websocket_port
        kind: Literal["ws", "wss"] = "ws" if self._trust is None else "wss"
        return None if port is None else Endpoint(kind, _typed_host(facts), port, DEFAULT_WS_PATH).address

    @property
    def entry(self) -> dict[str, str]:
        """What the session's entry says of it."""
        url, plain = self.websocket_url, self.lan_host is not None and self._trust is None
        entry = {"engine": self.wait_ready(0).engine} | ({} if url is None else {"websocket": url})
        passwords = {} if self._config.password_port is None else {"passwords": str(self._config.password_port)}
        return entry | ({"security": "off"} if plain else {}) | passwords

    def announce(self, session: str, environment: Mapping[str, str]) -> None:
        """Let other machines find the session, where the broker listens to them."""
        host, port = self.lan_host, self.lan_port
        if host is None or port is None or not mdns.browse_seconds(environment):
            return
        addresses = mdns.own_addresses() if host == config_broker.EVERYWHERE else [host]
        how = {"user": USERNAME} if self._trust is None else {"lab": self._trust.lab.id}
        self._on_network = mdns.announce(session, port, addresses, VERSION, **how)

    def set_rights(self, users: Mapping[str, str], rights: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """From now on these further users (each with its password) and rights hold: `ether.security.rights.rules_of`.
        They hold with the next packet on, also in the next broker where this one dies."""
        self._rights = {"users": dict(users), "rights": {name: dict(rule) for name, rule in rights.items()}}
        with self._changed:
            ready, child = self._facts is not None, self._child
        if ready:
            child.send(json.dumps({"command": "rights", **self._rights}).encode() + b"\n")

    def _rights_of_devices(self) -> dict[str, Any]:
        """Users and rights of all that are members of the lab now; of this machine itself, all. Raises `LabRefused`."""
        if self._trust is None or self._rules is None:
            return {}
        users = self._trust.passwords() if self._config.password_port is not None else {}
        own_name = self._trust.own_name
        # a password never opens everything, also where a lab of before gave one to this machine's own name
        own = {} if own_name is None or own_name in users else {own_name: _EVERYTHING}
        return {"users": users, "rights": {**own, **self._rules(self._trust.devices(), users)}}

    def _give_rights(self) -> None:
        """A member came or went: on a thread of the trust's."""
        with self._giving:
            wanted = self._rights_of_devices()
            if wanted != self._rights:
                before = self._rights["users"]
                kept = {name: word for name, word in wanted["users"].items() if before.get(name, word) == word}
                if kept != wanted["users"]:  # whoever is here by a password of before is put out first
                    self.set_rights(kept, wanted["rights"])
                self.set_rights(wanted["users"], wanted["rights"])

    def stop(self, timeout_s: float) -> None:
        """Stop it. Twice is fine."""
        if self._trust is not None:
            self._trust.close()
        if self._on_network is not None:
            self._on_network.close()
            self._on_network = None
        with self._changed:
            self._stopping = True
            self._changed.notify_all()  # ends the pause before a restart
            child = self._child
        child.send(b"stop\n")
        child.end(timeout_s)
        with suppress(OSError):
            os.rmdir(self._parent)  # where nothing else is in it

    def _start(self) -> Child:
        self._started = time.monotonic()
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
            **({} if self._config.password_port is None else {"password_port": self._config.password_port}),
            "unix_socket": socket_path if usable else None,
            "username": self._credentials.username,
            "password": self._credentials.password,
            "max_packet_bytes": self._config.max_message_bytes,
            "private_dir": self._folder,
            **self._rights,
            **({} if self._trust is None else self._trust.settings()),
        }

    def _on_line(self, line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": "warning", "text": line.rstrip()}
        if event.get("event") == "ready":
            self._on_ready(event)
        elif event.get("event") in ("rights", "trust"):
            if event.get("error"):
                as_before = "the rights of devices are as before: " if event["event"] == "rights" else ""
                logger.error("broker: %s%s", as_before, event["error"])
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
        if self._trust is not None:
            self._trust.watch(lambda line: self._child.send(line), facts.lan_port)

    def _on_end(self, child: Child) -> None:
        """On the dead child's waiting thread, which starts the next one; each pause ends early when all is stopped."""
        how = f"the embedded broker ended: {child.how_it_ended().rstrip()}"
        with self._changed:
            if self._stopping:
                return
            if self._facts is None:
                self._ended = how
                self._changed.notify_all()
        if self._facts is None:
            logger.error("%s", how)
            return
        while (how := self._start_again(how)) != "":
            pass

    def _start_again(self, how: str) -> str:
        """Start the next broker after its pause; returns why it could not be started, empty where that is done. It is
        started under the lock, so that `stop` ends that one."""
        pause_s = self._restarts.pause_s(time.monotonic() - self._started)
        logger.error("%s\n%s", how, self._what_follows(pause_s))
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, pause_s)
            if self._stopping:
                return ""
            try:
                self._child = self._start()
            except (BrokerFailed, OSError) as error:
                return f"the embedded broker could not be started again: {error}"
        return ""

    def _what_follows(self, pause_s: float) -> str:
        """What a person reads below the reason."""
        in_a_row = self._restarts.in_a_row
        when = f"Starting it again in {pause_s:g} s" if pause_s else "Starting it again at once"
        if in_a_row < _SAYS_WHAT_TO_DO_FROM:
            return f"{when}."
        return (
            f"{when}, for the {_ordinal(in_a_row)} time in a row, and so on until it stays. Meanwhile this session's"
            " programs keep what they publish and save, and wait. What to do: find what ends it (killed by signal 9:"
            " mostly memory, see dmesg; an address in use: another program has its port), or try the other engine"
            " (broker: {engine: amqtt} or {engine: mosquitto})."
        )


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _trust(config: config_broker.EmbeddedBroker) -> BrokerTrust | None:
    """The certificates, where other machines come by TLS. Raises `ConfigError`, `LabError`."""
    if not config.encrypted:
        return None
    from ether.session.trust.broker_trust import BrokerTrust  # late: certificates take 40 ms to load

    return BrokerTrust(os.environ, config.lan_host or "")


def _credentials(config: config_broker.EmbeddedBroker) -> Credentials:
    """Random for programs of this machine alone. For other machines without certificates they follow from the lab key,
    which those hold."""
    plain = config.lan_host is not None and not config.encrypted
    return load_or_make_key(os.environ).credentials() if plain else Credentials.random()


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
