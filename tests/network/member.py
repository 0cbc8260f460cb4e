"""A user's program for tests of networks: `member.py NAME OTHER [SETTINGS]`, run on a machine of its own.

It joins or starts a session (SETTINGS are the arguments of `ether.tap`, as JSON), hosts an object under NAME, calls the
one under OTHER over and over, publishes numbers, and receives the other's. Each thing that happens is a line on stdout
with its time (`time.monotonic()`, which all machines share): `TIME WHAT VALUE`. SIGUSR1 ends the publishing, and Ctrl-C
everything.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time

from ether import Ether, ether_get
from ether.errors import CallError, TransportError

PUBLISH_EVERY_S = 0.02
CALL_EVERY_S = 0.02
CALL_TIMEOUT_S = 1.0  # bare: a user's program, without the parts of the tests


class Member:
    """What is called."""

    def __init__(self, name: str) -> None:
        self.name = name

    @ether_get
    def whoami(self) -> str:
        return self.name


def tell(what: str, value: object) -> None:
    """One line, from any thread."""
    sys.stdout.write(f"{time.monotonic():.4f} {what} {value}\n")
    sys.stdout.flush()


def call(ether: Ether, other: str, ending: threading.Event) -> None:
    while not ending.wait(CALL_EVERY_S):
        try:
            tell("called", ether.get(other, "whoami", timeout_s=CALL_TIMEOUT_S))
        except (CallError, TransportError) as error:
            tell("call-failed", f"{type(error).__name__}: {error}")


def publish(ether: Ether, topic: str, enough: threading.Event) -> None:
    number = 0
    while not enough.wait(PUBLISH_EVERY_S):
        number += 1
        tell("sent", number)
        ether.pub({"n": number}, topic=topic)
    tell("published", number)


def receive(ether: Ether, topic: str, ending: threading.Event) -> None:
    with ether.subscribe(topic) as numbers:
        tell("subscribed", topic)
        while not ending.is_set():
            try:
                message = numbers.get(timeout_s=0.2)
            except TimeoutError:
                continue
            tell("got", message.value["n"])  # type: ignore[index]


def comes(asked: queue.SimpleQueue[int], within_s: float) -> bool:
    try:
        asked.get(timeout=within_s)
    except queue.Empty:
        return False
    return True


def main(name: str, other: str, settings: str = "{}") -> None:
    enough, ending = threading.Event(), threading.Event()
    # This thread waits for no Event: a handler that interrupts it there, and sets it, can wait for this thread's lock.
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    signal.signal(signal.SIGUSR1, lambda *_: enough.set())
    signal.signal(signal.SIGINT, lambda number, _: asked.put(number))
    ether = Ether()
    with ether.tap(**json.loads(settings)):
        ether.host(Member(name), name)
        ether.on_change(lambda it: tell("changed", f"{it['name']} {it['state']}"))
        tell("hosting", f"{name} in {ether.session_id}")
        work = (
            threading.Thread(target=call, args=(ether, other, ending)),
            threading.Thread(target=publish, args=(ether, f"numbers/{name}", enough)),
            threading.Thread(target=receive, args=(ether, f"numbers/{other}", ending)),
        )
        for thread in work:
            thread.start()
        while not comes(asked, 0.1):
            tell("offline", ether.session_info()["offline_since"] is not None)
            tell("last-known", any(it["last_known"] for it in ether.instances()))
            tell("present", " ".join(f"{it['name']}={it['state']}" for it in ether.instances()))
        ending.set()
        enough.set()
        for thread in work:
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
