"""Keeps the instances of one program alive: starts them in order, notices who dies or hangs, starts them again.

Promises: a death is known as soon as the operating system knows it, and everybody else is told in the same moment that
the instance comes back, or that it does not, and why. Nothing is started again more often than its policy allows.

The trap: a process that was killed cannot clear anything. What it announced is replaced here, by the one who knows;
the broker's own notice of the death may come later and must not count for more (`ether.protocol.presence`).

Another one: announcements come in under the session's lock, and take the supervisor's. Whoever holds the supervisor's
must not speak to the session.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from ether.config import EtherInstanceConfig
from ether.connection.assembly import new_incarnation
from ether.connection.deadline import Deadline
from ether.errors import EtherError, TransportError
from ether.instance.control import KEEPER
from ether.launch.child import Child, start_instance
from ether.launch.child_settings import EXIT_REPLACED, InstanceSettings
from ether.launch.heartbeats import HeartbeatListener
from ether.launch.process_group import ProcessGroup
from ether.launch.restart_rules import RestartPolicy, Restarts
from ether.launch.start_order import Ended, Start, start_in_order
from ether.log import get_ether_logger
from ether.protocol.failure_detector import FailureDetector, Limits
from ether.protocol.presence import LIVES, TAKES_PART, Announcement, State
from ether.session.reaper import Reaper
from ether.session.session import Session


@dataclass(slots=True, eq=False)
class ChildRecord:
    """One instance, over all its lives."""

    name: str
    config: EtherInstanceConfig
    restarts: Restarts
    child: Child | None = None
    """None until it is its turn to be started."""
    incarnation: str = ""
    epoch: int = 0
    started: float = 0.0
    due: float | None = None
    killed: str = ""
    leaving: bool = False


logger = get_ether_logger("Ether")

_LAST_WORDS_TIMEOUT_S = 2.0
_LOOK_S = 0.2
"""How often silences are judged."""
_CONNECT_S = 30.0
_BUILT_AT_ONCE = 2 * (os.cpu_count() or 1) + 4
"""Interpreters that start side by side: enough to keep every core busy while some wait for a device or the broker. More
of them make nobody faster: 200 at once kept the broker from its ready line for 23 s on two cores."""
_STARTING_S = 2.0
"""For so long a start counts as work for the processor; who takes longer waits for a device, and holds nobody up."""
_LOOK_FOR_ROOM_S = 0.5
_ORPHANS_END_S = 1.5
"""Within a second of its launcher's death an instance is gone."""

MakeSettings = Callable[[str, EtherInstanceConfig, str, int, float], InstanceSettings]
"""Name, configuration, birth, epoch and seconds to connect, as the settings that a process is told."""


