"""Supervises the instances of one program: starts them in order, notices when one dies or hangs, starts it again.

Promises: a death is known as soon as the operating system knows it. In the same moment every member of the session is
told that the instance comes back, or that it does not, and why. No instance is started again more often than its
restart policy allows.

The first trap: a killed process cannot clear its own announcement. The supervisor, which knows more, replaces it. The
broker's notice of the death (the will) may arrive later and must not count for more (`ether.protocol.presence`).

The second trap is the order of the locks: the session's lock first, the supervisor's (`_changed`) second. Announcements
arrive on the dispatch thread with the session's lock held, and take the supervisor's. So code that holds `_changed`
must not call the session.
"""

from __future__ import annotations

import os
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
from ether.launch.child_ends import await_ends
from ether.launch.child_settings import BEGIN, EXIT_REPLACED, InstanceSettings
from ether.launch.heartbeats import HeartbeatListener
from ether.launch.process_group import ProcessGroup
from ether.launch.reload.succession import TAKE_OVER
from ether.launch.restart_rules import RestartPolicy, Restarts
from ether.launch.start_order import Ended, Start, start_in_order
from ether.launch.template.client import Template
from ether.log import get_ether_logger
from ether.protocol.clock_steps import ClockSteps, set_words
from ether.protocol.failure_detector import FailureDetector, Heartbeat, Limits
from ether.protocol.presence import LIVES, TAKES_PART, Announcement, State
from ether.session.reaper import Reaper
from ether.session.session import Session
from ether.system.clock import wall_and_uptime
from ether.system.limits import limit_words
from ether.system.process_owner import process_facts
from ether.system.processes import this_place

logger = get_ether_logger("Ether")

_LAST_WORDS_TIMEOUT_S = 2.0
_JUDGE_EVERY_S = 0.2
"""How often the failure detector is asked for its verdicts."""
_CONNECT_S = 30.0
_BUILT_AT_ONCE = 2 * (os.cpu_count() or 1) + 4
"""Interpreters that start side by side: enough to keep every core busy while some wait for a device or the broker.
More of them speed nothing up: 200 at once kept the broker from its ready line for 23 s on two cores."""
_STARTING_S = 2.0
"""For so long a start counts as work for the processor. An instance that takes longer waits for a device, and no longer
holds up the others."""
_LOOK_FOR_ROOM_S = 0.5
_ORPHANS_END_S = 1.5
"""An instance is gone within a second of its launcher's death; the rest is reserve."""

MakeSettings = Callable[[str, EtherInstanceConfig, str, int, float], InstanceSettings]
"""From name, configuration, incarnation, epoch and seconds to connect to the settings that the process receives."""


@dataclass(slots=True, eq=False)
class ChildRecord:
    """One supervised instance, over all its incarnations."""

    name: str
    config: EtherInstanceConfig
    restarts: Restarts
    child: Child | None = None
    """None until it is its turn to be started."""
    told: Child | None = None
    """The process that has got its settings. What comes behind them are the launcher's words, a byte each."""
    incarnation: str = ""
    """Empty until it has one: no name was taken yet, or a restart has not drawn its new one yet."""
    epoch: int = 0
    started: float = 0.0
    restart_at: float | None = None
    """When it is to be started again, on the monotonic clock; None where no restart is scheduled."""
    kill_reason: str = ""
    """Why the supervisor killed it; empty where it did not."""
    leaving: bool = False
    """It is being stopped on purpose: its end is no failure."""


def _policy_of(config: EtherInstanceConfig) -> RestartPolicy:
    return RestartPolicy(config.restart, config.restart_limit, config.restart_window_s)


_NOT_HEARD_OF = " (state: not heard of)"


