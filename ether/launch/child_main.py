"""The main of an instance's process: `python -m ether instance`.

In order: take the settings from standard input, connect, build the object, subscribe, announce `ready`, and run
jobs on this, the main thread, until told to stop. Whatever fails before `ready` is announced, too, with the user's
own traceback, so that it can be shown where the instance was asked for.

Standard input stays open as the lifeline: when it ends, the launcher is dead. Then there is half a second for
`save_all` and `cleanup`, and the process is gone, so that a hardware heater does not stay on and no orphan lives. An
instance with a `safe_state` makes its calls before, within the time that it states.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, cast

from ether.calls.durable_server import InstanceJournal
from ether.calls.progress import CallLog
from ether.connection.assembly import death_notice, describe_with_registry, make_link
from ether.connection.extension import Extension
from ether.connection.failure_text import user_traceback
from ether.connection.link import Link
from ether.connection.worker import Stopped, Worker
from ether.errors import ConfigError, EtherError, InvalidName, MarkError
from ether.instance.class_loading import find_class
from ether.instance.hosted import HostedInstance
from ether.launch.child_settings import EXIT_REPLACED, InstanceSettings
from ether.launch.recording_setup import explained, open_saver
from ether.launch.simulated_lab import SimulatedDevices
from ether.log import get_ether_logger, install_instance_console
from ether.logs.shipping import LogShipper
from ether.protocol.presence import Announcement, State
from ether.recording.writer import RecordWriter, SavingOptions
from ether.session.client import Client
from ether.session.heartbeat import HeartbeatSender
from ether.spec.marks import MarkKind
from ether.system.folders import calls_folder, file_name, journal_path
from ether.system.process_owner import is_dead_here
from ether.wire.topics import SessionTopics

EXIT_OK = 0
EXIT_NOT_STARTED = 1
"""The class, its constructor or its `ether_init` failed; it was announced why."""
EXIT_NO_BROKER = 2
EXIT_ORPHANED = 3
"""The launcher died."""

SAVE_TIMEOUT_S = 5.0
"""For bringing what waits in the outbox to the recorder, at the end. What is left then waits on disk."""

ORPHAN_GRACE_S = 0.4
"""For save_all and cleanup after the launcher's death. Everything of ours must be gone within a second of it."""

FINAL_STEPS = (MarkKind.SAVE_ALL, MarkKind.CLEANUP, MarkKind.SHUTDOWN)

logger = get_ether_logger("Ether")

Adopt = Callable[[Client], None]
"""Gives the process's `ether` object its way to publish."""


def main(adopt: Adopt) -> int:
    """Live one instance's life; returns the exit code."""
    faulthandler.enable()  # a crash in C, and whoever kills this process because it hangs, shall show where it was
    lifeline = _take_over_stdin()
    _leave_terminal_signals_to_launcher()
    _write_whole_lines()
    settings = InstanceSettings.read(lifeline)
    if settings is None:
        return EXIT_ORPHANED
    _become(settings)
    return _Life(settings, adopt).live(lifeline)


