"""What `ether doctor` measures in a session: the broker by messages to itself, the members by their heartbeats."""

from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ether.cli.machines.checks import Check
from ether.cli.output import ago
from ether.cli.tool_name import TOOL
from ether.config.broker_url import url_without_credentials
from ether.connection.link import Inbound
from ether.errors import ConfigError, EtherError, TransportError
from ether.protocol.presence import Announcement
from ether.session.client import Client
from ether.session.watching.heartbeats import Heartbeats
from ether.session.watching.rates import shown_bytes
from ether.transport.endpoint import Endpoint
from ether.transport.opening import open_socket
from ether.transport.sockets import Waker
from ether.version import VERSION, WIRE

_ECHOES = 20
_ECHO_S = 5.0
_LARGEST_PROBE_BYTES = 16 << 20
_SLOW_S = 0.05
_HEARTBEATS_S = 1.7
_CLOCK_TOLERANCE_S = 0.25


def session_checks(client: Client) -> Iterator[Check]:
    """The leader and the broker, then each member of the session."""
    info = client.session.info(_ECHO_S)
    engine, since = info.get("engine", "unknown"), ago(info.get("since"))
    where = f"led by pid {info.get('pid')} on {info.get('host')} since {since}, ether {info.get('version')}"
    yield Check("session", "ok" if info else "warn", f"{client.topics.session}: {where if info else 'led by nobody'}")
    transport = client.link.transport
    yield Check("broker", "ok", f"{engine}, {info.get('broker', '')}, MQTT {transport.version.value}")
    if info.get("security") == "off":
        hint = "leave `security: off` out: machines are then let in by `ether pair` (docs/pairing.md)"
        yield Check("security", "fail", "off: who can listen to the network reads and writes this session", hint)
    yield from _password_checks(info)
    if isinstance(url := info.get("websocket"), str):
        yield _websocket_check(url)
    yield from _echo_checks(client)
    yield from _member_checks(client)
    yield _rights_check(client, info)
    yield from _version_checks(client)


def _password_checks(info: Mapping[str, Any]) -> Iterator[Check]:
    """Whether devices come in by a password, and whether the session's own one opens that port, too."""
    if (port := info.get("passwords")) is None:
        return
    detail = f"devices come in by a password of their own at port {port}"
    if info.get("engine") == "mosquitto":
        detail = f"{detail}; the session's own password, which may do everything, opens it, too"
        hint = "mosquitto has one file of passwords for all listeners: `broker: {engine: amqtt}` refuses it there"
        yield Check("passwords", "warn", detail, hint)
    else:
        yield Check("passwords", "ok", f"{detail}, and nobody else there")


def _rights_check(client: Client, info: Mapping[str, Any]) -> Check:
    """Who may do what: programs of the leader's machine everything, those of others what their rights say."""
    hosts = {str(member.about.get("host")) for member in client.session.announcements() if member.about.get("host")}
    others = ", ".join(sorted(hosts - {str(info.get("host"))}))
    if not others:
        return Check("rights", "ok", "all members are on one machine, and may do everything")
    if (said := info.get("rights")) is None:
        hint = "security: {guests: call} in the configuration gives each machine what it needs (docs/security.md)"
        return Check("rights", "warn", f"members on {others} may do everything", hint)
    if info.get("engine") == "external":
        hint = "ether rights --export prints its rights; where none can be installed, members are trusted"
        return Check("rights", "warn", f"{said}; whether this broker has them cannot be seen from here", hint)
    return Check("rights", "ok", f"derived from the configuration, {said}; ether rights shows them")


def _version_checks(client: Client) -> Iterator[Check]:
    """Members of an earlier version of the wire, which are served."""
    old = sorted(member.name for member in client.session.announcements() if member.wire < WIRE)
    if old:
        detail = f"{', '.join(old)}: version 1 of the wire, this one speaks {WIRE}; they are served"
        yield Check("versions", "warn", detail, "pip install --upgrade ether-medium on their machines")


