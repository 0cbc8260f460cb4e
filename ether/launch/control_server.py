"""Where a program that keeps instances is asked to start, stop and restart them, or to end: by `ether restart` and its
like, from any program of the session.

Promise: one request at a time, on a thread of its own, each answered with what came of it. The trap: whoever can
publish in the session can ask. So only what the program's own configuration describes can be started; a class path
comes over the network only to an agent, which has its owner's list of what is allowed (`run`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ether.config import EtherInstanceConfig
from ether.connection.link import ExtraHeaders, Inbound, Link
from ether.errors import EtherError, PayloadError
from ether.log import get_ether_logger
from ether.protocol.barrier import Answer
from ether.session.session import KEEP
from ether.wire.topics import SessionTopics

logger = get_ether_logger("Ether")

START_TIMEOUT_S = 30.0


class Keeper(Protocol):
    """Who keeps instances."""

    def add(self, name: str, instance: EtherInstanceConfig, timeout_s: float) -> None: ...
    def remove(self, name: str) -> dict[str, str]: ...
    def remove_all(self, names: Sequence[str], steps: Sequence[str] | None) -> dict[str, str]: ...
    def restart(self, name: str, timeout_s: float) -> None: ...
    def described(self, name: str) -> EtherInstanceConfig | None: ...
    def run(self, name: str, asked: Mapping[str, Any], by: str) -> str: ...
    def record(self) -> None: ...


class ControlServer:
    """Takes requests for one program."""

    def __init__(self, link: Link, topics: SessionTopics, program: str, keeper: Keeper) -> None:
        self._link = link
        self._topics = topics
        self.program = program
        """The name under which it is asked."""
        self._keeper = keeper
        self._requests: queue.SimpleQueue[Inbound | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.on_shutdown: Callable[[], object] | None = None
        self._receive = self._take
        link.listen(topics.control(KEEP), self._receive)

    def close(self) -> None:
        """Take no more. Twice is fine."""
        if self._thread is not None:
            self._requests.put(None)
            if self._thread is not threading.current_thread():
                self._thread.join()
            self._thread = None

    def _take(self, inbound: Inbound) -> None:
        """On the dispatch thread."""
        self._requests.put(inbound)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ether-desk", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (inbound := self._requests.get()) is not None:
            try:
                self._answer(inbound)
            except Exception:  # the desk's worker loop: one bad request must not close it
                logger.exception("a request to %s could not be answered", self.program)
            finally:
                inbound.done()

    def _answer(self, inbound: Inbound) -> None:
        try:
            unpacked = inbound.unpack()
        except PayloadError as error:
            logger.warning("a request to %s cannot be read: %s", self.program, error)
            return
        value, headers = unpacked.value, unpacked.headers
        if not isinstance(value, dict) or self.program not in value.get("instances", ()):
            return
        answer = self._do(value, headers.source if headers is not None else "somebody")
        if headers is not None and headers.reply_to:
            extra = ExtraHeaders(correlation=headers.correlation)
            self._link.publish(headers.reply_to, answer.to_value(self.program), extra=extra)
        if value.get("do") == "shutdown" and self.on_shutdown is not None and not answer.failed:
            self.on_shutdown()

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
        name = str(asked.get("name", ""))
        match verb:
            case "clock":
                return {"time": time.time()}
            case "shutdown" if self.on_shutdown is not None:
                return {}
            case "shutdown":
                raise KeyError(f"{self.program} ends by itself; it cannot be asked to")
            case "restart":
                self._keeper.restart(name, START_TIMEOUT_S)
            case "remove":
                names, steps = _texts(asked.get("names")), _texts(asked.get("steps"))
                removed = self._keeper.remove(name) if names is None else self._keeper.remove_all(names, steps)
                return {"problems": removed}
            case "run":
                return {"run": self._keeper.run(name, asked, by)}
            case "record":
                self._keeper.record()
            case "start":
                instance = self._keeper.described(name)
                if instance is None:
                    raise KeyError(f"the configuration of {self.program} describes no instance {name!r}")
                self._keeper.add(name, instance, START_TIMEOUT_S)
            case _:
                known = "start, remove, restart, run, record, clock, shutdown"
                raise KeyError(f"{self.program} knows no request {verb!r}; it knows {known}")
        return {}


def _texts(value: object) -> list[str] | None:
    return [str(item) for item in value] if isinstance(value, list) else None
