"""The main of an instance's process: `python -m ether instance`.

In order: read the settings from standard input, connect, build the object, subscribe, announce `ready`, and run jobs
on this, the main thread, until told to stop. A failure before `ready` is announced, too, with the user's own traceback,
so that the program that asked for the instance can show it.

Standard input stays open as the lifeline: when it ends, the launcher is dead. Then `save_all` and `cleanup` have half a
second, and the process ends, so that a heater does not stay on and no orphan lives. An instance with a `safe_state`
makes those calls before, within the time that it states.

The trap: every module that is imported here delays the start of every instance, and some are left out on purpose
(`tests/test_house.py`, `tests/launch/test_child_imports.py`).
"""

from __future__ import annotations

import faulthandler
import inspect
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from ether.calls.durable_server import InstanceJournal
from ether.calls.progress import CallLog
from ether.connection import fork_guard as forks
from ether.connection.assembly import connected_within, death_notice, make_link
from ether.connection.deadline import Deadline
from ether.connection.extension import Extension
from ether.connection.link import Link, await_taken
from ether.connection.worker import Stopped, Worker
from ether.errors import ConfigError, EtherError, InvalidName, MarkError, NotJoined, PayloadTooLarge, PublishRefused
from ether.errors.tracebacks import lines_of
from ether.instance.drivers.building import Builder, BuiltObject, Recipe
from ether.instance.hosted import HostedInstance
from ether.instance.notebook_cells import take_cells
from ether.launch.child_notes import FLUSH, Notes
from ether.launch.child_settings import BEGIN, EXIT_REPLACED, InstanceSettings
from ether.launch.process_records import ContextFacts, open_record_writer
from ether.launch.reload.succession import GO_ON, HOLD, LET_GO, GivenUp, StandStill, Successor, state_file
from ether.launch.simulated.devices import SimulatedDevices
from ether.log import get_ether_logger, install_instance_console
from ether.logs.shipping import LogShipper
from ether.protocol.presence import Announcement, State
from ether.recording.writer import RecordWriter, SavingOptions
from ether.runs.plan.call_rules import constructor_fault
from ether.secret_values import learn
from ether.session.client import Client
from ether.session.heartbeat import HeartbeatSender
from ether.session.own_rights import OwnRights
from ether.spec.marks import MarkKind
from ether.system.folders import calls_folder, file_name, journal_path
from ether.system.process_owner import is_dead_here
from ether.wire.topics import SessionTopics

EXIT_OK = 0
EXIT_NOT_STARTED = 1
"""The class, its constructor or its `ether_init` failed; the reason was announced."""
EXIT_NO_BROKER = 2
EXIT_ORPHANED = 3
"""The launcher died."""

EXIT_DEVICE_GONE = 6
"""`on_error: {then: restart}`: the device is gone, and a new process is to be tried."""

_LOG_GOES_S = 0.2
"""Until the process ends, so that the reason is in the log of the session."""

SAVE_TIMEOUT_S = 5.0
"""For sending what waits in the outbox to the recorder, at the end. What is left after that waits on disk."""

SEND_TIMEOUT_S = 3.0
"""For sending what waits for the broker, at the end. What is left after that is dropped, and counted in the log."""

ORPHAN_GRACE_S = 0.4
"""For save_all and cleanup after the launcher's death. Every process of the session must be gone within a second."""

_BEGINS_S = 5.0
"""For the steps between the announcement of an instance and its ticks."""

FINAL_STEPS = (MarkKind.SAVE_ALL, MarkKind.CLEANUP, MarkKind.SHUTDOWN)

logger = get_ether_logger("Ether")

Adopt = Callable[[Client], None]
"""Connects the process's `ether` object to the session, so that user code can publish."""


