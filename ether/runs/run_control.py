"""Requests to a run from other programs: pause, resume, and the question of how it stands. Both sides of them.

The trap: the dispatch thread of the run's program receives the requests, so nothing on that side may wait for the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ether.connection.link import Inbound, Link, reply_headers
from ether.connection.request_ages import RequestAges
from ether.errors import EtherError, PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.protocol.dedup_window import DedupWindow
from ether.session.client import Client
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

RUN = "run"
"""The control verb: `{"instances": [program], "do": "pause" | "resume" | "status" | "stop", "why": …}`."""


# -- the program that leads the run


class RunControl:
    """Answers requests, from its construction until `close()`."""

    def __init__(
        self, link: Link, topics: SessionTopics, program: str, carry_out: Callable[[str, str], Mapping[str, Any]]
    ) -> None:
        """`carry_out` gets the request's verb and reason, carries it out and returns the answer; it raises `KeyError`
        for an unknown verb."""
        self._link, self._program = link, program
        self._filters = topics.control(RUN), topics.control_by(RUN, "+")
        self._carry_out = carry_out
        self._window, self._ages = DedupWindow(), RequestAges()
        for topic in self._filters:
            link.listen(topic, self._receive)

    def close(self) -> None:
        """Answer no more requests."""
        try:
            for topic in self._filters:
                self._link.unlisten(topic, self._receive)
        except EtherError as error:
            logger.debug("the run's control topic could not be left: %s", error)

    def _receive(self, inbound: Inbound) -> None:
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
        if headers is not None:
            left_s = self._ages.left_s(headers)
            if self._window.before(headers.id) or (left_s is not None and left_s <= 0):
                logger.warning("the request to %s the run is ignored: it came before, or too late", verb)
                return
        try:
            answer = Answer((verb,), results=self._carry_out(verb, str(value.get("why") or "")))
        except KeyError as error:
            answer = Answer(failed={verb: str(error.args[0])})
        if (reply := reply_headers(inbound, self._program)) is not None:
            to, extra = reply
            self._link.publish(to, answer.to_value(self._program), extra=extra)


# -- a program that asks


def ask_run(client: Client, program: str, verb: str, why: str, timeout_s: float) -> Mapping[str, Any] | None:
    """Send a request to the run that `program` leads. Returns its answer, None where that program leads no run or does
    not answer within `timeout_s` seconds. Raises `KeyError` for an unknown verb."""
    client.session.open(timeout_s)
    barrier = client.session.ask(RUN, [program], timeout_s, {"do": verb, "why": why})
    answer = barrier.answers.get(program)
    if answer is not None and answer.failed:
        raise KeyError("; ".join(answer.failed.values()))
    return None if answer is None else answer.results


def status_of_run(client: Client, program: str, timeout_s: float) -> str | None:
    """The id of the run that `program` leads; None where it leads none."""
    answer = ask_run(client, program, "status", "", timeout_s)
    return None if answer is None else str(answer.get("run"))
