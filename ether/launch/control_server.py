"""Takes the requests of other programs of the session (`ether restart` and its like): to start, stop and restart
instances of this program, or to end.

Promise: one request at a time, on a thread of its own, each answered with its result, and carried out once, unless who
asked has given up before its turn. The trap: whoever can publish in
the session can ask. So only what the program's own configuration describes can be started; a class path comes over the
network only to an agent, which has its owner's list of what is allowed (`run`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ether.connection.link import Inbound, Link, reply_headers
from ether.connection.request_ages import RequestAges
from ether.errors import EtherError, PayloadError
from ether.launch.end_limits import EndLimits
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.protocol.dedup_window import DedupWindow
from ether.security.rights import KEEP_OF_AGENTS, is_of_agent
from ether.session.session import KEEP
from ether.system.clock import wall_time
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

START_TIMEOUT_S = 30.0


class ProgramControl(Protocol):
    """What carries the requests out: a program's launcher, or an agent's part in a session. A refused request raises
    `KeyError` or `EtherError`, whose text is the answer."""

    def start_described(self, name: str, timeout_s: float) -> None:
        """Start an instance that the program's own configuration describes."""

    def remove(self, name: str) -> dict[str, str]:
        """Stop one instance in order; returns what went wrong, by instance."""

    def remove_all(
        self, names: Sequence[str], steps: Sequence[str] | None, limits: EndLimits | None = None
    ) -> dict[str, str]:
        """The same for several, by the steps that are still to be taken (None: all), within `limits` (None: those of
        this program's own configuration). Unknown names are left out."""

    def restart(self, name: str, timeout_s: float) -> None:
        """Stop one instance in order, and start it again."""

    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str:
        """Run an instance that the request itself describes; returns `runs`, `started` or `replaced`."""

    def record(self) -> None:
        """Start a recorder where there is none."""


class ControlServer:
    """Takes the requests to one program, from its making until `close()`."""

    def __init__(self, link: Link, topics: SessionTopics, program: str, control: ProgramControl) -> None:
        self._link = link
        self._topics = topics
        self.program = program
        """The name by which requests address this program."""
        self._control = control
        self._requests: queue.SimpleQueue[tuple[Inbound, float | None] | None] = queue.SimpleQueue()
        """The requests, each with its deadline on the monotonic clock."""
        self._window, self._ages = DedupWindow(), RequestAges()
        self._thread: threading.Thread | None = None
        self.on_shutdown: Callable[[], object] | None = None
        self._receive = self._take
        for topic in (topics.control(KEEP), topics.control_by(KEEP, "+")):
            link.listen(topic, self._receive)

    def hear_alone(self) -> None:
        """Take also what nobody else may hear."""
        self._link.listen(self._topics.control_to(KEEP, "+", self.program), self._receive)

    def close(self) -> None:
        """Take no more; returns when the request under way is done. Twice is fine."""
        if self._thread is not None:
            self._requests.put(None)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None

    def _take(self, inbound: Inbound) -> None:
        """On the dispatch thread, which must not wait: the thread of requests begins with the first one."""
        headers = inbound.headers()
        left_s = None if headers is None else self._ages.left_s(headers)
        self._requests.put((inbound, None if left_s is None else time.monotonic() + left_s))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ether-control", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """The thread of requests. It waits for the next one; `close()` ends the wait by a None."""
        while (request := self._requests.get()) is not None:
            inbound, deadline = request
            try:
                self._answer(inbound, deadline)
            except Exception:  # a worker loop: one bad request must not end it
                logger.exception("a request to %s could not be answered", self.program)
            finally:
                inbound.done()

    def _answer(self, inbound: Inbound, deadline: float | None) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError as error:
            logger.warning("a request to %s cannot be read: %s", self.program, error)
            return
        value, headers = unpacked.value, unpacked.headers
        if not isinstance(value, dict) or self.program not in value.get("instances", ()):
            return
        if headers is not None and self._window.before(headers.id):
            return
        _, sender = self._topics.commanded(inbound.delivery.topic)
        if is_of_agent(sender) and value.get("do") not in KEEP_OF_AGENTS:
            logger.warning("%s may not ask %s to %s: it is an agent", sender, self.program, value.get("do"))
            return
        by = headers.source if headers is not None else "somebody"
        if deadline is not None and time.monotonic() >= deadline:
            logger.warning(
                "%s does not %s for %s any more: its request came too late", self.program, value.get("do"), by
            )
            return
        answer = self._do(value, by)
        if (reply := reply_headers(inbound, self.program)) is not None:
            to, extra = reply
            self._link.publish(to, answer.to_value(self.program), extra=extra)
        if value.get("do") == "shutdown" and self.on_shutdown is not None and not answer.failed:
            self.on_shutdown()  # only after the answer: the shutdown closes the link

    def _do(self, asked: Mapping[str, Any], by: str) -> Answer:
        verb = str(asked.get("do"))
        try:
            return Answer((verb,), results=self._carry_out(verb, asked, by))
        except (EtherError, KeyError) as error:
            return Answer(failed={verb: str(error.args[0]) if error.args else str(error)})
        except Exception as error:
            logger.exception("%s could not %s, as %s asked", self.program, verb, by)
            return Answer(failed={verb: f"{type(error).__name__}: {error}"})

    def _carry_out(self, verb: str, asked: Mapping[str, Any], by: str) -> Mapping[str, Any]:
        """Carry out one request; returns the results for its answer. On the thread of requests, without a lock: each
        verb returns when it is done, which may take as long as an instance takes to start or to end, and every further
        request waits in the queue meanwhile. Raises for a refusal; `_do` answers with the text."""
        name = str(asked.get("name", ""))
        match verb:
            case "clock":
                return {"time": wall_time()}
            case "shutdown" if self.on_shutdown is not None:
                return {}  # `_answer` begins the shutdown, after it has answered
            case "shutdown":
                raise KeyError(f"{self.program} ends by itself; it cannot be asked to")
            case "restart":
                self._control.restart(name, START_TIMEOUT_S)
            case "remove":
                # A command names one instance, and an unknown one is an error. A program that ends its instances on
                # this machine names several, and the steps of their end that it has not taken itself.
                names, steps = _texts(asked.get("names")), _texts(asked.get("steps"))
                limits = EndLimits.from_value(asked.get("end"))
                if names is None:
                    return {"problems": self._control.remove(name)}
                return {"problems": self._control.remove_all(names, steps, limits)}
            case "run":
                return {"run": self._control.run(name, asked, by)}
            case "record":
                self._control.record()
            case "start":
                self._control.start_described(name, START_TIMEOUT_S)
            case _:
                known = "start, remove, restart, run, record, clock, shutdown"
                raise KeyError(f"{self.program} knows no request {verb!r}; it knows {known}")
        return {}


def _texts(value: object) -> list[str] | None:
    return [str(item) for item in value] if isinstance(value, list) else None
