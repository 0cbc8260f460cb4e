"""Sessions on the local network, by multicast DNS: announces a session, browses for others. The only owner of zeroconf.

A session is announced as a service `_ether._tcp.local.` whose TXT record has the session's name, version, host, and the
lab of whose members it is, or, where it is not encrypted, the user name that its broker wants; never a password. All of
this is optional: without the library, or without a network, `browse` raises `MdnsUnavailable`, `announce` writes a line
to the log, and the session works nevertheless.

The traps: anyone may announce anything, and an announcement may be that of a killed session, so its broker has to be
asked before it counts. A question for a unicast answer (QU, zeroconf's default for the first question) is lost where
several programs of a machine listen on port 5353, so questions are QM. And a responder repeats a multicast record after
one second at the earliest (RFC 6762, section 6), so `BROWSE_S` is longer than that.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ether.connection.deadline import Deadline
from ether.errors import ConfigError, InvalidName
from ether.log import get_ether_logger
from ether.wire.topics import check_session_name

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf

logger = get_ether_logger("Ether")

SERVICE = "_ether._tcp.local."
PAIRING = "_ether-pair._tcp.local."
"""While `ether pair` waits for a device."""
MDNS_VARIABLE = "ETHER_MDNS"
BROWSE_S = 2.0
"""How long to browse by default."""
SETTLE_S = 0.25
"""How long to wait for more after the first answer: others come within 120 ms (RFC 6762, section 6)."""

MOST_ANNOUNCED = 100
_RESOLVE_MS = 300
_CLOSE_S = 3.0
_LONGEST_TXT = 255


class MdnsUnavailable(Exception):
    """Multicast DNS cannot be used here; the message says why."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A session as it is announced; `addresses` are all addresses of its machine, `lab` the lab that may join. Without
    one it is not encrypted, and `user` is the user name that its broker wants."""

    session: str
    host: str
    version: str
    user: str
    addresses: tuple[str, ...]
    port: int
    lab: str = ""


class MdnsAnnouncement:
    """Announces a session, on a thread of its own, until `close()`."""

    def __init__(self, service: ServiceInfo, interfaces: Sequence[str] | None) -> None:
        self._service, self._interfaces = service, interfaces
        self._closing = threading.Event()
        self._announced = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ether-mdns", daemon=True)
        self._thread.start()

    def wait_announced(self, timeout_s: float) -> bool:
        """Wait until the announcement has been sent; returns whether it has. For tests: a session need not wait for
        it."""
        return self._announced.wait(timeout_s)

    def close(self) -> None:
        """Withdraw the announcement. May be called twice."""
        self._closing.set()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            logger.warning("mDNS: the announcement could not be taken back within %g s", _CLOSE_S)

    def _run(self) -> None:
        try:
            with _opened(self._interfaces) as zeroconf:
                zeroconf.register_service(self._service, cooperating_responders=True)  # its name is random: no probing
                self._announced.set()
                self._closing.wait()
        except Exception as error:  # noqa: BLE001 (the seam to a library on a thread of its own: nothing depends on it)
            logger.warning("mDNS: this session is not announced on the network: %s", error or type(error).__name__)


def browse_seconds(environment: Mapping[str, str]) -> float:
    """How long to browse, in seconds: `ETHER_MDNS`, else `BROWSE_S`. 0 turns mDNS off. Raises `ConfigError`."""
    given = environment.get(MDNS_VARIABLE, "").strip()
    if not given:
        return BROWSE_S
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 60:
        raise ConfigError(f"found {MDNS_VARIABLE}={given!r:.40}; expected seconds from 0 (off) to 60.")
    return seconds


def announce(
    session: str,
    port: int,
    addresses: Sequence[str],
    version: str,
    *,
    user: str = "",
    lab: str = "",
    host: str | None = None,
    interfaces: Sequence[str] | None = None,
) -> MdnsAnnouncement | None:
    """Announce a session whose broker listens on `port` at these addresses of this machine; returns at once. None,
    with a line in the log, where that is not possible. `interfaces` are addresses of this machine to send from
    (default: all)."""
    texts = {"session": session, "version": version, "host": host or socket.gethostname(), "user": user, "lab": lab}
    return _announce(texts, port, addresses, interfaces, SERVICE)


def announce_pairing(port: int, addresses: Sequence[str], version: str, lab: str) -> MdnsAnnouncement | None:
    """Announce that this machine waits for a device of its lab; None, with a line in the log, where that is not
    possible."""
    texts = {"session": "pairing", "version": version, "host": socket.gethostname(), "user": "", "lab": lab}
    return _announce(texts, port, addresses, None, PAIRING)


def _announce(
    texts: Mapping[str, str], port: int, addresses: Sequence[str], interfaces: Sequence[str] | None, service: str
) -> MdnsAnnouncement | None:
    session = texts["session"]
    too_long = [key for key, text in texts.items() if len(f"{key}={text}".encode()) > _LONGEST_TXT]
    if too_long or not addresses:
        why = f"its {too_long[0]} is too long for mDNS" if too_long else "its machine has no address"
        logger.warning("session %r is not announced on the network: %s", session, why)
        return None
    try:
        return MdnsAnnouncement(_service(texts, port, addresses, service), interfaces)
    except (MdnsUnavailable, OSError, ValueError) as error:
        logger.warning("session %r is not announced on the network: %s", session, error)
        return None


def _service(texts: Mapping[str, str], port: int, addresses: Sequence[str], service: str) -> ServiceInfo:
    try:
        from zeroconf import ServiceInfo
    except ImportError as error:
        raise _not_installed() from error
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", texts["session"])[:40]
    # Unique, so that two sessions of one name coexist, and no host name is claimed.
    label = f"{readable}-{os.urandom(4).hex()}"
    return ServiceInfo(
        service,
        f"{label}.{service}",
        port=port,
        parsed_addresses=list(addresses),
        properties=dict(texts),
        server=f"{label}.local.",
    )


def browse(
    timeout_s: float = BROWSE_S,
    *,
    session: str | None = None,
    interfaces: Sequence[str] | None = None,
    service: str = SERVICE,
) -> list[Announced]:
    """The sessions that are announced on the network. Takes at most `timeout_s` seconds; less where the session with
    the name `session` is found, or, without a name, where `SETTLE_S` have passed after the first one. Raises
    `MdnsUnavailable`."""
    search = _Search(session, service)
    # On a thread of its own, because zeroconf would use a running event loop (a notebook's) of this thread.
    thread = threading.Thread(target=search.run, args=(timeout_s, interfaces), name="ether-mdns-browse", daemon=True)
    thread.start()
    thread.join(timeout_s + _CLOSE_S)
    if search.failure is not None:
        raise search.failure
    return search.found()


class _Search:
    """One browsing of the network."""

    def __init__(self, wanted: str | None, service: str) -> None:
        self.failure: MdnsUnavailable | None = None
        self._service = service
        self._wanted = wanted
        self._found: dict[str, Announced] = {}
        self._changed = threading.Condition()

    def found(self) -> list[Announced]:
        with self._changed:
            return sorted(self._found.values(), key=lambda announced: (announced.session, announced.host))

    def run(self, timeout_s: float, interfaces: Sequence[str] | None) -> None:
        try:
            with _opened(interfaces) as zeroconf:
                self._listen(zeroconf, timeout_s)
        except MdnsUnavailable as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the seam to a library: the caller gets it as its own error)
            self.failure = MdnsUnavailable(f"looking for sessions failed: {error or type(error).__name__}")

    def _listen(self, zeroconf: Zeroconf, timeout_s: float) -> None:
        from zeroconf import DNSQuestionType, ServiceBrowser

        deadline = Deadline(timeout_s)
        browser = ServiceBrowser(zeroconf, self._service, handlers=[self._on_change], question_type=DNSQuestionType.QM)
        try:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._found), deadline.left())
                settle_s = min(SETTLE_S, deadline.left()) if self._wanted is None else deadline.left()
                self._changed.wait_for(self._named_was_found, settle_s)
        finally:
            browser.cancel()

    def _named_was_found(self) -> bool:
        return any(announced.session == self._wanted for announced in self._found.values())

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """On the browser's thread."""
        gone = state_change.name == "Removed"
        service = None if gone else zeroconf.get_service_info(service_type, name, _RESOLVE_MS)
        announced = _announced_by(service) if service is not None else None
        with self._changed:
            if announced is None:
                self._found.pop(name, None)
            elif len(self._found) < MOST_ANNOUNCED:
                self._found[name] = announced
            self._changed.notify_all()