def _websocket_check(url: str) -> Check:
    """Whether a WebSocket opens at this URL, which a machine behind a firewall would use. It does not log in."""
    waker = Waker()
    waker.open()
    try:
        endpoint = Endpoint.from_url(url)
        open_socket(endpoint, _ECHO_S, waker, lambda: False, give_up_s=_ECHO_S).close()
        return Check("websocket", "ok", f"opens at {endpoint.address}")
    except (OSError, ConfigError) as error:
        detail = f"{url_without_credentials(url)!r:.200}: {error}"
        return Check(
            "websocket", "fail", detail, "other machines cannot come this way: is a firewall, or a name, wrong?"
        )
    finally:
        waker.close()


def _echo_checks(client: Client) -> Iterator[Check]:
    echo = _Echo(client)
    try:
        times = [echo.send(b"x") for _ in range(_ECHOES)]
        median, worst = statistics.median(times), max(times)
        detail = f"median {1000 * median:.1f} ms, worst of {_ECHOES} {1000 * worst:.1f} ms"
        hint = "the machine is busy, or the network is slow" if median > _SLOW_S else ""
        yield Check("round trip", "warn" if hint else "ok", detail, hint)
        yield _limit(client, echo)
    except EtherError as error:
        yield Check("round trip", "fail", str(error), "the broker takes messages and does not deliver them")
    finally:
        echo.close()


def _limit(client: Client, echo: _Echo) -> Check:
    """The largest packet that the broker says it accepts, tried with a message of half that size, at most 16 MiB."""
    limit = client.link.transport.max_packet_bytes
    size = min(limit // 2, _LARGEST_PROBE_BYTES)
    took = echo.send(bytes(size))
    rate = shown_bytes(size / took)
    return Check(
        "largest message", "ok", f"{shown_bytes(limit)}; one of {shown_bytes(size)} took {took:.2f} s ({rate}/s)"
    )


class _Echo:
    """Publishes messages to a topic that only this command listens to, and times their return."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._topic = client.topics.reply(f"{client.link.source}-probe")
        self._arrived: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._receive = self._take
        client.link.listen(self._topic, self._receive)

    def _take(self, inbound: Inbound) -> None:
        self._arrived.put(time.perf_counter())
        inbound.done()

    def send(self, payload: bytes) -> float:
        """The seconds until the message is back; raises `TransportError` where it is not within `_ECHO_S`."""
        began = time.perf_counter()
        self._client.link.publish(self._topic, payload)
        try:
            return self._arrived.get(timeout=_ECHO_S) - began
        except queue.Empty:
            raise TransportError(f"{len(payload):,} bytes to ourselves did not come back in {_ECHO_S:g} s") from None

    def close(self) -> None:
        self._client.link.unlisten(self._topic, self._receive)


def _member_checks(client: Client) -> Iterator[Check]:
    heartbeats = Heartbeats(client)
    try:
        heartbeats.collect(_HEARTBEATS_S)
        for member in client.session.announcements():
            if not member.name.startswith(TOOL):
                yield _member_check(member)
                yield from _clock_check(member, heartbeats)
    finally:
        heartbeats.close()


def _member_check(member: Announcement) -> Check:
    about = member.about
    version = about.get("version")
    name, where = f"{member.kind} {member.name}", f"{member.state.value} on {about.get('host')}"
    if member.state.value in ("error", "lost", "failed", "hung"):
        return Check(name, "fail", f"{where}: {_last_line(member.error)}", f"ether logs -i {member.name} --level error")
    if version not in (None, VERSION):
        hint = "install the same version on every machine"
        return Check(name, "warn", f"{where}, ether {version} where this is {VERSION}", hint)
    return Check(name, "ok", where if version is None else f"{where}, ether {version}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"


def _clock_check(member: Announcement, heartbeats: Heartbeats) -> Iterator[Check]:
    """The lag of a heartbeat is its way plus the difference of the two clocks. The least lag in the window is nearest
    to the difference: a negative one, or one far above any network's delay, shows clocks that differ."""
    lag_s = heartbeats.least_lag_s(member.name)
    if lag_s is not None and abs(lag_s) > _CLOCK_TOLERANCE_S:
        detail = f"{abs(lag_s):.2f} s {'behind' if lag_s > 0 else 'ahead of'} this machine's, give or take the way"
        yield Check(f"clock of {member.about.get('host')}", "warn", detail, "timedatectl set-ntp true on both machines")
