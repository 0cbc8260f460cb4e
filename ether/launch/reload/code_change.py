"""Gives an instance that runs the code that stands in its files now: the launcher's side. What the two processes do is
said in `ether.launch.reload.succession`.

Promise: until the successor has been built and has taken the state, whatever goes wrong leaves the instance running;
nothing of the successor has been announced then. The traps: the instance may end by itself at any moment, and another
incarnation of it may have been started meanwhile; then its successor is one too many. And a successor that crashes in
its `ether_init` (not: raises) has a connection already, whose will speaks for the name; so has one that has to be
killed before it has heard that it is given up. Then the instance has to be started again (`Displaced`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from ether.connection.deadline import Deadline
from ether.errors import EtherError, NotReloaded, StartFailed
from ether.launch.child import Child
from ether.launch.child_notes import BUILT, HELD, RESTORED
from ether.launch.reload.succession import GIVE_UP, GO_ON, HOLD, LET_GO, RESTORE, reason_file, state_file
from ether.launch.supervisor import ChildRecord, Supervisor
from ether.protocol.presence import TAKES_PART, Announcement, State
from ether.session.session import Session
from ether.system.limits import limit_words

_GIVE_UP_S = 2.0
"""For a successor that is not wanted any more to leave its connection."""


_LAST_WORDS_S = 2.0
_ENDS_S = 2.0


class Displaced(Exception):
    """The instance has to be started again: it has ended by itself, or a successor has crashed so late that its death
    counts as that of the instance."""


class CodeChange:
    """One change of one instance."""

    def __init__(self, session: Session, supervisor: Supervisor, name: str, positions: str, deadline: Deadline) -> None:
        self._session, self._supervisor, self._name, self._deadline = session, supervisor, name, deadline
        self._state, self._reason = state_file(positions), reason_file(positions)

    def make(self, end: Callable[[], Mapping[str, str]]) -> None:
        """Make it; `end` ends the instance in order, as one that is started again. Raises `NotReloaded`, and
        `StartFailed` where the successor fails after its predecessor has ended."""
        self._reason.unlink(missing_ok=True)
        present = self._supervisor.child(self._name)
        try:
            record = self._supervisor.start_successor(self._name, self._deadline.left())
        except OSError as error:
            raise NotReloaded(self._name, f"no process could be started: {error}{limit_words(error)}") from error
        successor = record.child
        assert successor is not None
        try:
            self._await(successor, BUILT, "is not built within the time: timeout_s=… gives it more")
            self._hand_over(present, successor)
        except BaseException as error:
            self._give_up(successor)
            if isinstance(error, NotReloaded) and self._is_displaced(record):
                raise Displaced(f"the new code of {self._name} has crashed: {error}") from error
            raise
        self._switch(record, present, successor, end)

    def _give_up(self, successor: Child) -> None:
        successor.send(GIVE_UP)
        successor.end(_GIVE_UP_S)

    def _is_displaced(self, record: ChildRecord) -> bool:
        """Whether everybody believes the successor to have held the name: it crashed when it was connected, and the
        broker has told of its death.

        The trap: a broker that was busy finds our question and the broken connection at the same moment, and may answer
        before it tells of the death. It has told of it when it answers a second question."""
        with contextlib.suppress(EtherError):
            for _ in range(2):
                self._session.catch_up(_LAST_WORDS_S, among=self._name)
        known = self._session.announcement(self._name)
        return known is not None and known.incarnation == record.incarnation

    def _await(self, child: Child, note: str, late: str) -> None:
        """Wait for a word of the successor."""
        if not child.await_note(note, self._deadline.left()):
            raise NotReloaded(self._name, self._why_not(child, late))

    def _why_not(self, child: Child, late: str) -> str:
        with contextlib.suppress(OSError):
            return self._reason.read_text(encoding="utf-8")
        return late if child.exit_code is None else child.how_it_ended()

    def _hand_over(self, present: Child, successor: Child) -> None:
        """Let the instance stand still, and its successor take its state. Raises `NotReloaded`; it serves on then."""
        known = self._session.announcement(self._name)
        if known is None or known.state not in TAKES_PART or present.exit_code is not None:
            if present.ended_within(_ENDS_S):  # what has left the session may be about to end
                raise Displaced(f"{self._name} has ended by itself meanwhile")
            raise NotReloaded(self._name, "it is not ready itself at the moment")
        self._session.say(_restarting(known))
        try:
            present.forget_note(HELD)
            present.send(HOLD)
            if not present.await_note(HELD, self._deadline.left()):
                raise NotReloaded(self._name, "it does not come to the end of what it is doing within the time")
            successor.send(RESTORE)
            self._await(successor, RESTORED, "its ether_restore has not returned within the time")
            if self._supervisor.child(self._name) is not present:
                raise NotReloaded(self._name, "it was started again meanwhile")
        except BaseException:
            present.send(GO_ON)
            self._state.unlink(missing_ok=True)
            self._supervisor.serves_on(self._name)
            raise

    def _switch(
        self, record: ChildRecord, present: Child, successor: Child, end: Callable[[], Mapping[str, str]]
    ) -> None:
        self._supervisor.expect_end(self._name)
        present.send(LET_GO)
        try:
            end()
        except BaseException:  # Ctrl-C: nobody would tell the successor anything any more
            self._give_up(successor)
            raise
        if reasons := self._supervisor.succeed(record, self._deadline):
            raise StartFailed(self._session.topics.session, reasons, instance=True)


def _restarting(known: Announcement) -> Announcement:
    return replace(known, state=State.RESTARTING, error="")
