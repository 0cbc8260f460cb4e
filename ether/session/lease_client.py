"""The holder's side of `ether.lease`: exclusive use of an instance for a while.

A thread renews the lease every `RENEW_S` seconds, and learns from each answer whether the lease is still held: it ends
by itself when the instance is restarted, or receives no renewal for too long.

Promise: leaving the block of a lease that has ended by itself raises an error, because calls of other programs may have
come between those of the holder.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ether.calls.lease_rules import RENEW_S
from ether.connection.deadline import Deadline
from ether.errors import EtherError, LeaseEnded, NoResponder, NotAllowedHere
from ether.log import get_ether_logger
from ether.session.client import Client

logger = get_ether_logger("Ether")

_ASK_S = 2.0
_JOIN_S = 5.0


class InstanceLease:
    """A context manager. Made by `ether.lease()`."""

    def __init__(self, client: Client, name: str, reason: str, timeout_s: float, facts: Mapping[str, Any]) -> None:
        """`name` is the instance's; `reason` is shown to callers that are refused meanwhile; `timeout_s` bounds the
        wait for the lease; `facts` identify the holder's process."""
        self.name, self.reason = name, reason
        self._client, self._timeout_s, self._facts = client, timeout_s, dict(facts)
        self._token = os.urandom(8).hex()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended = ""

    @property
    def held(self) -> bool:
        """Whether the lease is held now, as far as this program knows."""
        return self._thread is not None and not self._over.is_set() and not self._ended

    def check(self) -> None:
        """Raise `LeaseEnded` if the lease has ended by itself."""
        if self._ended:
            raise LeaseEnded(self.name, self._ended)

    def __enter__(self) -> Self:
        session = self._client.session
        if self._client.rights is not None:
            self._client.rights.check_lease(self.name)
        session.open(self._timeout_s)
        if self._thread is not None:
            raise NotAllowedHere("ether.lease()", "this lease was taken before; each `with` needs its own")
        here = session.calls.local_instances.get(self.name)
        if here is not None and here.worker.on_this_thread:
            raise NotAllowedHere("ether.lease()", f"this is a handler of {self.name!r} itself")
        if session.announcement(self.name) is None and here is None:
            session.hear_the_latest(Deadline(self._timeout_s))
        if session.announcement(self.name) is None and here is None:
            names = [member.name for member in session.announcements() if member.kind == "instance"]
            raise NoResponder(f"a lease of {self.name}", f"there is no instance {self.name!r}", names)
        try:
            self._ask("take", self._timeout_s, reason=self.reason, facts=self._facts)
        except BaseException:  # the instance may have granted it although its answer did not come in time
            self._give_back()
            raise
        self._thread = threading.Thread(target=self._renew, name=f"ether-lease-{self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        self._give_back()
        if kind is None:
            self.check()
        elif self._ended:
            logger.error("%s", LeaseEnded(self.name, self._ended))

    def _give_back(self) -> None:
        try:
            self._ask("release", _ASK_S)
        except EtherError as error:
            logger.info("the lease of %s is not given back, and will end by itself: %s", self.name, error)

    def _ask(self, do: str, timeout_s: float, **more: Any) -> dict[str, Any]:
        request = {"do": do, "token": self._token, **more}
        answer = self._client.session.calls.lease(self.name, request, timeout_s)
        return answer if isinstance(answer, dict) else {}

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                held = self._ask("renew", _ASK_S).get("held") is True
            except EtherError as error:  # the broker or the instance is away: the next answer decides
                logger.debug("the lease of %s is not renewed: %s", self.name, error)
                continue
            if not held:
                self._ended = "it was started again, or did not hear of this program for too long"
                return