class Supervisor:
    """The instances of one program. Every method may be called from any thread."""

    def __init__(self, group: Callable[[], ProcessGroup]) -> None:
        """`group` gives the process group in which children live."""
        self._group = group
        self._kept: dict[str, ChildRecord] = {}
        self._ended: dict[str, str] = {}
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._program = ""
        self._make_settings: MakeSettings | None = None
        self._up: set[str] = set()
        self._detector = FailureDetector()
        self._signs: HeartbeatListener | None = None
        self._sweeper: Reaper | None = None
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()
        self._stopping = False

    # -- what there is

    @property
    def names(self) -> list[str]:
        """The instances that are kept, in the order in which they were given."""
        return list(self._kept)

    @property
    def held(self) -> list[str]:
        """Those whose names are ours: a name that was refused is another one's."""
        return [name for name, kept in self._kept.items() if kept.incarnation]

    @property
    def alive(self) -> list[str]:
        """Those whose process runs."""
        kept = list(self._kept.items())
        return [name for name, one in kept if one.child is not None and one.child.exit_code is None]

    @property
    def ended(self) -> Mapping[str, str]:
        """Those whose process has ended for good, and how."""
        return self._ended

    def child(self, name: str) -> Child:
        """An instance's process; raises `KeyError` where it has none yet."""
        child = self._kept[name].child
        if child is None:
            raise KeyError(name)
        return child

    def config(self, name: str) -> EtherInstanceConfig:
        """As it was given; raises `KeyError`."""
        return self._kept[name].config

    # -- starting

    def prepare(self, name: str, config: EtherInstanceConfig) -> None:
        """Start a process, which waits for its settings; where many are being built already, that comes later."""
        policy = RestartPolicy(config.restart, config.restart_limit, config.restart_window_s)
        kept = self._kept[name] = ChildRecord(name, config, Restarts(policy), started=time.monotonic())
        self._ended.pop(name, None)
        if self._has_room():
            self._start_process(kept)

    def connect(self, session: Session, make_settings: MakeSettings) -> None:
        """From now on there is a session to speak to. What killed programs have left there is cleared."""
        self._session, self._make_settings, self._program = session, make_settings, session.link.source
        session.watch(self._on_announcement)
        self._sweeper = Reaper(session, self._kept.keys, lambda: self._program)
        self._sweeper.start(_ORPHANS_END_S)

    def take_name(self, name: str, birth_and_epoch: tuple[str, int]) -> None:
        """The birth and epoch under which a prepared instance may announce itself; callers may wait for it already."""
        kept = self._kept[name]
        kept.incarnation, kept.epoch = birth_and_epoch
        self._say(kept, State.STARTING, "")

    def begin(
        self,
        names: Iterable[str],
        deadline: Deadline,
        others: Mapping[str, Start] = MappingProxyType({}),
        others_ended: Ended = dict,
    ) -> dict[str, str]:
        """Let the prepared instances be built, each when those it comes `after` are ready; returns when all are ready
        or settled: why each of the others is not. `others` are started in the same order, by somebody else, and
        `others_ended` says why they will not be ready."""
        names = list(names)
        if names:
            self._watch_over()
        starts = {name: Start(self._kept[name].config.after, partial(self._begin, name)) for name in names}
        ended = self._ended
        reasons = start_in_order(self._joined(), {**starts, **others}, deadline, lambda: {**others_ended(), **ended})
        with self._changed:
            self._up.update(name for name in names if name not in reasons)
        return reasons

    def start(self, name: str, connect_timeout_s: float) -> None:
        """Let a prepared instance be built, and do not wait for it."""
        self._watch_over()
        self._tell_settings(self._kept[name], connect_timeout_s)

    def was_ready(self, name: str) -> bool:
        """Whether it ever got so far."""
        return name in self._up

    def _begin(self, name: str, deadline: Deadline) -> None:
        """Where too many are being built, it waits until one of them is ready, or will not be."""
        kept = self._kept[name]
        while kept.child is None and not self._has_room() and not deadline.passed:
            self._joined().await_change(self._has_room, min(_LOOK_FOR_ROOM_S, deadline.left()))
        if kept.child is not None or not deadline.passed:
            self._tell_settings(kept, deadline.left())

    def _has_room(self) -> bool:
        settled = self._session.settled() if self._session is not None else frozenset()
        young = time.monotonic() - _STARTING_S
        starting = [name for name in self.alive if name not in settled and self._kept[name].started > young]
        return len(starting) < _BUILT_AT_ONCE

    def _start_process(self, kept: ChildRecord) -> Child:
        kept.child = start_instance(kept.name, self._group(), self._on_end)
        return kept.child

    def _tell_settings(self, kept: ChildRecord, connect_timeout_s: float) -> None:
        assert self._make_settings is not None
        session = self._joined()
        if not kept.incarnation:
            # never below its last one, which we may still announce: a broker that was killed has forgotten that
            kept.incarnation, kept.epoch = new_incarnation(), max(session.next_epoch(kept.name), kept.epoch + 1)
        kept.started = time.monotonic()
        settings = self._make_settings(kept.name, kept.config, kept.incarnation, kept.epoch, connect_timeout_s)
        (kept.child or self._start_process(kept)).send(settings.to_bytes())

    def _joined(self) -> Session:
        assert self._session is not None
        return self._session

    def keep_as(self, program: str) -> None:
        """From now on the program that keeps these instances has another name."""
        session = self._joined()
        self._program = program
        incarnations = [kept.incarnation for kept in list(self._kept.values())]
        session.link.publish(session.topics.control(KEEPER), {"births": incarnations, "keeper": program})

    # -- a death

    def _on_end(self, child: Child) -> None:
        """On a thread of the child's own."""
        how = child.how_it_ended()
        kept = self._kept.get(child.name)
        if kept is None or kept.child is not child:
            return
        self._detector.leave(child.name)
        if self._session is not None and not self._stopping and self._session.link.transport.connected:
            try:
                self._session.catch_up(_LAST_WORDS_TIMEOUT_S)  # it may have announced why
            except EtherError:
                pass  # then its exit code must do
        if kept.killed:
            how = f"{kept.killed}, and was killed"
        self._after_end(kept, how, failed=child.exit_code != 0 or bool(kept.killed))
        if self._session is not None:
            self._session.wake()

    def _after_end(self, kept: ChildRecord, how: str, *, failed: bool) -> None:
        now = time.monotonic()
        with self._changed:
            comes_back = self._comes_back(kept, failed=failed)
            pause_s = kept.restarts.pause_s(now, now - kept.started) if comes_back else None
        if not comes_back:
            self._is_over(kept, how)
        elif pause_s is None:
            self._give_up(kept, how)
        else:
            when = f"in {pause_s:g} s" if pause_s else "at once"
            logger.error("instance %s ended: %s\nStarting it again %s.", kept.name, how, when)
            self._say(kept, State.RESTARTING, how)
            with self._changed:  # only now: its next birth must not be spoken for
                kept.due, kept.killed = (None if self._stopping or kept.leaving else now + pause_s), ""
                self._changed.notify_all()

    def _comes_back(self, kept: ChildRecord, *, failed: bool) -> bool:
        replaced = self.child(kept.name).exit_code == EXIT_REPLACED
        wanted = bool(kept.killed) or (kept.restarts.policy.wants(failed=failed) and not replaced)
        leaves = self._stopping or kept.leaving or self._session is None
        return wanted and not leaves and kept.name in self._up

    def _is_over(self, kept: ChildRecord, how: str) -> None:
        self._ended[kept.name] = how
        if self._session is None:
            return
        wanted = self._stopping or kept.leaving or self.child(kept.name).exit_code == EXIT_REPLACED
        if kept.name in self._up and not wanted:
            logger.error("instance %s ended: %s", kept.name, how)
        elif kept.incarnation and not wanted and not self._has_told_why(kept):
            self._say(kept, State.ERROR, how)  # it never got so far that its broker could tell of its death
        self._session.lost(kept.name, kept.incarnation, how)

    def _has_told_why(self, kept: ChildRecord) -> bool:
        known = self._joined().announcement(kept.name)
        return known is not None and known.incarnation == kept.incarnation and known.state is State.ERROR

    def _give_up(self, kept: ChildRecord, how: str) -> None:
        policy = kept.restarts.policy
        known = self._joined().announcement(kept.name)
        last = known.error if known is not None and known.state is State.ERROR and known.error else how
        why = f"started again {policy.limit} times within {policy.window_s:g} s; the last time:\n{last}"
        logger.error("instance %s has failed: %s", kept.name, why)
        self._ended[kept.name] = why
        self._say(kept, State.FAILED, why)

    def _say(self, kept: ChildRecord, state: State, why: str) -> None:
        """Speak for an instance that cannot."""
        session = self._joined()
        known = session.announcement(kept.name)
        about: Mapping[str, Any] = known.about if known is not None and known.incarnation == kept.incarnation else {}
        about = {**about, "epoch": kept.epoch, "host": socket.gethostname(), "keeper": self._program}
        if state in (State.STARTING, State.RESTARTING):
            about["pid"] = os.getpid()  # until there is another process, this one holds the name
        try:
            session.say(Announcement(kept.name, state, kept.incarnation, why, about))
        except TransportError as error:
            logger.warning("could not tell that %s is %s: %s", kept.name, state.value, error)

    # -- watching over them

    def _watch_over(self) -> None:
        with self._beginning:
            if self._thread is None:
                self._begin_watch(self._joined())

    def _begin_watch(self, session: Session) -> None:
        self._signs = HeartbeatListener(session, self._detector, self._changed, self._kept)
        self._thread = threading.Thread(target=self._run, name="ether-supervisor", daemon=True)
        self._signs.start()
        self._thread.start()

    def _on_announcement(self, announcement: Announcement) -> None:
        """On the dispatch thread."""
        kept = self._kept.get(announcement.name)
        if (
            kept is None
            or announcement.incarnation != kept.incarnation
            or announcement.state not in (*TAKES_PART, State.ERROR)
        ):
            return
        self._joined().link.leave_to_others(self._joined().topics.state(kept.name))
        if announcement.state is State.ERROR:
            return
        hang = kept.config.hang
        with self._changed:
            now = time.monotonic()
            self._up.add(kept.name)
            self._detector.watch(kept.name, kept.incarnation, Limits(hang.silent_s, hang.busy_s), now)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                now = time.monotonic()
                due = [kept for kept in self._kept.values() if kept.due is not None and kept.due <= now]
                verdicts = self._detector.judge(now)
                if not due and not verdicts:
                    if self._signs is not None and self._detector.wants_echo(now):
                        self._signs.hurry()
                    self._changed.wait(self._patience_s(now))
                    continue
                for kept in due:
                    kept.due = None
            for kept in due:
                self._start_again(kept)
            for name, why in verdicts.items():
                self._react(self._kept[name], why)

    def _patience_s(self, now: float) -> float:
        dues = [kept.due - now for kept in self._kept.values() if kept.due is not None]
        return max(0.0, min([_LOOK_S, *dues]))

    def _start_again(self, kept: ChildRecord) -> None:
        try:
            kept.incarnation = ""
            self._start_process(kept)
            self._tell_settings(kept, _CONNECT_S)
        except (OSError, EtherError) as error:
            logger.exception("instance %s could not be started again", kept.name)
            self._give_up(kept, f"could not be started: {error}")

    def _react(self, kept: ChildRecord, why: str) -> None:
        session = self._joined()
        known = session.announcement(kept.name)
        if known is None or known.incarnation != kept.incarnation or known.state not in LIVES:
            return
        if not why:
            logger.warning("instance %s lives again", kept.name)
            session.say(known.alive_again)
            session.link.leave_to_others(session.topics.state(kept.name))
        elif kept.config.hang.reaction == "restart":
            logger.error("instance %s hangs: %s. It is killed.", kept.name, why)
            kept.killed = f"hung: {why}"
            self.child(kept.name).kill()
        else:
            logger.error("instance %s hangs: %s", kept.name, why)
            session.say(replace(known, state=State.HUNG, error=why))

    # -- stopping

    def leave(self, name: str) -> None:
        """An instance is about to be stopped: its end is no failure."""
        with self._changed:
            kept = self._kept[name]
            kept.leaving, kept.due = True, None
            self._detector.leave(name)

    def forget(self, name: str) -> None:
        """It is gone."""
        with self._changed:
            self._kept.pop(name, None)
            self._ended.pop(name, None)
            self._up.discard(name)

    def no_more_starts(self) -> None:
        """From now on every end is wanted. Twice is fine."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._sweeper is not None:
            self._sweeper.stop()
        if self._signs is not None:
            self._signs.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def end(self, names: Iterable[str], timeout_s: float) -> list[str]:
        """Wait for the ends of these; kill whoever lives when the time is over, and return their names. At half time
        whoever still lives is told by a signal: those who were told so before leave their handler then."""
        half, deadline = Deadline(timeout_s / 2), Deadline(timeout_s)
        started = [(name, child) for name in names if (child := self._kept[name].child) is not None]
        for _, child in started if timeout_s > 0 else ():
            if not child.ended_within(half.left()):
                child.terminate()
        return [name for name, child in started if not child.end(deadline.left(), tells_where=timeout_s > 0)]
