"""One session in the foreground, from its start to its end: what `ether run` and `ether instance` share.

The trap: an instance that has ended may be about to be restarted. So the session counts as over only when two looks in
a row find every instance ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ether.cli.exits import Exit, sentence_of
from ether.cli.lab.startup import startup_for
from ether.cli.lab.stop_requests import StopRequests
from ether.cli.lab.watch import Watch
from ether.cli.options import Where
from ether.cli.output import remark, to_json
from ether.config import changed, digest_of
from ether.errors import LifecycleFailed, NameTaken, SessionRuns
from ether.launch.reload.source_files import SourceFiles
from ether.session.discovery.local_sessions import SessionRecord, read_records

if TYPE_CHECKING:
    from ether import Ether
    from ether.config import EtherConfig

_LOOK_S = 0.5
"""The interval between two looks whether all instances have ended."""

_OVER = ("stopped", "failed", "lost", "error")


def make_importable(path: str) -> None:
    """Put the folder of the configuration and the current folder on `sys.path`: the classes lie in one of them."""
    places = dict.fromkeys([str(Path(path).resolve().parent), os.getcwd()])
    sys.path[:0] = [place for place in places if place not in sys.path]


def running_record(config: EtherConfig, where: Where) -> SessionRecord | None:
    """The record of the session that is meant, where that runs on this machine."""
    name = where.session or config.session or os.environ.get("ETHER_SESSION")
    return next((record for record in read_records(os.environ) if record.session == name), None)


def refuse_running(config: EtherConfig, where: Where, *, sim: bool) -> None:
    """Raise `SessionRuns` where this very configuration was started on this machine, and runs."""
    record = running_record(config, where)
    given = {} if where.broker is None else {"broker": where.broker}
    digest = digest_of(changed(config, **given) if given else config) + ("-sim" if sim else "")
    if record is not None and record.configuration == digest:
        raise SessionRuns(record.session, record.host, record.pid)


class ForegroundEvents:
    """What `--json` writes: one event a line. A reader that has gone away is no error."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def say(self, event: str, **facts: Any) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(to_json({"event": event, **facts})) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # `ether up -d` reads the first event and returns


@contextlib.contextmanager
def events_to_stdout(as_json: bool) -> Iterator[ForegroundEvents]:
    if not as_json:
        yield ForegroundEvents(None)
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield ForegroundEvents(sys.__stdout__)


class Foreground:
    """One session, from its start to its end."""

    def __init__(
        self, ether: Ether, config: EtherConfig, events: ForegroundEvents, *, sim: bool = False, join: bool = False
    ) -> None:
        """`join`: only a session that runs already is joined."""
        self._ether, self._sim, self._join = ether, sim, join
        self._config = config
        self._events = events
        self._names = [name for name, each in config.named_instances().items() if each.autorun]
        self.on_ready: list[Callable[[], object]] = []
        self.on_stop: list[Callable[[], object]] = []

    def run(self, where: Where, timeout_s: float, *, start: bool, lasts_s: float | None = None) -> int:
        """`lasts_s`: the session ends by itself, in order, so many seconds after it was ready."""
        with StopRequests() as requests:
            self._start(where, timeout_s)
            requests.collect()
            self._ether.on_shutdown_asked(requests.ask)
            self._say_ready()
            for begin in self.on_ready:
                begin()
            if start:
                self._ether.start()
            code = self._wait(requests, lasts_s)
            for stop in self.on_stop:
                stop()
            requests.interrupt()
            return self._stop(code)

    def watch(self, configuration: Path) -> None:
        """Give the instances their new code when a file that they are made of is saved."""
        own = {name: each for name, each in self._config.named_instances().items() if name in self._names}
        here = {name: each for name, each in own.items() if each.host is None}
        for name in own.keys() - here.keys():
            remark(f"{name} runs on {own[name].host}, whose files are not watched")
        watch = Watch(here, SourceFiles(sys.path), self._ether.reload, self._say_changed, configuration)
        self.on_ready.append(watch.start)
        self.on_stop.append(watch.stop)

    def _say_changed(self, name: str, saved: str, why: str, after_s: float) -> None:
        self._events.say("reload", instance=name, files=saved, after_s=round(after_s, 3), error=why)
        remark(f"{saved}: {why}" if why else f"{saved}: {name} has its new code, after {after_s:.2f} s")

    def _start(self, where: Where, timeout_s: float) -> None:
        refuse_running(self._config, where, sim=self._sim)
        try:
            with startup_for(self._names) as startup:
                self._ether.watch_start(startup.take)
                self._ether.tap(
                    self._config, session=where.session, broker=where.broker, sim=self._sim, start=not self._join,
                    timeout_s=timeout_s,
                )  # fmt: skip
        except NameTaken as taken:
            if (record := running_record(self._config, where)) is not None:
                why = f"it has a {taken.name!r} already"
                raise SessionRuns(record.session, record.host, record.pid, why) from taken
            raise

    def _say_ready(self) -> None:
        name = self._ether.session_id
        marked = {"simulated": True} if self._sim else {}
        self._events.say("ready", session=name, pid=os.getpid(), instances=self._names, **marked)
        how = " SIMULATED: no hardware is touched." if self._sim else ""
        remark(f"session {name} is ready.{how} Ctrl-C stops it in order, a second one at once.")

    def _wait(self, requests: StopRequests, lasts_s: float | None) -> Exit:
        """Until the end is asked for, every instance has ended by itself, or the time is over."""
        were_over = False
        ends = None if lasts_s is None else time.monotonic() + lasts_s
        while not requests.wait(_LOOK_S if ends is None else max(0.0, min(_LOOK_S, ends - time.monotonic()))):
            if ends is not None and time.monotonic() >= ends:
                break
            members = {member["name"]: member for member in self._ether.instances()}
            are_over = bool(self._names) and all(_is_over(members.get(name)) for name in self._names)
            if are_over and were_over:
                remark("every instance has ended")
                clean = all(members[name]["state"] == "stopped" for name in self._names)
                return Exit.OK if clean else Exit.FAILED
            were_over = are_over
        remark("draining and stopping in order; Ctrl-C stops at once")
        return Exit.OK

    def _stop(self, code: Exit) -> int:
        problems: dict[str, str] = {}
        try:
            self._ether.shutdown()
        except LifecycleFailed as error:
            problems = error.reasons
            remark(f"ether: {sentence_of(error)}")
        except KeyboardInterrupt:
            remark("stopped at once")
            self._events.say("ended", code=Exit.INTERRUPTED, problems={})
            return Exit.INTERRUPTED
        code = Exit.FAILED if problems else code
        self._events.say("ended", code=code, problems=problems)
        return code


def _is_over(member: Mapping[str, Any] | None) -> bool:
    """Whether an instance has ended for good. A supervised one that is `lost` is about to be restarted; one without an
    announcement (None) was removed by a command, which keeps the session running."""
    if member is None or member["state"] not in _OVER:
        return False
    return not (member["state"] == "lost" and member.get("supervised"))