def announced_in(packet: bytes) -> list[Announced]:
    """The sessions whose whole announcement is in one packet of a responder; empty for every other packet."""
    try:
        from zeroconf import (  # type: ignore[attr-defined]  # it has no __all__
            DNSAddress,
            DNSIncoming,
            DNSService,
            DNSText,
            ServiceInfo,
        )
    except ImportError:
        return []
    try:
        message = DNSIncoming(packet)
        records = message.answers() if message.is_response() else []
    except Exception as error:  # noqa: BLE001 (the seam to a library: anybody can send anything to this port)
        logger.debug("a packet of mDNS cannot be read: %s", error)
        return []
    texts = {record.name: record.text for record in records if isinstance(record, DNSText) and record.ttl}
    found = []
    for record in records:
        if isinstance(record, DNSService) and record.ttl and record.name in texts and record.name.endswith(SERVICE):
            addresses = [a.address for a in records if isinstance(a, DNSAddress) and a.name == record.server]
            service = ServiceInfo(
                SERVICE, record.name, port=record.port, addresses=addresses, properties=texts[record.name],
                server=record.server,
            )  # fmt: skip
            announced = _announced_by(service)
            found += [announced] if announced is not None else []
    return found


def _announced_by(service: ServiceInfo) -> Announced | None:
    """The announcement in a service record; None where it is not a valid one."""
    texts = {key: text or "" for key, text in service.decoded_properties.items()}
    addresses = tuple(service.parsed_addresses())
    try:
        session = check_session_name(texts.get("session"))  # type: ignore[arg-type]
    except InvalidName:
        return None
    if not addresses or not service.port:
        return None
    host, version, user, lab = (_printable(texts.get(key, "")) for key in ("host", "version", "user", "lab"))
    return Announced(session, host, version, user, addresses, service.port, lab)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def own_addresses() -> list[str]:
    """The IPv4 addresses of this machine, without those of the loopback interface."""
    return [address for address in interface_addresses() if not address.startswith("127.")]


def interface_addresses() -> list[str]:
    """The IPv4 addresses of all interfaces of this machine."""
    try:
        import ifaddr  # comes with zeroconf
    except ImportError:
        return _address_of_default_route()
    found = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    return sorted(set(found))


def _address_of_default_route() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # UDP: nothing is sent
        except OSError:
            return []
        return [probe.getsockname()[0]]


@contextmanager
def _opened(interfaces: Sequence[str] | None) -> Iterator[Zeroconf]:
    try:
        from zeroconf import InterfaceChoice, Zeroconf
    except ImportError as error:
        raise _not_installed() from error
    try:
        zeroconf = Zeroconf(list(interfaces) if interfaces else InterfaceChoice.All)
    except OSError as error:
        raise MdnsUnavailable(f"there is no network that takes multicast ({error})") from error
    try:
        yield zeroconf
    finally:
        zeroconf.close()


def _not_installed() -> MdnsUnavailable:
    return MdnsUnavailable("the package zeroconf is not installed (pip install zeroconf)")
