"""New code for an instance that runs: its successor is ready before it lets go. The side of the two processes.

The launcher says, through standard input, when it is whose turn (`ether.launch.reload.code_change` is its side):

1. The successor imports, builds and initialises its object, and says `built`. The instance serves meanwhile.
2. The instance stands still between two of its jobs, writes down what its `ether_state` returns, and says `held`.
3. The successor's `ether_restore` gets that. It says `restored`.
4. The instance ends in order, and leaves the messages that wait to the successor, which subscribes and is ready.

Promise: whatever the user's new code raises in the first three steps, the instance goes on as if it had been busy for
a moment; why stands in a file, for the launcher, because an announcement would speak for the instance that serves.

The trap: methods with threads of their own do not stand still with the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ether.connection.failure_text import text_of
from ether.launch.child_notes import BUILT, HELD, RESTORED, Notes
from ether.log import get_ether_logger
from ether.wire.codec import decode, encode

if TYPE_CHECKING:
    from ether.instance.hosted import HostedInstance

HOLD, GO_ON, LET_GO = b"h", b"g", b"l"
"""To the instance: stand still; go on; leave everything to the successor, and wait for the end."""
RESTORE, TAKE_OVER, GIVE_UP = b"s", b"t", b"q"
"""To the successor: the state is there; the name is free; end."""

_ALONE_S = 2.0
"""For other threads of the worker to finish what they are doing."""

STATE_METHOD, RESTORE_METHOD = "ether_state", "ether_restore"

logger = get_ether_logger("Ether")


def state_file(positions: str) -> Path:
    """Where the state of an instance lies between two processes; `positions` is the file of its positions."""
    return Path(f"{positions}.state")


def reason_file(positions: str) -> Path:
    """Where a successor writes why it cannot take over."""
    return Path(f"{positions}.why")


class GivenUp(Exception):
    """The launcher has given up this successor."""


class StandStill:
    """One stand-still of an instance: a job of its worker. `go_on` and `let_go` may come at any time."""

    def __init__(self, instance: HostedInstance, path: Path, notes: Notes) -> None:
        self._instance, self._path, self._notes = instance, path, notes
        self._over = threading.Event()
        self._leaves = False
        self._written = b""

    def run(self) -> None:
        """On the worker."""
        if self._over.is_set():
            return
        self._instance.worker.wait_alone(_ALONE_S)
        self._written = write_state(self._instance.object, self._path)
        self._notes.tell(HELD)
        self._over.wait()
        if self._leaves:
            self._instance.on_begin_end = self._write_again
            self._instance.pass_on()

    def _write_again(self) -> None:
        """The end's last steps begin. Calls that were on their way when it stood still have been answered since: where
        they have changed the state, the successor gets it as it is now."""
        write_state(self._instance.object, self._path, unless=self._written)

    def failed(self, error: BaseException) -> None:
        """A signal has ended the wait."""
        logger.debug("%s stands still no longer: %s", self._instance.name, text_of(error))

    def go_on(self) -> None:
        """Serve again."""
        self._over.set()

    def let_go(self) -> None:
        """Begin no message any more that the successor can get."""
        self._leaves = True
        self._over.set()


def write_state(obj: object, path: Path, unless: bytes | None = None) -> bytes:
    """Write down what `ether_state` returns, and return it as written; nothing where the class has none, or where it is
    as in `unless`. A failure is written down, too; where the disk takes nothing, the log has to say it."""
    path.unlink(missing_ok=True)
    method = getattr(obj, STATE_METHOD, None)
    if not callable(method):
        return b""
    try:
        said = encode({"state": method()}).payload
    except BaseException as error:  # noqa: BLE001  part of the worker loop: this is user code
        said = encode({"why": f"{type(error).__name__}: {text_of(error)}"}).payload
    if said != unless:
        try:
            path.write_bytes(said)
        except OSError as error:  # the launcher waits for this stand-still: it must not end here
            path.unlink(missing_ok=True)
            logger.error("the new code begins without the state of before, which could not be written: %s", error)
    return said


def restore_state(name: str, obj: object, path: Path) -> None:
    """Give the object the state that was written down, if any. Raises whatever `ether_restore` raises."""
    with suppress(FileNotFoundError):
        said = decode(path.read_bytes(), None)
        path.unlink(missing_ok=True)
        method = getattr(obj, RESTORE_METHOD, None)
        if not isinstance(said, dict):
            return
        if "why" in said:
            logger.error("%s begins without the state of before: %s raised %s", name, STATE_METHOD, said["why"])
        elif callable(method):
            method(said["state"])
        else:
            logger.warning("%s begins without the state of before: its class has no %s", name, RESTORE_METHOD)


class Successor:
    """The process of a successor, until it has taken over. Its main thread waits for the launcher's words."""

    def __init__(self, name: str, positions: str, notes: Notes) -> None:
        self.has_taken_over = False
        self._name, self._notes = name, notes
        self._state, self._reason = state_file(positions), reason_file(positions)
        self._words: dict[bytes, threading.Event] = {word: threading.Event() for word in (RESTORE, TAKE_OVER)}
        self._given_up = False
        self.leave: Callable[[], None] = lambda: None
        """Ends the connection, so that the broker says nothing of this process's end."""

    def hear(self, word: bytes) -> None:
        """A word of the launcher's. On the lifeline's thread."""
        if word == GIVE_UP:
            self._given_up = True
            self.leave()  # here, because the main thread may hang in the user's code
            for event in self._words.values():
                event.set()
        elif word in self._words:
            self._words[word].set()

    def await_turn(self, obj: object, initialise: Callable[[], None]) -> None:
        """Return when the name is this process's. Raises `GivenUp`, and whatever the user's code raises."""
        self._check()
        initialise()
        self._notes.tell(BUILT)
        self._await(RESTORE)
        restore_state(self._name, obj, self._state)
        self._notes.tell(RESTORED)
        self._await(TAKE_OVER)
        self.has_taken_over = True
        try:
            restore_state(self._name, obj, self._state)  # calls that came at the last moment have changed it
        except Exception as error:  # noqa: BLE001  user code, which took the state of a moment before
            logger.error("%s misses what the last calls before its new code have changed: %s", self._name, error)

    def _await(self, word: bytes) -> None:
        self._words[word].wait()
        self._check()

    def _check(self) -> None:
        if self._given_up:
            raise GivenUp

    def say_why_not(self, reason: str) -> None:
        """It cannot take over."""
        self._reason.write_text(reason, encoding="utf-8")
