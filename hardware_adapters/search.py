"""Finds a device by its identity, wherever it is plugged in.

The port that the user named is looked at first, then the one where the device was last, then the others. What USB
tells is compared without opening; a port that another program holds is left alone; a stranger is asked the one
question of the identity and nothing else. The trap: that question may mean something to the stranger. Narrow the
`candidates` where it might.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

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

ASK_S = 0.5
"""A device that does not say who it is within this time, twice, is not the one (or not yet)."""

ASK_AGAIN_S = 0.5
"""A stranger is left in peace so long before its port is looked at again."""


class FoundPort(NamedTuple):
    """An open connection to the device, and who it is."""

    connection: PortConnection
    info: PortInfo
    fingerprint: Fingerprint

    @property
    def port(self) -> str:
        """Where it was found."""
        return self.info.device


class Search:
    """The search for one device. `known` is who it is, once that was found."""

    def __init__(
        self,
        medium: Medium,
        port: str | None,
        identity: Identity | None,
        encode: Callable[[bytes], bytes],
        *,
        events: PortEvents,
        holder: str,
        timeout_s: float,
        closing: threading.Event,
    ) -> None:
        if port is None and identity is None:
            raise ValueError("an adapter needs a port, or an identity by which to find one")
        self._medium, self._port, self._identity, self._encode = medium, port, identity, encode
        self._events, self._holder, self._closing = events, holder, closing
        self._ask_s = min(ASK_S, timeout_s)
        self._strangers: dict[str, float] = {}
        self._last: str | None = port
        self.known: Fingerprint | None = None

    def find(self) -> FoundPort:
        """The device. Raises why it is not found; where two fit an identity that is not unique, WrongDevice."""
        troubles: dict[str, AdapterError] = {}
        candidates = self._where()
        one_is_enough = self.known is not None or self._identity is None or self._identity.is_unique
        named = [info for info in candidates if info.device == self._port]
        found = next(self._fitting(named, troubles), None)
        if found is None:
            others = self._fitting([info for info in candidates if info.device != self._port], troubles)
            found = next(others, None) if one_is_enough else self._only(list(others))
        if found is None:
            raise self._why(troubles)
        self._last = found.port
        return found

    def verify(self, connection: PortConnection, found: FoundPort) -> None:
        """Ask again who is there. Raises WrongDevice, and what asking raises."""
        recognised(self._identity, found.fingerprint, found.port, found.info, self._asker(connection))

    def _where(self) -> list[PortInfo]:
        """Ports worth a look, in order."""
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

    def _fitting(self, infos: Sequence[PortInfo], troubles: dict[str, AdapterError]) -> Iterator[FoundPort]:
        for info in infos:
            if self._closing.is_set():
                raise Disconnected(self._holder, "the adapter was closed")
            try:
                yield self._try(info)
            except AdapterError as error:
                troubles[info.device] = error

    def _try(self, info: PortInfo) -> FoundPort:
        """The device at this port. Raises why it is not there."""
        self._refuse_by_usb(info)
        if time.monotonic() - self._strangers.get(info.device, -ASK_AGAIN_S) < ASK_AGAIN_S:
            raise WrongDevice(info.device, str(self.known or self._identity), "another one, as was found a moment ago")
        connection = self._medium.open(info.device, self._events, self._holder)
        try:
            who = recognised(self._identity, self.known, info.device, info, self._asker(connection))
        except BaseException as error:
            connection.close()
            if isinstance(error, WrongDevice):
                self._strangers[info.device] = time.monotonic()
            raise
        return FoundPort(connection, info, who)

    def _refuse_by_usb(self, info: PortInfo) -> None:
        if self._identity is not None and not self._identity.fits_port(info):
            raise WrongDevice(info.device, str(self._identity), f"USB serial number {info.usb_serial}")
        if self.known is not None and self.known.usb_serial != info.usb_serial:
            raise WrongDevice(info.device, str(self.known), f"USB serial number {info.usb_serial}")

    def _asker(self, connection: PortConnection) -> Callable[[str | bytes], bytes]:
        """Asks twice: opening a port resets many a board, and what is in the line then is noise."""

        def ask(question: str | bytes) -> bytes:
            message = self._encode(question.encode() if isinstance(question, str) else question)
            try:
                return connection.ask(message, self._ask_s)
            except (NoAnswer, BadAnswer):
                return connection.ask(message, self._ask_s)

        return ask

    def _only(self, found: list[FoundPort]) -> FoundPort | None:
        if len(found) < 2:
            return found[0] if found else None
        for each in found:
            each.connection.close()
        listed = "; ".join(f"{each.port}: {each.fingerprint}" for each in found)
        raise WrongDevice(found[0].port, f"one device: {self._identity}", f"{len(found)} that fit ({listed}); name one")

    def _why(self, troubles: dict[str, AdapterError]) -> AdapterError:
        """The error that tells most of why nothing was found."""
        named = troubles.get(self._port or "")
        if named is not None and (len(troubles) == 1 or isinstance(named, WrongDevice)):
            return named
        listed = "; ".join(str(error) for error in troubles.values()) or "there is no port to look at"
        wanted = self.known or self._identity
        return PortNotFound(self._port or self._holder, f"{wanted} was not found: {listed}")
