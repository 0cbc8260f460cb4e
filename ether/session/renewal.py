"""A device's certificate is renewed over the running session, before it ends.

    leader   control/renew/<leader>     {"lab", "devices": [names whose certificates end soon, or have ended]}
    device   control/renew/<device>     {"request": a signing request of its key}
    leader   control/renewed/<leader>   {"lab", "device", "certificate"}

The leader says who is due: its clock is the lab's, and a Pi's may be anything. Nothing here is a secret. A request is
signed by the key that it is about, and a certificate is of use to that key's holder alone. Promise: a device takes a
certificate only if its lab has signed it for its own key, and it holds for longer than the one that it has; open
connections go on. The trap: a device that is never in a session for `LOOK_S` is not renewed; it enters for a year more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ether.connection.link import Inbound, Link
from ether.errors import EtherError, PayloadError
from ether.log import get_ether_logger
from ether.system.lab_folders import Membership, membership_of, write_bytes
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

RENEW, RENEWED = "renew", "renewed"
LOOK_S = 60.0
"""How often the leader looks for certificates that are due."""
_SEND_S = 2.0
_LONGEST = 20_000
_AT_LEAST_S = 30.0
"""A device asks no more often."""


class Renews(Protocol):
    """What the leader needs of its lab."""

    @property
    def id(self) -> str:
        """The lab's name among labs."""

    def due(self) -> Sequence[str]:
        """The devices whose certificates are to be renewed."""

    def sign(self, request_pem: bytes) -> tuple[str, bytes]:
        """The device that has this key, and its new certificate. Raises `EtherError`, `ValueError`."""


class RenewalDesk:
    """The leader's side, from its making until `close()`."""

    def __init__(self, link: Link, topics: SessionTopics, lab: Renews, look_s: float = LOOK_S) -> None:
        self._link, self._topics, self._lab, self._look_s = link, topics, lab, look_s
        self._ended = threading.Event()
        self._said: set[str] = set()
        self._receive = self._on_request
        link.listen(topics.control_by(RENEW, "+"), self._receive)
        self._thread = threading.Thread(target=self._run, name="ether-renewal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Renew no more. Twice is fine."""
        self._ended.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except (EtherError, OSError, ValueError) as error:
                logger.debug("certificates that are due cannot be looked for: %s", error)
            if self._ended.wait(self._look_s):
                return

    def _look(self) -> None:
        if devices := list(self._lab.due()):
            said = {"lab": self._lab.id, "devices": devices}
            self._link.publish(self._topics.control_by(RENEW, self._link.source), said, timeout_s=_SEND_S)

    def _on_request(self, inbound: Inbound) -> None:
        """On the dispatch thread: signing takes a fraction of a millisecond, and a file is written."""
        value = _value_of(inbound)
        request = value.get("request")
        if not isinstance(request, str) or len(request) > _LONGEST:
            return
        try:
            device, certificate = self._lab.sign(request.encode())
            said = {"lab": self._lab.id, "device": device, "certificate": certificate.decode()}
            self._link.publish(self._topics.control_by(RENEWED, self._link.source), said, timeout_s=_SEND_S)
        except (EtherError, OSError, ValueError) as error:
            if str(error) not in self._said and len(self._said) < 100:
                self._said.add(str(error))
                logger.warning("a certificate is not renewed: %s", error)
        else:
            logger.info("the certificate of %s is renewed", device)


class DeviceRenewal:
    """A device's side, for as long as its link is open."""

    def __init__(self, link: Link, topics: SessionTopics, environment: Mapping[str, str]) -> None:
        self._link, self._topics, self._environment = link, topics, environment
        self._asked = -_AT_LEAST_S
        self._receive_due, self._receive_new = self._on_due, self._on_new
        link.listen(topics.control_by(RENEW, "+"), self._receive_due)
        link.listen(topics.control_by(RENEWED, "+"), self._receive_new)

    def _on_due(self, inbound: Inbound) -> None:
        value = _value_of(inbound)
        known = self._membership(value)
        devices = value.get("devices")
        if known is None or not isinstance(devices, list) or known.name not in devices:
            return
        if time.monotonic() - self._asked < _AT_LEAST_S:
            return
        self._asked = time.monotonic()
        from ether.security.certificates import signing_request  # late: it takes 40 ms to load

        try:
            with open(known.key, "rb") as file:
                request = signing_request(file.read()).decode()
            self._link.publish(self._topics.control_by(RENEW, known.name), {"request": request}, timeout_s=_SEND_S)
        except (EtherError, OSError, ValueError) as error:
            logger.warning("this machine's certificate %s cannot be renewed: %s", known.certificate, error)

    def _on_new(self, inbound: Inbound) -> None:
        value = _value_of(inbound)
        known = self._membership(value)
        certificate = value.get("certificate")
        if known is None or value.get("device") != known.name or not isinstance(certificate, str):
            return
        try:
            take_renewed(known, certificate.encode())
        except (OSError, ValueError) as error:
            logger.warning("a new certificate for this machine is not taken: %s", error)

    def _membership(self, value: Mapping[str, object]) -> Membership | None:
        lab = value.get("lab")
        return membership_of(lab, self._environment) if isinstance(lab, str) else None


def take_renewed(known: Membership, certificate_pem: bytes) -> bool:
    """Keep a new certificate in the place of the one of before, where it holds for longer; returns whether it does.
    Raises `NotSigned` (a `ValueError`) for one that is not this lab's for this device's key, `OSError`."""
    from ether.security.certificates import NotSigned, check_device_certificate, facts_of  # late, as above

    contents = []
    for path in (known.authority, known.key, known.certificate):
        with open(path, "rb") as file:
            contents.append(file.read())
    authority, key, before = contents
    facts, old = check_device_certificate(certificate_pem, authority, key), facts_of(before)
    if facts.name != known.name:
        raise NotSigned(f"it is for {facts.name!r}")
    if facts.ends <= old.ends:
        return False
    write_bytes(known.certificate, certificate_pem)
    logger.info("this machine's certificate of the lab of %s is renewed", known.host)
    return True


def _value_of(inbound: Inbound) -> Mapping[str, object]:
    try:
        value = inbound.unpack().value
    except PayloadError:
        return {}
    finally:
        inbound.done()
    return value if isinstance(value, dict) else {}