class _Life:
    """One instance, from its settings to its exit code."""

    def __init__(self, settings: InstanceSettings, adopt: Adopt) -> None:
        self._settings = settings
        self._adopt = adopt
        self._topics = SessionTopics(settings.session)
        self._worker = Worker(settings.concurrency)
        self._incarnation = settings.incarnation
        self._holding = {"epoch": settings.epoch, **settings.holding}
        self._instance: HostedInstance | None = None
        self._client: Client | None = None
        self._journal: InstanceJournal | None = None
        self._final: _FinalJob | None = None

    def live(self, lifeline: BinaryIO) -> int:
        threading.Thread(target=self._watch, args=(lifeline,), name="ether-lifeline", daemon=True).start()
        signal.signal(signal.SIGTERM, self._terminate)
        link = self._connected()
        if link is None:
            return EXIT_NO_BROKER
        log = LogShipper(link, self._topics, self._settings.name)
        try:
            instance = self._instance = self._built(link)
            instance.subscribe()
            if isinstance(instance.object, Extension):
                instance.object.attach(link, self._topics, instance.name)
            instance.initialise()
        except (Exception, SystemExit) as error:  # noqa: BLE001  child main: user code may raise anything
            self._announce(link, State.ERROR, _told(error))
            log.close()
            link.close()
            return EXIT_NOT_STARTED
        instance.announcer.show()
        sender = HeartbeatSender(
            link, self._topics.heartbeat(instance.name), instance.heartbeat, instance.guard.interval_s
        )
        sender.start()
        self._keep_saves()
        instance.guard.start()
        instance.ticks.start()
        self._worker.run()
        sender.stop()
        instance.control.give_up_name()
        instance.close()
        if instance.record_writer is not None:
            instance.record_writer.close(SAVE_TIMEOUT_S)
        if isinstance(instance.object, Extension):
            instance.object.detach()
        self._let_go_of_saves()
        log.close()
        self._leave(link)
        return EXIT_OK

    def _connected(self) -> Link | None:
        settings = self._settings
        dead = Announcement(settings.name, State.LOST, self._incarnation, about={"pid": os.getpid(), **self._holding})
        will = death_notice(self._topics, dead)
        link = make_link(
            settings.broker(),
            settings.name,
            will=will,
            max_packet_bytes=settings.max_packet_bytes,
            topics=self._topics,
        )
        try:
            link.open(settings.connect_timeout_s)
        except EtherError as error:
            print(f"{settings.name}: {error}", file=sys.stderr)
            return None
        return link

    def _built(self, link: Link) -> HostedInstance:
        settings = self._settings
        client = self._client = Client(link, self._topics)
        self._adopt(client)
        cls = find_class(settings.class_path, settings.script)
        spec = describe_with_registry(cls, settings.class_path, settings.marks())
        twins = SimulatedDevices.from_value(settings.twins)
        obj = cls(*twins.of(settings.args), **twins.of(settings.kwargs))
        if spec.with_mark(MarkKind.SAVE):
            self._journal = InstanceJournal(lambda: journal_path(settings.session, settings.name))
            self._holding["journal"] = self._journal.id
        instance = HostedInstance(
            settings.name, obj, spec, link, self._topics, self._worker, self._incarnation, self._holding
        )
        instance.server.journal = self._journal
        instance.control.on_fenced = _stop_at_once
        instance.lease_server.is_dead = is_dead_here
        if not isinstance(obj, Extension):
            instance.record_writer = client.record_writer = self._record_writer(link, cls)
        client.session.calls.local_instances[settings.name] = instance
        logging.getLogger().addHandler(CallLog())
        return instance

    def _record_writer(self, link: Link, cls: type) -> RecordWriter:
        settings = self._settings
        explain = partial(
            explained, settings.name, self._incarnation, settings.epoch, cls, settings.args, settings.kwargs,
            settings.class_path, settings.registry, settings.configuration,
        )  # fmt: skip
        return open_saver(link, self._topics, SavingOptions.from_value(settings.saving), settings.leader, explain)

    def _keep_saves(self) -> None:
        """What this instance saves elsewhere survives it, and what it saved in an earlier life is delivered."""
        assert self._client is not None
        session, name = self._settings.session, file_name(self._settings.name)
        self._client.keep_saves(lambda: calls_folder(session), name, own=True)

    def _let_go_of_saves(self) -> None:
        if self._client is not None:
            self._client.session.close()
        if self._journal is not None:
            self._journal.close()

    def _leave(self, link: Link) -> None:
        """Clear the announcement, if a broker is there that could keep it; who is started again in a moment leaves
        it, because it says so."""
        returns = self._instance is not None and self._instance.control.returns
        try:
            if link.transport.connected and not returns:
                link.withdraw(self._topics.state(self._settings.name))
        except EtherError as error:
            logger.warning("could not clear the announcement of %s: %s", self._settings.name, error)
        link.close()

    def _announce(self, link: Link, state: State, error: str = "") -> None:
        about = self._instance.about() if self._instance else {"pid": os.getpid(), **self._holding}
        announcement = Announcement(self._settings.name, state, self._incarnation, error, about)
        link.announce(self._topics.state(self._settings.name), announcement.to_value())

    def _terminate(self, number: int, frame: object) -> None:
        """SIGTERM: the ordinary end, though nobody else takes part in it. The second one: at once, because a handler
        has not come back."""
        if self._final is None:
            self._final = _FinalJob(self._instance, FINAL_STEPS)
            self._worker.interrupt(self._final)
            self._worker.stop()
        elif self._worker.on_this_thread and not self._final.begun:
            raise Stopped("everything ends, and this handler has not come back")

    def _watch(self, lifeline: BinaryIO) -> None:
        """Wait for the launcher's death, then end this process, come what may."""
        lifeline.read()
        if self._instance is not None:
            self._instance.guard.orphaned()
        last = _FinalJob(self._instance, (MarkKind.SAVE_ALL, MarkKind.CLEANUP))
        self._worker.interrupt(last)
        ending = self._final is not None and self._final.begun
        if not (last.done.wait(ORPHAN_GRACE_S / 2) or ending) and hasattr(signal, "pthread_kill"):
            self._final = last
            signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGTERM)  # its handler is left
        last.done.wait(ORPHAN_GRACE_S / 2)
        os._exit(EXIT_ORPHANED)


def _stop_at_once(why: str) -> None:
    """Another process holds the name, and whatever belongs to it: no last steps, which would disturb that one."""
    sys.stderr.flush()
    os._exit(EXIT_REPLACED)


class _FinalJob:
    """The last lifecycle steps, ahead of everything that is queued."""

    def __init__(self, instance: HostedInstance | None, steps: tuple[MarkKind, ...]) -> None:
        self.done = threading.Event()
        self.begun = False
        self._instance = instance
        self._steps = steps

    def run(self) -> None:
        self.begun = True
        if self._instance is not None:
            for step in self._steps:
                self._instance.run_marked(step)
        self.done.set()

    def failed(self, error: BaseException) -> None:
        logger.error("the last steps failed: %s", error)
        self.done.set()


def _take_over_stdin() -> BinaryIO:
    """The pipe from the launcher, moved aside so that user code that reads standard input finds it empty."""
    lifeline = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def _leave_terminal_signals_to_launcher() -> None:
    """Ctrl-C in the terminal is for the main program, which shuts everything down in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_whole_lines() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _become(settings: InstanceSettings) -> None:
    """Take on the launcher's import path and environment, and the instance's name in the log."""
    for name, value in settings.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    sys.path[:] = settings.import_path
    install_instance_console(settings.name)


def _told(error: BaseException) -> str:
    """What the launcher shows: for a mistake in the configuration one sentence, else the user's own traceback."""
    if isinstance(error, (ConfigError, InvalidName, MarkError)):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.format_exception(type(error), error, user_traceback(error)))
