"""A run's ear for other programs: they may pause it, let it go on, and ask how it stands.

The trap: it is the dispatch thread that hears them, so nothing here may wait for the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import EtherError, PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

RUN = "run"
"""The control verb: `{"instances": [program], "do": "pause" | "resume" | "status", "why": …}`."""


class RunControl:
    """Listens from its making until `close()`."""

    def __init__(
        self, link: Link, topics: SessionTopics, program: str, carry_out: Callable[[str, str], Mapping[str, Any]]
    ) -> None:
        """`carry_out` does what is asked, given the verb and why, and returns the answer; raises `KeyError`."""
        self._link, self._topic, self._program = link, topics.control(RUN), program
        self._carry_out = carry_out
        self._receive = self._hear
        link.listen(self._topic, self._receive)

    def close(self) -> None:
        """Hear no more."""
        try:
            self._link.unlisten(self._topic, self._receive)
        except EtherError as error:
            logger.debug("the run's control topic could not be left: %s", error)

    def _hear(self, inbound: Inbound) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError as error:
            logger.warning("a request to the run cannot be read: %s", error)
            return
        finally:
            inbound.done()
        value, headers = unpacked.value, unpacked.headers
        if not isinstance(value, dict) or self._program not in value.get("instances", ()):
            return
        verb = str(value.get("do"))
        try:
            answer = Answer((verb,), results=self._carry_out(verb, str(value.get("why") or "")))
        except KeyError as error:
            answer = Answer(failed={verb: str(error.args[0])})
        if headers is not None and headers.reply_to:
            extra = ExtraHeaders(correlation=headers.correlation)
            self._link.publish(headers.reply_to, answer.to_value(self._program), extra=extra)
