"""Finds a device by its identity, wherever it is plugged in.

The port that the user named comes first, then the port where the device was last, then the others. USB facts are
compared without opening the port; a port that another program holds is left alone; a foreign device gets the one
query of the identity and nothing else. The trap: that query may mean something to the foreign device. Narrow the
`candidates` where it might.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hardware_adapters.boot import Booting, BootRules
from hardware_adapters.connection import Medium, PortConnection, PortEvents
from hardware_adapters.errors import (
    AdapterError,
    BadAnswer,
    Disconnected,
    NoAnswer,
    PortNotFound,
    WrongDevice,
)
from hardware_adapters.identity import Fingerprint, Identity, PortInfo, recognised
from hardware_adapters.step_rules import Owed

ASK_S = 0.5
"""The time-out of the identity's query. It is sent twice at most; at the named port, until `timeout_s` has passed."""

ASK_AGAIN_S = 0.5
"""A port with a foreign device is not opened again before this time has passed."""


class AskTimes(NamedTuple):
    """How long the identity is asked for at the named port, and how long a device may boot after each opening."""

    timeout_s: float
    boot: BootRules = BootRules()


class FoundPort(NamedTuple):
    """An open connection to the device, and the device's fingerprint."""

    connection: PortConnection
    info: PortInfo
    fingerprint: Fingerprint

    @property
    def port(self) -> str:
        """The port's name."""
        return self.info.device