def main(adopt: Adopt) -> int:
    """Run one instance from its settings to its end; returns the exit code."""
    faulthandler.enable()  # a crash in C, and SIGABRT to a process that hangs, show where each thread was
    lifeline = _take_over_stdin()
    _leave_terminal_signals_to_launcher()
    _write_whole_lines()
    settings = InstanceSettings.read(lifeline)
    if settings is None:
        return EXIT_ORPHANED
    learn(settings.secrets or ())
    _take_on(settings)
    process = _InstanceProcess(settings, adopt)
    code = process.run(lifeline)
    process.notes.tell_exit(code)
    return code


class _InstanceProcess:
    """One instance, from its settings to its exit code."""

    def __init__(self, settings: InstanceSettings, adopt: Adopt) -> None:
        self._settings = settings
        self._adopt = adopt
        self._topics = SessionTopics(settings.session)
        self._worker = Worker(settings.concurrency)
        self._incarnation = settings.incarnation
        self._announced = {"epoch": settings.epoch, **settings.announced}
        self._instance: HostedInstance | None = None
        self._client: Client | None = None
        self._journal: InstanceJournal | None = None
        self._final: _FinalJob | None = None
        self._forks = forks.watch()
        self.notes = Notes()
        """What it says to its launcher, beside its output."""
        self._successor: Successor | None = None
        """While another process serves under this name."""
        if settings.succeeds:
            self._successor = Successor(settings.name, settings.positions, self.notes)
        self._stand_still: StandStill | None = None
        self._prepared: tuple[BuiltObject, Builder] | None = None
        self._serves = threading.Event()
        """Set when the instance is ready and its ticks may begin."""

    def run(self, lifeline: BinaryIO) -> int:
        """The main thread's whole work. `self._worker.run()` returns when the worker is told to stop: by the control
        plane, by SIGTERM, or by a final job."""
        threading.Thread(target=self._watch_lifeline, args=(lifeline,), name="ether-lifeline", daemon=True).start()
        signal.signal(signal.SIGTERM, self._terminate)
        if hasattr(os, "register_at_fork"):
            signals_at_fork(self._give_signals_back)
        if (successor := self._successor) is not None and not self._is_prepared(successor):
            return EXIT_NOT_STARTED
        link = self._connected()
        if link is None:
            return EXIT_NO_BROKER
        log = LogShipper(link, self._topics, self._settings.name)
        try:
            instance = self._instance = self._built(link)
            if successor is not None:
                successor.await_turn(instance.object, instance.initialise)
            if instance.spec.with_mark(MarkKind.SUB):
                instance.keep_positions(Path(self._settings.positions))
            if self._settings.together:
                link.expect(self._settings.together, self._settings.began)
            instance.subscribe()
            link.all_subscribed()
            if isinstance(instance.object, Extension):
                instance.object.attach(link, self._topics, instance.name)
            if successor is None:
                instance.initialise()
            instance.announcer.show()
        except BaseException as error:  # noqa: BLE001  child main: user code may raise anything
            if forks.times != self._forks:
                forks.end_forked(error)  # by the constructor, or where the class is imported
            self._say_why_not(link, error)
            log.close()
            link.close()
            return EXIT_NOT_STARTED
        sender = HeartbeatSender(
            link, self._topics.heartbeat(instance.name), instance.heartbeat, instance.guard.interval_s
        )
        sender.start()
        self._open_durable_calls()
        instance.guard.start()
        self._serves.set()
        if not self._settings.waits:
            instance.begin_times()
        self._worker.run()
        sender.stop()
        instance.control.give_up_name()
        instance.close()
        self.notes.tell(FLUSH)
        if instance.record_writer is not None:
            instance.record_writer.close(SAVE_TIMEOUT_S)
        if isinstance(instance.object, Extension):
            instance.object.detach()
        self._close_durable_calls()
        link.finish(SEND_TIMEOUT_S)
        log.close()
        self._leave(link)
        self.notes.tell("")
        return EXIT_OK

    def _is_prepared(self, successor: Successor) -> bool:
        """Build the object before anything is connected, so that nobody hears of a constructor that crashes. One that
        needs the session is built behind the connection, as always. False where it cannot be built."""
        try:
            self._prepared = self._object()
        except NotJoined:
            pass
        except BaseException as error:  # noqa: BLE001  child main: user code may raise anything
            if forks.times != self._forks:
                forks.end_forked(error)
            successor.say_why_not(_reason_of(error))
            return False
        return True

    def _object(self) -> tuple[BuiltObject, Builder]:
        settings = self._settings
        devices = SimulatedDevices.from_value(settings.simulated_devices)
        builder = Builder(settings.script or take_cells(settings.cells), _bad_call)
        recipe = Recipe(
            settings.name,
            settings.class_path,
            devices.of(settings.args),
            devices.of(settings.kwargs),
            devices.of(settings.build),
            settings.marks(),
        )
        built = recipe.made(builder)
        if forks.times != self._forks:
            forks.end_forked(None)
        return built, builder

    def _connected(self) -> Link | None:
        settings = self._settings
        dead = Announcement(settings.name, State.LOST, self._incarnation, about={"pid": os.getpid(), **self._announced})
        will = death_notice(self._topics, dead)
        deadline = Deadline(settings.connect_timeout_s)

        def connect() -> Link:
            link = make_link(
                settings.broker(),
                settings.name,
                will=will,
                max_packet_bytes=settings.max_packet_bytes,
                topics=self._topics,
            )
            link.open(deadline.left())
            return link

        try:
            link = connected_within(connect, deadline)
        except EtherError as error:
            print(f"{settings.name}: {error}", file=sys.stderr)
            return None
        link.take_on(settings.broker_traits)
        if self._successor is not None:
            self._successor.leave = link.close
        return link

    def _built(self, link: Link) -> HostedInstance:
        settings = self._settings
        client = self._client = Client(link, self._topics)
        client.topic_check.announce_by(self._announce_changed)
        self._adopt(client)
        built, builder = self._prepared or self._object()
        obj, spec = built.obj, built.spec
        if spec.with_mark(MarkKind.SAVE):
            self._journal = InstanceJournal(lambda: journal_path(settings.session, settings.name))
            self._announced["journal"] = self._journal.id
        if settings.rights is not None:
            heard, published = (
                [topic for method in spec.with_mark(kind) for topic in method.topics(kind)]
                for kind in (MarkKind.SUB, MarkKind.PUB)
            )
            client.session.is_limited = True
            client.rights = OwnRights.of(settings.name, settings.rights, published, heard)
        instance = HostedInstance(
            settings.name, obj, spec, link, self._topics, self._worker, self._incarnation, self._announced
        )
        instance.take_over(built, builder)
        instance.server.journal = self._journal
        instance.on_step = self.notes.tell
        instance.on_end_for_restart = _end_for_restart
        instance.topics_used = client.topic_check.used
        instance.control.on_fenced = _stop_at_once
        instance.lease_server.is_dead = is_dead_here
        if not isinstance(obj, Extension):
            instance.record_writer = client.record_writer = self._record_writer(link, built.cls)
        client.session.calls.local_instances[settings.name] = instance
        logging.getLogger().addHandler(CallLog())
        return instance

    def _announce_changed(self) -> None:
        if self._instance is not None:
            self._instance.announce_changed()

    def _record_writer(self, link: Link, cls: type) -> RecordWriter:
        settings = self._settings
        facts = ContextFacts(
            settings.name,
            settings.configuration,
            self._incarnation,
            settings.epoch,
            settings.class_path,
            cls,
            settings.args,
            settings.kwargs,
            settings.registry,
        )
        options = SavingOptions.from_value(settings.saving)
        return open_record_writer(link, self._topics, options, settings.leader, facts.entries)

    def _open_durable_calls(self) -> None:
        """From now on the saves that this instance asks of others survive it, and those of an earlier incarnation that
        nobody has answered are asked again."""
        assert self._client is not None
        session, name = self._settings.session, file_name(self._settings.name)
        self._client.keep_saves(lambda: calls_folder(session), name, own=True)

    def _close_durable_calls(self) -> None:
        if self._client is not None:
            self._client.session.close()
        if self._journal is not None:
            self._journal.close()

    def _leave(self, link: Link) -> None:
        """Clear the announcement, where a broker is connected that retains it. An instance that is started again in a
        moment leaves it, because it says "restarting"."""
        returns = self._instance is not None and self._instance.control.returns
        try:
            if link.transport.connected and not returns:
                link.withdraw(self._topics.state(self._settings.name))
        except EtherError as error:
            logger.warning("could not clear the announcement of %s: %s", self._settings.name, error)
        link.close()

    def _say_why_not(self, link: Link, error: BaseException) -> None:
        """Announce why the instance has not started. Where the broker does not take announcements, the launcher finds
        the reason on standard error. A successor announces nothing before its turn."""
        if (successor := self._successor) is not None and not successor.has_taken_over:
            if not isinstance(error, GivenUp):
                successor.say_why_not(_reason_of(error))
            return
        refused = isinstance(error, PublishRefused | PayloadTooLarge)
        known = self._instance.about() if self._instance and not refused else {"pid": os.getpid(), **self._announced}
        announcement = Announcement(self._settings.name, State.ERROR, self._incarnation, _reason_of(error), known)
        if refused:
            print(f"{self._settings.name} cannot be announced: {error}", file=sys.stderr)
        try:
            await_taken(link.announce(self._topics.state(self._settings.name), announcement.to_value()))
        except (PublishRefused, PayloadTooLarge) as again:
            logger.debug("%s", again)

    def _terminate(self, number: int, frame: object) -> None:
        """SIGTERM, on the main thread between two of its instructions. The first one: the ordinary last steps, without
        the other instances. The second one, when the first has changed nothing: the job that runs does not return, so
        an exception ends it. What saves or cleans up is never ended so."""
        if self._final is None:
            self._final = _FinalJob(self._instance, FINAL_STEPS)
            self._worker.interrupt(self._final)
            self._worker.stop()
        elif self._worker.on_this_thread and not self._final.begun and not self._in_last_step:
            raise Stopped("everything ends, and this handler has not come back")

    @property
    def _in_last_step(self) -> bool:
        return self._instance is not None and bool(self._instance.last_step)

    def _give_signals_back(self) -> None:
        """In a forked child: the signals that Ether handles have the handlers that Python gives them, so that
        `Process.terminate()` ends it. The handlers of the user's own code stay."""
        if signal.getsignal(signal.SIGTERM) == self._terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is _left_to_launcher:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _hear(self, word: bytes) -> None:
        """A word of the launcher's, on the lifeline's thread."""
        if word == BEGIN:  # the launcher sends it to an instance that is ready
            self._serves.wait(_BEGINS_S)
            if self._instance is not None:
                self._instance.begin_times()
        elif word == HOLD and self._instance is not None:
            self._stand_still = StandStill(self._instance, state_file(self._settings.positions), self.notes)
            self._worker.submit(self._stand_still, express="")
        elif word == GO_ON and self._stand_still is not None:
            self._stand_still.go_on()
        elif word == LET_GO and self._stand_still is not None:
            self._stand_still.let_go()
        elif self._successor is not None:
            self._successor.hear(word)

    def _watch_lifeline(self, lifeline: BinaryIO) -> None:
        """Wait for the launcher's word that the ticks begin, and for its death; then end this process, whatever its
        main thread does. On a thread of its own.

        The last steps run on the main thread, ahead of its queue. Half of the grace is for the job that runs there to
        return. If it does not, SIGTERM makes the main thread leave it (`_terminate`, for which a final job has to be
        set already), and the other half is for the last steps themselves.
        """
        while word := lifeline.read(1):  # empty when the pipe is closed, which is at the launcher's death
            self._hear(word)
        if self._stand_still is not None:
            self._stand_still.go_on()  # nobody will say so any more, and the safe state needs the worker
        if self._instance is not None:
            self._instance.guard.orphaned()
            if isinstance(self._instance.object, Extension):
                self._instance.object.orphaned()
        last = _FinalJob(self._instance, (MarkKind.SAVE_ALL, MarkKind.CLEANUP))
        self._worker.interrupt(last)
        ending = self._final is not None and self._final.begun
        if not (last.done.wait(ORPHAN_GRACE_S / 2) or ending) and hasattr(signal, "pthread_kill"):
            self._final = last
            signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGTERM)
        last.done.wait(ORPHAN_GRACE_S / 2)
        os._exit(EXIT_ORPHANED)


