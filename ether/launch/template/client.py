"""The launcher's side of the template process: starts it, asks it for instances, and puts another in its place.

Promises: whatever becomes of the template, instances are started: where it has died, another one takes its place, and
where that is no use, instances are started as on systems that have no template (`fork` returns None). Instances that
run do not notice the template's death. What a template was started with, it gives to each instance; so where this
program's environment has changed, or the source of a module that was preloaded, another template takes its place, too.

The trap: the template is the lifeline's other end for none of its instances. Their pipes end here, and are sent with
the request, so an instance that was forked and never told of finds its launcher gone, and ends.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from ether.launch.child import Pump, import_path, module_command, start_environment, to_stderr, to_stdout
from ether.launch.process_group import ProcessGroup, close_in_forked_children, forget_lifeline
from ether.launch.template.forked import ForkedProcess
from ether.launch.template.protocol import Message, command_words, placeholder_mark, receive, send
from ether.log import get_ether_logger
from ether.system.descendants import MARK

logger = get_ether_logger("Ether")

_PATIENCE_S = 60.0
"""For the imports of a new template, and for a fork."""
_END_S = 2.0


class TemplateFailed(Exception):
    """This template process is no use; the text says why."""


class SourcesChanged(Exception):
    """A source file of what this template process has imported was edited since then."""


class Template:
    """The template process of one program. Every method may be called from any thread."""

    def __init__(self, group: Callable[[], ProcessGroup], preload: Sequence[str] = ()) -> None:
        """`group` gives the process group in which it lives; `preload` are modules that it imports."""
        self._group = group
        self._preload = list(preload)
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._retired: list[_Running] = []
        self._gave_up = ""
        """Why no template is tried any more; empty where it is."""

    @property
    def usable(self) -> bool:
        """Whether instances are forked, as far as it is known."""
        return not self._gave_up

    def begin(self) -> None:
        """Start the process, where none runs; does not wait until it is ready."""
        with self._lock, suppress(OSError, TemplateFailed):  # `fork` tries again, and says why it cannot be
            self._begun()

    def fork(self, name: str, mark: str) -> ForkedProcess | None:
        """Fork an instance's process; None where there can be no template. `mark` is its mark in the environment, empty
        for that of this program. Raises `OSError` where the system allows no further process."""
        with self._lock:
            for last in (False, True):
                if self._gave_up:
                    return None
                try:
                    return self._forked(name, mark or os.environ.get(MARK, ""))
                except TemplateFailed as error:
                    self._end()
                    if last:
                        self._give_up(str(error))
                    else:
                        logger.debug("the template process of the instances is replaced: %s", error)
        return None

    def close(self) -> None:
        """End the process. Its instances have ended, or end by themselves. Twice is fine."""
        self._gave_up = self._gave_up or "this program has ended"
        if (running := self._running) is not None and not running.is_ready:
            running.kill()  # before the lock, which is held by a start that waits for an import
        with self._lock:
            self._end()
            for retired in self._retired:
                retired.end()

    def _give_up(self, why: str) -> None:
        self._gave_up = why
        logger.warning("instances are started one by one, not forked from a template process: %s", why)

    def _end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None

    def _retire(self) -> None:
        """It lives until its instances have ended; the next one is forked from another."""
        if self._running is not None:
            self._running.retire()
            self._retired.append(self._running)
            self._running = None

    def _forked(self, name: str, mark: str) -> ForkedProcess:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            running = self._begun()
            fault = running.fault_within(deadline - time.monotonic())
            if fault is None:
                try:
                    return running.fork(name, mark, deadline)
                except SourcesChanged:
                    self._retire()
                    continue
            self._end()
            if fault.get("module") is None:
                raise TemplateFailed(fault["fault"])
            logger.warning("preload: %s %s; it is imported in each instance instead", fault["module"], fault["fault"])
            self._preload.remove(fault["module"])

    def _begun(self) -> _Running:
        """The process that runs, ready or not; another one where its environment would be wrong."""
        if self._gave_up:
            raise TemplateFailed(self._gave_up)
        environment = start_environment()
        if self._running is not None and self._running.environment != environment:
            self._retire()
        if self._running is None:
            told = {"preload": self._preload, "import_path": import_path()}
            self._running = _Running(environment, self._group(), told)
        return self._running


class _Running:
    """One template process, from its start to its end."""

    def __init__(self, environment: dict[str, str], group: ProcessGroup, told: Mapping[str, object]) -> None:
        self.environment = environment
        self._children: dict[int, ForkedProcess] = {}
        self._asked: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._ready: Message | None = None
        self._is_ready = threading.Event()
        self._retired = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [*module_command(), *command_words()],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment, **placeholder_mark(group.next_mark())},
                **group.options(),
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        close_in_forked_children(self._control.fileno())
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pumps = [
            Pump(self._process.stdout, to_stdout, "template-stdout"),
            Pump(self._process.stderr, to_stderr, "template-stderr"),
        ]
        with suppress(OSError):
            send(self._control, told)
        self._thread = threading.Thread(target=self._listen, name="ether-template", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it can be asked, or what is at fault."""
        return self._is_ready.is_set()

    def kill(self) -> None:
        """End it now, in the middle of its imports. Who waits for it hears that it has ended. Any thread."""
        self._process.kill()

    def fault_within(self, timeout_s: float) -> Message | None:
        """Wait until the process is ready: None, or what is at fault. Raises `TemplateFailed`."""
        if not self._is_ready.wait(max(0.0, timeout_s)):
            raise TemplateFailed(f"it has not been ready within {_PATIENCE_S:g} s")
        if self._ready is None:
            raise TemplateFailed("its process has ended")
        return self._ready if "fault" in self._ready else None

    def fork(self, name: str, mark: str, deadline: float) -> ForkedProcess:
        """A forked process. Raises `TemplateFailed`, `SourcesChanged`, and `OSError` where the system allows none. For
        one thread."""
        request = _Request()
        self._asked.put(request)
        try:
            send(self._control, {"name": name, "mark": mark}, request.theirs)
        except OSError as error:
            request.close()
            raise TemplateFailed(f"its process has ended ({error.strerror})") from error
        finally:
            request.close_theirs()
        try:
            answer = request.answer.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            answer = None
        except BaseException:  # Ctrl-C: what is forked for this request finds its standard input closed, and ends
            request.close()
            raise
        if isinstance(answer, ForkedProcess):
            return answer
        request.close()
        if answer is None:
            raise TemplateFailed("its process has ended, or hangs")
        raise answer

    def retire(self) -> None:
        """Ask it for nothing more; it ends with the last of its instances, whose ends it tells until then."""
        self._retired = True
        if not self._children:
            self.end()

    def end(self) -> None:
        """End it. How those of its instances have ended that are left is told by nobody."""
        forget_lifeline(self._control.fileno())
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for pump in self._pumps:
            pump.join(_END_S)
        self._control.close()

    def _listen(self) -> None:
        """The thread that hears the process."""
        while (received := receive(self._control)) is not None:
            message, files = received
            if "ended" in message:
                if (child := self._children.pop(message["ended"], None)) is not None:
                    child.tell(message["code"])
                if self._retired and not self._children:
                    break
            elif "pid" in message:
                self._take(self._asked.get(), message["pid"], files)
            elif "changed" in message:
                self._asked.get().answer.put(SourcesChanged(message["changed"]))
            elif "error" in message:
                self._asked.get().answer.put(OSError(*message["error"]))
            else:
                self._ready = message
                self._is_ready.set()
        with suppress(queue.Empty):
            while True:
                self._asked.get_nowait().answer.put(None)
        self._is_ready.set()
        for child in list(self._children.values()):
            child.tell(None)
        if self._retired:
            self.end()

    def _take(self, request: _Request, pid: int, files: Sequence[int]) -> None:
        """A process was forked for this request. The system keeps back its handle where no more files can be opened
        here; without one nothing can be known of the process, which ends when its pipes are closed."""
        if not files:
            request.answer.put(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return
        if request.is_closed:  # nobody waits for it any more
            os.close(files[0])
            return
        child = self._children[pid] = request.process(pid, files[0])
        request.answer.put(child)


class _Request:
    """The pipes of one instance that was asked for."""

    def __init__(self) -> None:
        self.answer: queue.SimpleQueue[ForkedProcess | OSError | SourcesChanged | None] = queue.SimpleQueue()
        """Its own, so that no answer is ever taken for that of another request. None: the template has ended."""
        self.is_closed = False
        self._theirs: list[int] = []
        self._ours: list[IO[bytes]] = []
        try:
            for writes in (True, False, False):
                reader, writer = os.pipe()
                self._theirs.append(reader if writes else writer)
                ours = writer if writes else reader
                self._ours.append(os.fdopen(ours, "wb" if writes else "rb", buffering=-1))
            self._theirs.append(os.open(".", os.O_PATH | os.O_DIRECTORY))
        except BaseException:
            self.close()
            raise

    @property
    def theirs(self) -> list[int]:
        """The files that go with the request."""
        return self._theirs

    def process(self, pid: int, handle: int) -> ForkedProcess:
        """The process that was forked for this request."""
        return ForkedProcess(pid, handle, *self._ours)

    def close_theirs(self) -> None:
        """They have been sent."""
        for file in self._theirs:
            os.close(file)
        self._theirs = []

    def close(self) -> None:
        """There will be no process."""
        self.is_closed = True
        self.close_theirs()
        for stream in self._ours:
            stream.close()


def template_wanted() -> bool:
    """Whether this system and this program's environment let instances be forked."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and os.environ.get("ETHER_TEMPLATE") != "0"