class Search:
    """The search for one device. `known` is its fingerprint, once it was connected."""

    def __init__(
        self,
        medium: Medium,
        port: str | None,
        identity: Identity | None,
        encode: Callable[[bytes], bytes],
        *,
        events: PortEvents,
        holder: str,
        times: AskTimes,
        closing: threading.Event,
    ) -> None:
        if port is None and identity is None:
            raise ValueError("an adapter needs a port, or an identity by which to find one")
        self._medium, self._port, self._identity, self._encode = medium, port, identity, encode
        self._events, self._holder, self._closing = events, holder, closing
        self._ask_s, self._boot, self._boot_s = min(ASK_S, times.timeout_s), times.boot, times.boot.boot_s
        self._attempts = max(2, math.ceil(times.timeout_s / self._ask_s))
        self._foreign: dict[str, float] = {}
        self._last: str | None = port
        self.known: Fingerprint | None = None
        self.owed: Sequence[Owed] = ()  # answers that the device may still send, whatever connection there is

    def find(self) -> FoundPort:
        """The device, connected. Raises why it is not found; WrongDevice where two devices fit an identity that is
        not unique.

        At the named port any fitting device is taken. Elsewhere the first that fits is enough where only one in the
        world can fit; else all ports are tried, and the result must be a single device.
        """
        failures: dict[str, AdapterError] = {}
        candidates = self._candidate_ports()
        one_is_enough = self.known is not None or self._identity is None or self._identity.is_unique
        named = [info for info in candidates if info.device == self._port]
        found = next(self._fitting(named, failures), None)
        if found is None:
            others = self._fitting([info for info in candidates if info.device != self._port], failures)
            found = next(others, None) if one_is_enough else self._only(list(others))
        if found is None:
            raise self._explanation(failures)
        self._last = found.port
        return found

    def verify(self, connection: PortConnection, found: FoundPort) -> None:
        """Send the identity's query again. Raises WrongDevice, and the errors of a query."""
        recognised(self._identity, found.fingerprint, found.port, found.info, self._asker(connection, 2))

    def _candidate_ports(self) -> list[PortInfo]:
        """The ports to try, in order.

        A named port may be a link (`/dev/serial/by-id/…`) to one that the medium lists: then it stands for that port,
        with its USB facts, under the user's name. A named port that is not listed is tried all the same. Without an
        identity and a USB serial number no other port can be recognised, so only the named one is tried.
        """
        infos = {info.device: info for info in self._medium.ports()}
        if self._port is not None and self._port not in infos:
            real = os.path.realpath(self._port)
            same = next((info for info in infos.values() if os.path.realpath(info.device) == real), None)
            infos[self._port] = (same or PortInfo(self._port))._replace(device=self._port)
            if same is not None:
                del infos[same.device]
        if self._identity is None and not (self.known and self.known.usb_serial):
            return [infos[self._port]] if self._port is not None else []
        return sorted(infos.values(), key=lambda info: (info.device != self._port, info.device != self._last))

    def _fitting(self, infos: Sequence[PortInfo], failures: dict[str, AdapterError]) -> Iterator[FoundPort]:
        for info in infos:
            if self._closing.is_set():
                raise Disconnected(self._holder, "the adapter was closed")
            try:
                yield self._try(info)
            except AdapterError as error:
                failures[info.device] = error

    def _try(self, info: PortInfo) -> FoundPort:
        """Open the port and recognise the device. Raises why it is not the wanted one, with the port closed."""
        self._refuse_by_usb(info)
        if time.monotonic() - self._foreign.get(info.device, -ASK_AGAIN_S) < ASK_AGAIN_S:
            raise WrongDevice(info.device, str(self.known or self._identity), "another one, as was found a moment ago")
        booting, waits = Booting(self._boot, self._events), self._boot.ready is not None
        owed = () if waits else self.owed  # a board that was reset owes nothing
        connection = self._medium.open(info.device, booting.events, self._holder, owed)
        try:
            if waits:
                self._wait_until_ready(connection, booting, info)
            fingerprint = self._recognised(connection, info)
        except BaseException as error:
            connection.close()
            if isinstance(error, WrongDevice):
                self._foreign[info.device] = time.monotonic()
            raise
        return FoundPort(connection, info, fingerprint)

    def _wait_until_ready(self, connection: PortConnection, booting: Booting, info: PortInfo) -> None:
        """Wait for the board's line. One that does not say it is asked for its identity, where it has one; else nobody
        knows whether it has booted, and that is raised."""
        ready = booting.wait(lambda: connection.lost is None and not self._closing.is_set())
        booting.end()
        if not ready and (connection.lost is not None or self._identity is None or not self._identity.is_asked):
            raise connection.lost or booting.failure(info.device)

    def _recognised(self, connection: PortConnection, info: PortInfo) -> Fingerprint:
        """The fingerprint of the device at an open port. A board that is reset when its port is opened says other
        things, or nothing, while it boots: the port stays open meanwhile, because each opening would reset it again."""
        attempts = self._attempts if info.device == self._port else 2
        if not self._boot_s or self._boot.ready is not None:
            return recognised(self._identity, self.known, info.device, info, self._asker(connection, attempts))
        booted = time.monotonic() + self._boot_s
        if self._identity is None or not self._identity.is_asked:
            self._closing.wait(self._boot_s)
        while time.monotonic() < booted and not self._closing.is_set():
            try:
                return recognised(self._identity, self.known, info.device, info, self._asker(connection, 2))
            except (NoAnswer, BadAnswer, WrongDevice):
                continue
        return recognised(self._identity, self.known, info.device, info, self._asker(connection, attempts, wait=True))

    def _refuse_by_usb(self, info: PortInfo) -> None:
        if self._identity is not None and not self._identity.fits_port(info):
            raise WrongDevice(info.device, str(self._identity), f"USB serial number {info.usb_serial}")
        if self.known is not None and self.known.usb_serial != info.usb_serial:
            raise WrongDevice(info.device, str(self.known), f"USB serial number {info.usb_serial}")

    def _asker(
        self, connection: PortConnection, attempts: int, *, wait: bool = False
    ) -> Callable[[str | bytes], bytes]:
        """A query that is sent so often at most: opening a port resets some boards, and their first bytes are noise.

        It is sent at once (but with `wait`) also where answers are owed, and what comes before the right answer is
        dropped. Where something else came alone, the next one waits until nothing is owed: then whatever comes is the
        answer, be it a stranger's.
        """

        def ask(query: str | bytes) -> bytes:
            message = self._encode(query.encode() if isinstance(query, str) else query)
            waits = wait
            for _ in range(attempts - 1):
                try:
                    return connection.ask(message, self._ask_s, self._fits, wait=waits)
                except NoAnswer:
                    continue
                except BadAnswer:
                    waits = True
            return connection.ask(message, self._ask_s, self._fits, wait=waits)

        return ask

    def _fits(self, answer: bytes) -> bool:
        found = self._identity.recognise(answer) if self._identity else None
        return found is not None and (self.known is None or found == self.known.answer)

    def _only(self, found: list[FoundPort]) -> FoundPort | None:
        if len(found) < 2:
            return found[0] if found else None
        for each in found:
            each.connection.close()
        listed = "; ".join(f"{each.port}: {each.fingerprint}" for each in found)
        raise WrongDevice(found[0].port, f"one device: {self._identity}", f"{len(found)} that fit ({listed}); name one")

    def _explanation(self, failures: dict[str, AdapterError]) -> AdapterError:
        """The error that explains best why nothing was found: that of the named port, or a list of all."""
        named = failures.get(self._port or "")
        if named is not None and (len(failures) == 1 or isinstance(named, WrongDevice)):
            return named
        listed = "; ".join(str(error) for error in failures.values()) or "there is no port to look at"
        wanted = self.known or self._identity
        return PortNotFound(self._port or self._holder, f"{wanted} was not found: {listed}")