def _stop_at_once(why: str) -> None:
    """Another process holds the name now, and the devices with it: the last steps would disturb that process."""
    sys.stderr.flush()
    os._exit(EXIT_REPLACED)


def _end_for_restart() -> None:
    """The driver's device is gone, and a new process is to be tried: the last steps would talk to a device that is not
    there. The log has a moment to get away."""
    sys.stderr.flush()
    threading.Timer(_LOG_GOES_S, os._exit, (EXIT_DEVICE_GONE,)).start()


def signals_at_fork(give_back: Callable[[], None]) -> None:
    """Call `give_back` in each process that this one forks. Until then SIGTERM and SIGINT wait there: one that came
    before would be taken by a handler of the parent's, or by nobody, and the forked process would live on."""
    held = threading.local()

    def hold() -> None:
        held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    def begin() -> None:
        give_back()
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)


class _FinalJob:
    """The last lifecycle steps, as a job that runs before everything that is queued."""

    def __init__(self, instance: HostedInstance | None, steps: tuple[MarkKind, ...]) -> None:
        self.done = threading.Event()
        self.begun = False
        self._instance = instance
        self._steps = steps

    def run(self) -> None:
        self.begun = True
        if self._instance is not None:
            self._instance.begin_end()
            self._instance.wait_alone(ORPHAN_GRACE_S / 4)
            for step in self._steps:
                self._instance.run_marked(step)
        self.done.set()

    def failed(self, error: BaseException) -> None:
        logger.error("the last steps failed: %s", error)
        self.done.set()


