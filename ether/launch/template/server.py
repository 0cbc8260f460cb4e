"""The template process: imports what every instance needs, once, and forks instances from itself when it is asked to.

`serve()` returns in each forked process, which goes on as an instance's process does that was started by itself
(`ether.__main__`), and in the template process when its launcher has ended. Promises: there is one thread, so nothing
is cut off in the middle; a fork that the system refuses is an answer, and the next request is taken; the end of each
instance is told with its exit code.

The trap: whatever is imported or made here is in every instance. Values that belong to one process, such as its id or
random numbers, must not be made before the fork.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import select
import signal
import socket
import sys
import sysconfig
from collections.abc import Collection, Sequence
from contextlib import suppress

from ether.launch.template.birth import become_instance, check_memory
from ether.launch.template.preload import children, import_and_look, threads_left
from ether.launch.template.protocol import FILES, Message, receive, send
from ether.log import LibrariesFromWarning

Sources = dict[str, tuple[int, int] | None]
"""Source files, each with the time of its last change and its size."""

NEEDED = (
    "ether",
    "ether.launch.child_main",
    "ether.transport.connection",
    "ether.transport.mqtt",
    "ether.calls.durable",
    "ether.calls.durable_server_journal",
    "ether.system.processes",
    "encodings.ascii",
    "psutil",
    "pydantic",
)
"""What instances load sooner or later, most of them."""


def serve() -> bool:
    """Fork instances until the launcher ends. True in each forked process, False in this one at its end."""
    gc.disable()  # what it frees are holes that instances would fill, each in a copy of the page
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    told = receive(control)
    sources = None if told is None else _ready(control, told[0])
    return sources is not None and _Server(control, sources).run()


def _ready(control: socket.socket, told: Message) -> Sources | None:
    """Import everything, and say that it is done; or say which module is at fault, None for none of those asked for.
    Returns the source files of what was asked for, None where this process is no use."""
    fault, at_fault = _import_needed(), None
    before = frozenset(sys.modules)
    sys.path[:] = told["import_path"]
    for module in told["preload"]:
        fault, at_fault = fault or import_and_look(module), module
        if fault:
            break
    with suppress(OSError):
        if fault:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            send(control, {"fault": fault, "module": at_fault})
            return None
        sources = _sources_of(sys.modules.keys() - before)
        gc.freeze()  # the collector of an instance does not write to what it shares with others
        send(control, {"ready": True})
        return sources
    return None


def _sources_of(modules: Collection[str]) -> Sources:
    """How the source files of these modules are now; of installed packages none, which nobody edits."""
    if not modules:
        return {}
    places = sysconfig.get_paths()
    installed = tuple(os.path.join(places[key], "") for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    files = {str(getattr(sys.modules.get(name), "__file__", None) or "") for name in modules}
    return {file: _state_of(file) for file in files if file.endswith(".py") and not file.startswith(installed)}


def _state_of(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _import_needed() -> str | None:
    try:
        check_memory()
        os.close(os.pidfd_open(os.getpid()))
        for module in NEEDED:
            importlib.import_module(module)
        LibrariesFromWarning()  # looks for the folders of libraries, which are the same for all
    except (OSError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    threads = threads_left()
    return f"{threads} other threads run in a new Python of this environment" if threads else None


class _Server:
    """The template process at work."""

    def __init__(self, control: socket.socket, sources: Sources) -> None:
        self._control, self._sources = control, sources
        self._children: set[int] = set()
        self._woken, waker = os.pipe()
        self._waker = waker
        os.set_blocking(waker, False)
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def run(self) -> bool:
        """As `serve`."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            for number, _ in poll.poll():
                if number == self._woken:
                    self._tell_ends()
                elif (request := receive(self._control)) is None:
                    return False
                elif self._fork(*request):
                    return True

    def _tell_ends(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                pid, status = ended
                if pid in self._children:
                    self._children.discard(pid)
                    self._answer({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _answer(self, message: Message, files: Sequence[int] = ()) -> None:
        with suppress(OSError):  # the launcher has ended: the next look at the socket says so
            send(self._control, message, files)

    def _fork(self, request: Message, files: list[int]) -> bool:
        """Fork one instance; True in the forked process. An instance must not run what its source was before an edit:
        it would be recorded as made by the source that is there now."""
        if changed := next((path for path, state in self._sources.items() if _state_of(path) != state), None):
            self._answer({"changed": changed})
            for file in files:
                os.close(file)
            return False
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()  # or the instance would write that, too
        try:
            if len(files) < FILES:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # the system keeps back what finds no room
            pid = os.fork()
        except OSError as error:
            self._answer({"error": [error.errno, error.strerror]})
            pid = -1
        if pid == 0:
            of_template = (self._woken, self._waker, self._control.detach())
            gc.enable()
            become_instance(request["name"], request["mark"], files, of_template)
            return True
        for file in files:
            os.close(file)
        if pid > 0:
            self._hand_over(pid)
        return False

    def _hand_over(self, pid: int) -> None:
        with suppress(OSError):
            os.setpgid(pid, pid)  # on both sides, because the launcher may send it a signal before it has run
        try:
            handle = os.pidfd_open(pid)
        except OSError as error:  # no more files can be opened
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._answer({"error": [error.errno, error.strerror]})
            return
        self._children.add(pid)
        self._answer({"pid": pid}, [handle])
        os.close(handle)
