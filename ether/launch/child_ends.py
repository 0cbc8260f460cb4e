"""Waits for processes of instances to end, side by side, and ends those that do not.

Promise: no instance waits for another one here. One whose thread or `atexit` function does not come back is killed in
its time, while another one saves for a minute, and nothing kills that one meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread

from ether.launch.child import Child
from ether.launch.child_notes import LAST_STEPS
from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

_LOOK_EVERY_S = 0.05
"""A process that ends wakes one wait; the others are looked at so often."""
_TELLS_WHERE_S = 0.3
"""How long a process that is to be killed may take to write where its threads are."""
_SHOWN_AFTER_S = 2.0
_SHOWN_EVERY_S = 5.0


def await_ends(children: Mapping[str, Child], timeout_s: float, step_s: float) -> list[str]:
    """Return when all of these have ended: the names of those that had to be killed. Each has `timeout_s`, and gets
    SIGTERM at half time; each of its last steps has `step_s` of its own."""
    began = time.monotonic()
    terminated: set[str] = set()
    killed: dict[str, float] = {}
    """When each is killed that was asked to show where it is."""
    with steps_shown(children, step_s):
        while waiting := [(name, child) for name, child in children.items() if child.exit_code is None]:
            now = time.monotonic()
            for name, child in waiting:
                left_s = child.left_s(began, timeout_s, step_s)
                if name in killed:
                    if now >= killed[name]:
                        child.kill()
                elif left_s <= 0:
                    killed[name] = now + _TELLS_WHERE_S
                    child.show_where()
                elif left_s <= timeout_s / 2 and not child.step[0] and name not in terminated:
                    terminated.add(name)
                    child.terminate()
            waiting[0][1].ended_within(_LOOK_EVERY_S)
    return list(killed)


@contextmanager
def steps_shown(children: Mapping[str, Child], step_s: float) -> Iterator[None]:
    """Within the block the log says which last steps take long, and how long they may."""

    def lines() -> Iterator[str]:
        for name, child in children.items():
            step, since = child.step
            taken_s = time.monotonic() - since
            if step and child.exit_code is None and taken_s >= _SHOWN_AFTER_S / 2:
                yield f"{name}: {LAST_STEPS[step]} goes on ({taken_s:.0f} s of {step_s:g} s)"

    with shown(lines):
        yield


@contextmanager
def shown(lines: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Within the block, once it has taken a while, the log gets these lines every few seconds."""
    over = Event()

    def show() -> None:
        pause_s = _SHOWN_AFTER_S
        while not over.wait(pause_s):
            pause_s = _SHOWN_EVERY_S
            for line in lines():
                logger.info("%s", line)

    thread = Thread(target=show, name="ether-ends", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