class Supervisor:
    """The instances of one program. Every method may be called from any thread."""

    def __init__(self, group: Callable[[], ProcessGroup], template: Template | None = None) -> None:
        """`group` gives the process group in which children live; `template` is what they are forked from."""
        self._group = group
        self._template = template
        self._supervised: dict[str, ChildRecord] = {}
        self._ended: dict[str, str] = {}
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._program = ""
        self._make_settings: MakeSettings | None = None
        self._ready_once: set[str] = set()
        self._detector = FailureDetector()
        self._heartbeats: HeartbeatListener | None = None
        self._reaper: Reaper | None = None
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._stopping = False

    # -- what there is

    @property
    def names(self) -> list[str]:
        """The supervised instances, in the order in which they were given."""
        return list(self._supervised)

    @property
    def held(self) -> list[str]:
        """The instances that hold their names. A refused name belongs to another process."""
        return [name for name, record in self._supervised.items() if record.incarnation]

    @property
    def alive(self) -> list[str]:
        """The instances whose process runs."""
        records = list(self._supervised.items())
        return [name for name, record in records if record.child is not None and record.child.exit_code is None]

    @property
    def ended(self) -> Mapping[str, str]:
        """The instances whose process has ended for good, and how each ended."""
        return self._ended

    def child(self, name: str) -> Child:
        """An instance's process; raises `KeyError` where it has none yet."""
        child = self._supervised[name].child
        if child is None:
            raise KeyError(name)
        return child

    def config(self, name: str) -> EtherInstanceConfig:
        """An instance's configuration, as it was given; raises `KeyError`."""
        return self._supervised[name].config

    def doing(self, name: str) -> Heartbeat | None:
        """What an instance said last about what it does; None where it said nothing."""
        with self._changed:
            return self._detector.last_heartbeat(name)

    def was_ready(self, name: str) -> bool:
        """Whether the instance has been ready at least once."""
        return name in self._ready_once

    # -- starting

    def prepare(self, name: str, config: EtherInstanceConfig) -> None:
        """Supervise an instance, and start its process, which waits for its settings. Where too many processes are
        starting already, the process is started later; where it is forked, with its settings."""
        restarts = Restarts(_policy_of(config))
        record = self._supervised[name] = ChildRecord(name, config, restarts, started=time.monotonic())
        self._ended.pop(name, None)
        if (template := self._template_of(record)) is not None:
            template.begin()
        elif self._has_room():
            self._start_process(record)

    def _template_of(self, record: ChildRecord) -> Template | None:
        """The template process from which an instance is forked; None where it is started by itself."""
        template = self._template if record.config.fork else None
        return template if template is not None and template.usable else None

    def connect(
        self,
        session: Session,
        make_settings: MakeSettings,
        *,
        leads: Callable[[], bool] = lambda: False,
        sweeps: bool = False,
    ) -> None:
        """Give the supervisor its session. Clears what killed programs have left in it. `leads`: whether this program
        leads it; `sweeps`: it begins to, on a broker that was there before."""
        self._session, self._make_settings, self._program = session, make_settings, session.link.source
        session.watch(self._on_announcement)
        self._reaper = Reaper(session, self._supervised.keys, lambda: self._program, leads)
        self._reaper.start(_ORPHANS_END_S, sweeps=sweeps)

    def take_name(self, name: str, incarnation_and_epoch: tuple[str, int]) -> None:
        """Announce a prepared instance as starting, under this incarnation and epoch: from now on calls to it wait."""
        record = self._supervised[name]
        record.incarnation, record.epoch = incarnation_and_epoch
        self._announce(record, State.STARTING, "")

    def next_incarnation(self, name: str) -> tuple[str, int]:
        """A new incarnation and its epoch, for a name that this program holds. Never below the last epoch, which this
        program may still announce: a broker that was killed has forgotten it."""
        return new_incarnation(), max(self._joined().next_epoch(name), self._supervised[name].epoch + 1)

    def start_and_wait(
        self,
        names: Iterable[str],
        deadline: Deadline,
        others: Mapping[str, Start] = MappingProxyType({}),
        others_ended: Ended = dict,
    ) -> dict[str, str]:
        """Let the prepared instances be built, each when all instances of its `after:` are ready. Returns when every
        instance is ready or settled: why each of the rest is not ready. `others` are started in the same order, by
        another part of the program; `others_ended` says why some of them will not become ready."""
        names = list(names)
        if names:
            self._watch_over()
        starts = {name: Start(self._supervised[name].config.after, partial(self._begin, name)) for name in names}
        ended = self._ended
        reasons = start_in_order(self._joined(), {**starts, **others}, deadline, lambda: {**others_ended(), **ended})
        with self._changed:
            self._ready_once.update(name for name in names if name not in reasons)
        return {name: self._with_what_it_does(name, reason) for name, reason in reasons.items()}

    def _with_what_it_does(self, name: str, reason: str) -> str:
        """Of an instance whose process runs, and that has announced nothing: that its class is being built."""
        record = self._supervised.get(name)
        if record is None or not reason.endswith(_NOT_HEARD_OF) or name not in self.alive or record.child is None:
            return reason
        for_s, path = time.monotonic() - record.started, record.config.class_path
        return (
            f"{reason.removesuffix(_NOT_HEARD_OF)}: {path} is still being imported or built (pid {record.child.pid},"
            f" since {for_s:.1f} s); timeout_s=… (--timeout) gives it more time"
        )

    def begin_ticks(self, name: str) -> None:
        """Let the ticks of a ready instance begin, where it waits for that; nothing where it has ended."""
        record = self._supervised.get(name)
        if record is not None and record.child is not None:
            record.child.send(BEGIN)

    def start(self, name: str, connect_timeout_s: float) -> None:
        """Let a prepared instance be built; does not wait for it."""
        self._watch_over()
        self._send_settings(self._supervised[name], connect_timeout_s)

    # -- new code for one that runs

    def start_successor(self, name: str, connect_timeout_s: float) -> ChildRecord:
        """Start a process that is built beside an instance that runs, to take its place. Raises `OSError`."""
        assert self._make_settings is not None
        config = self._supervised[name].config
        record = ChildRecord(name, config, Restarts(_policy_of(config)), started=time.monotonic())
        record.incarnation, record.epoch = self.next_incarnation(name)
        settings = self._make_settings(name, config, record.incarnation, record.epoch, connect_timeout_s)
        record.told = self._start_process(record)
        record.told.send(replace(settings, succeeds=True).to_bytes())
        return record

    def succeed(self, record: ChildRecord, deadline: Deadline) -> dict[str, str]:
        """Put a successor in the place of the instance of its name, which has ended. Returns when it is ready, or why
        it is not."""
        name, child = record.name, record.child
        assert child is not None
        self.forget(name)
        self._supervised[name] = record
        self._announce(record, State.STARTING, "")
        if child.exit_code is not None:  # it ended before it was supervised
            self._on_end(child)
        child.send(TAKE_OVER)
        reasons: dict[str, str] = dict(self._joined().wait_ready([name], deadline, lambda: self._ended))
        if not reasons:
            with self._changed:
                self._ready_once.add(name)
            child.send(BEGIN)
        return reasons

    def serves_on(self, name: str) -> None:
        """An instance that was said to be started again serves on."""
        session, record = self._joined(), self._supervised.get(name)
        known = session.announcement(name)
        if record is not None and known is not None and known.incarnation == record.incarnation:
            session.say(known.alive_again)
            session.link.leave_to_others(session.topics.state(name))

    def _begin(self, name: str, deadline: Deadline) -> None:
        """Let one instance be built. Waits while too many others are starting: until one of them has become ready or
        has failed (the session wakes this thread), or has been starting for so long that it does not count any more
        (nothing wakes this thread then, so it looks again every `_LOOK_FOR_ROOM_S`)."""
        record = self._supervised[name]
        if record.child is not None and record.told is record.child:
            return  # it was begun before the others: the recorder of a program that joins
        while record.child is None and not self._has_room() and not deadline.passed:
            self._joined().await_change(self._has_room, min(_LOOK_FOR_ROOM_S, deadline.left()))
        if record.child is None and deadline.passed:
            return
        try:
            self._send_settings(record, deadline.left())
        except OSError as error:  # no memory, or no room for a process: the others go on
            self._ended[name] = f"its process could not be started: {error}{limit_words(error)}"
            self._joined().wake()

    def _has_room(self) -> bool:
        settled = self._session.settled() if self._session is not None else frozenset()
        recently = time.monotonic() - _STARTING_S
        starting = [name for name in self.alive if name not in settled and self._supervised[name].started > recently]
        return len(starting) < _BUILT_AT_ONCE

    def _start_process(self, record: ChildRecord) -> Child:
        template = self._template_of(record)
        fork = None if template is None else template.fork
        record.child = start_instance(record.name, self._group(), self._on_end, detach=record.config.detach, fork=fork)
        return record.child

    def _send_settings(self, record: ChildRecord, connect_timeout_s: float) -> None:
        assert self._make_settings is not None
        if not record.incarnation:
            record.incarnation, record.epoch = self.next_incarnation(record.name)
        record.started = time.monotonic()
        settings = self._make_settings(record.name, record.config, record.incarnation, record.epoch, connect_timeout_s)
        record.told = record.child or self._start_process(record)
        record.told.send(settings.to_bytes())

    def _joined(self) -> Session:
        assert self._session is not None
        return self._session

    def rename_program(self, program: str) -> None:
        """The program that supervises these instances has another name from now on: tell them, because they announce
        it."""
        session = self._joined()
        self._program = program
        incarnations = [record.incarnation for record in list(self._supervised.values())]
        session.link.publish(session.command_topic(KEEPER), {"births": incarnations, "keeper": program})

    # -- a death

    def _on_end(self, child: Child) -> None:
        """An instance's process has ended. On that child's own waiting thread."""
        how = child.how_it_ended()
        record = self._supervised.get(child.name)
        if record is None or record.child is not child:
            return
        self._detector.leave(child.name)
        says_more = child.exit_code == 0 or not self._stopping  # one that was killed, because all ends, does not
        if self._session is not None and says_more and self._session.link.transport.connected:
            try:
                # The instance may have announced why it ends: process what the broker took under its name before now.
                # (An answer to the request to end comes in any case: `Session` waits for it.)
                self._session.catch_up(_LAST_WORDS_TIMEOUT_S, among=child.name)
            except EtherError:
                pass  # then the exit code has to explain it
        if record.kill_reason:
            how = f"{record.kill_reason}, and was killed"
        self._after_end(record, how, failed=child.exit_code != 0 or bool(record.kill_reason))
        if self._session is not None:
            self._session.wake()

    def _after_end(self, record: ChildRecord, how: str, *, failed: bool) -> None:
        now = time.monotonic()
        with self._changed:
            comes_back = self._comes_back(record, failed=failed)
            pause_s = record.restarts.pause_s(now, now - record.started) if comes_back else None
        if not comes_back:
            self._is_over(record, how)
        elif pause_s is None:
            self._give_up(record, how)
        else:
            when = f"in {pause_s:g} s" if pause_s else "at once"
            logger.error("instance %s ended: %s\nStarting it again %s.", record.name, how, when)
            self._announce(record, State.RESTARTING, how)
            # Scheduled only after the announcement: the supervisor's thread may start the instance at once, and a
            # later "restarting" would then speak for the next incarnation.
            with self._changed:
                record.restart_at = None if self._stopping or record.leaving else now + pause_s
                record.kill_reason = ""
                self._changed.notify_all()

    def _comes_back(self, record: ChildRecord, *, failed: bool) -> bool:
        replaced = self.child(record.name).exit_code == EXIT_REPLACED
        wanted = bool(record.kill_reason) or (record.restarts.policy.wants(failed=failed) and not replaced)
        leaves = self._stopping or record.leaving or self._session is None
        return wanted and not leaves and record.name in self._ready_once

    def _is_over(self, record: ChildRecord, how: str) -> None:
        self._ended[record.name] = how
        if self._session is None:
            return
        wanted = self._stopping or record.leaving or self.child(record.name).exit_code == EXIT_REPLACED
        if record.name in self._ready_once and not wanted:
            logger.error("instance %s ended: %s", record.name, how)
            if self.child(record.name).exit_code and self._is_listed(record):
                self._announce(record, State.LOST, how)  # the broker's own word says less, and is not believed at once
        elif record.incarnation and not wanted and not self._has_told_why(record):
            # It may never have connected: then the broker holds no will of it, and nobody else announces its death.
            self._announce(record, State.ERROR, how)
        self._session.lost(record.name, record.incarnation, how)

    def _is_listed(self, record: ChildRecord) -> bool:
        known = self._joined().announcement(record.name)
        return known is not None and known.incarnation == record.incarnation

    def _has_told_why(self, record: ChildRecord) -> bool:
        known = self._joined().announcement(record.name)
        return known is not None and known.incarnation == record.incarnation and known.state is State.ERROR

    def _give_up(self, record: ChildRecord, how: str) -> None:
        policy = record.restarts.policy
        known = self._joined().announcement(record.name)
        last = known.error if known is not None and known.state is State.ERROR and known.error else how
        why = f"started again {policy.limit} times within {policy.window_s:g} s; the last time:\n{last}"
        logger.error("instance %s has failed: %s", record.name, why)
        self._ended[record.name] = why
        self._announce(record, State.FAILED, why)

    def _announce(self, record: ChildRecord, state: State, why: str) -> None:
        """Announce a state in the place of an instance that cannot do so itself."""
        session = self._joined()
        known = session.announcement(record.name)
        is_current = known is not None and known.incarnation == record.incarnation
        about: Mapping[str, Any] = known.about if known is not None and is_current else {}
        facts = process_facts()
        if state not in (State.STARTING, State.RESTARTING):
            del facts["pid"]  # only until the next process runs, this one holds the name
        about = {**about, **facts, "epoch": record.epoch, "keeper": self._program}
        try:
            session.say(Announcement(record.name, state, record.incarnation, why, about))
        except TransportError as error:
            logger.warning("could not tell that %s is %s: %s", record.name, state.value, error)

    # -- watching over them

    def _watch_over(self) -> None:
        with self._thread_lock:
            if self._thread is None:
                self._start_thread(self._joined())

    def _start_thread(self, session: Session) -> None:
        self._heartbeats = HeartbeatListener(session, self._detector, self._changed, self._supervised)
        self._thread = threading.Thread(target=self._run, name="ether-supervisor", daemon=True)
        self._heartbeats.start()
        self._thread.start()

    def _on_announcement(self, announcement: Announcement) -> None:
        """On the dispatch thread, under the session's lock. The instance itself announces ready, offline or an error:
        from then on it maintains its announcement, and this program repeats it no more after a reconnect."""
        record = self._supervised.get(announcement.name)
        if (
            record is None
            or announcement.incarnation != record.incarnation
            or announcement.state not in (*TAKES_PART, State.ERROR)
        ):
            return
        self._joined().link.leave_to_others(self._joined().topics.state(record.name))
        if announcement.state is State.ERROR:
            return
        hang = record.config.hang
        with self._changed:
            now = time.monotonic()
            self._ready_once.add(record.name)
            self._detector.watch(record.name, record.incarnation, Limits(hang.silent_s, hang.busy_s), now)

    def _run(self) -> None:
        """The supervisor's thread: starts again what is due, and acts where the failure detector's verdict on an
        instance has changed.

        Each turn collects its work under `_changed` and does it after the lock is released, because both kinds of work
        call the session (see the order of the locks above).
        """
        clock = ClockSteps(*wall_and_uptime())
        while True:
            if (step := clock.look(*wall_and_uptime())) is not None:
                logger.warning("%s", set_words(this_place().host, step.set_by_s))
            with self._changed:
                if self._stopping:
                    return
                now = time.monotonic()
                due = [
                    record
                    for record in self._supervised.values()
                    if record.restart_at is not None and record.restart_at <= now
                ]
                verdicts = self._detector.judge(now)
                if not due and not verdicts:
                    # An instance has been silent for too long, but that proves nothing before a heartbeat of our own
                    # has come back from the broker, sent after the silence began. Send it now.
                    if self._heartbeats is not None and self._detector.wants_echo(now):
                        self._heartbeats.hurry()
                    # Ends when a restart is scheduled (`_after_end`), an echo arrives (`HeartbeatListener`), everything
                    # stops (`no_more_starts`), or the next restart or look at the verdicts is due.
                    self._changed.wait(self._patience_s(now))
                    continue
                for record in due:
                    record.restart_at = None  # taken: the next turn must not start it a second time
                # A verdict may be of an instance that was forgotten between its announcement and now.
                judged = [(self._supervised[name], why) for name, why in verdicts.items() if name in self._supervised]
            for record in due:
                self._start_again(record)
            for record, why in judged:
                self._react(record, why)

    def _patience_s(self, now: float) -> float:
        pauses = [record.restart_at - now for record in self._supervised.values() if record.restart_at is not None]
        return max(0.0, min([_JUDGE_EVERY_S, *pauses]))

    def _start_again(self, record: ChildRecord) -> None:
        try:
            record.incarnation = ""
            self._start_process(record)
            self._send_settings(record, _CONNECT_S)
        except (OSError, EtherError) as error:
            logger.exception("instance %s could not be started again", record.name)
            self._give_up(record, f"could not be started: {error}")

    def _react(self, record: ChildRecord, why: str) -> None:
        """Act on a changed verdict: `why` the instance counts as hung, empty where its heartbeats are back."""
        session = self._joined()
        known = session.announcement(record.name)
        if known is None or known.incarnation != record.incarnation or known.state not in LIVES:
            return
        if not why:
            logger.warning("instance %s lives again", record.name)
            session.say(known.alive_again)
            session.link.leave_to_others(session.topics.state(record.name))
        elif record.config.hang.reaction == "restart":
            logger.error("instance %s hangs: %s. It is killed.", record.name, why)
            record.kill_reason = f"hung: {why}"
            self.child(record.name).kill()
        else:
            logger.error("instance %s hangs: %s", record.name, why)
            session.say(replace(known, state=State.HUNG, error=why))

    # -- stopping

    def expect_end(self, name: str) -> None:
        """An instance is about to be stopped: its end is no failure, and it is not started again."""
        with self._changed:
            record = self._supervised[name]
            record.leaving, record.restart_at = True, None
            self._detector.leave(name)

    def forget(self, name: str) -> None:
        """An instance has ended, and is supervised no more. Twice is fine."""
        with self._changed:
            self._supervised.pop(name, None)
            self._ended.pop(name, None)
            self._ready_once.discard(name)

    def discard(self, name: str) -> None:
        """Kill an instance that could not be started, and supervise it no more."""
        self.expect_end(name)
        self.end([name], 0)
        self.forget(name)

    def no_more_starts(self) -> None:
        """From now on no end is a failure, and nothing is started again. Twice is fine."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._reaper is not None:
            self._reaper.stop()
        with self._thread_lock:  # a recorder that was just asked for may be starting both
            heartbeats, thread = self._heartbeats, self._thread
        if heartbeats is not None:
            heartbeats.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def end(self, names: Iterable[str], timeout_s: float, step_s: float = 0.0) -> list[str]:
        """Wait for the processes of these instances to end. At half time those that still run get SIGTERM; one that
        got it before leaves the handler that it runs. Kills those that run when the time is over, and returns their
        names; the last steps of an instance, save_all for example, have `step_s` each instead. With 0 seconds kills
        all at once. Returns when what they have started has ended, too."""
        children = {name: child for name in names if (child := self._supervised[name].child) is not None}
        for child in children.values():
            child.look()
        if timeout_s > 0:
            killed = await_ends(children, timeout_s, step_s)
        else:
            killed = [name for name, child in children.items() if not child.ended_within(0.0)]
            for name in killed:  # all of them before the first is waited for: what they have started takes its time
                children[name].kill()
        for child in children.values():
            child.end(0.0)
        return killed