def _take_over_stdin() -> BinaryIO:
    """The pipe from the launcher, moved to another descriptor: user code that reads standard input finds it empty."""
    lifeline = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def _leave_terminal_signals_to_launcher() -> None:
    """Ctrl-C in the terminal is for the main program, which shuts everything down in order. It is handled, not ignored:
    a program that is started inherits that a signal is ignored, and ffmpeg is ended by SIGINT."""
    signal.signal(signal.SIGINT, _left_to_launcher)


def _left_to_launcher(number: int, frame: object) -> None:
    pass


def _write_whole_lines() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _take_on(settings: InstanceSettings) -> None:
    """Take on the launcher's import path and environment, and the instance's name in the log."""
    for name, value in settings.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    sys.path[:] = settings.import_path
    install_instance_console(settings.name)


def _bad_call(
    title: str, signature: inspect.Signature, args: Sequence[object], kwargs: Mapping[str, object]
) -> ConfigError | None:
    """What a constructor or a factory does not take of its arguments, with the argument."""
    fault = constructor_fault(title, signature, args, kwargs, ())
    return None if fault is None else ConfigError(fault.text, path=fault.path or "args")


def _reason_of(error: BaseException) -> str:
    """The reason that the launcher shows: for a mistake in the configuration one sentence, else the user's own
    traceback."""
    if isinstance(error, (ConfigError, InvalidName, MarkError, PublishRefused, PayloadTooLarge)):
        return f"{type(error).__name__}: {error}"
    return "".join(lines_of(error))
