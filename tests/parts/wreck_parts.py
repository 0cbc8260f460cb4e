"""Classes that raise what no method should raise, stop what is not theirs, and start processes; instances import them
by name."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from patience import patience

from ether import ether, ether_get, ether_sub


class PanicException(BaseException):
    """What a panic in a library written in Rust becomes."""


class Unspeakable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise PanicException("no text")


class Analysis:
    """Reproducer I2: a class that works in processes of its own."""

    @ether_get
    def stop_helper(self) -> bool | None:
        helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        helper.start()
        helper.terminate()
        helper.join(patience(10))
        alive = helper.is_alive()
        helper.kill()
        return alive

    @ether_get
    def squares(self, method: str = "fork") -> list[int]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.map(abs, [-1, -2])

    @ether_get
    def fork(self, how: str) -> int:
        """Fork, and leave the child by `how`; returns the child's exit code."""
        child = os.fork()
        if child == 0:
            if how == "exit":
                sys.exit(3)
            if how == "raise":
                raise KeyError("in the child")
            if how == "publish":
                ether.pub(1, topic="from the child")
            return 7
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @ether_get
    async def fork_async(self) -> int:
        child = os.fork()
        if child == 0:
            sys.exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @ether_get
    def connected_of_child(self) -> list[int]:
        """The sockets to the broker that a forked child still has; its parent's are listed before."""
        reader, writer = os.pipe()
        before = _inet_sockets()
        child = os.fork()
        if child == 0:
            os.write(writer, bytes([len(before), len(_inet_sockets() & before)]))
            os._exit(0)
        os.waitpid(child, 0)
        counts = list(os.read(reader, 2))
        os.close(reader)
        os.close(writer)
        return counts

    @ether_get
    def signals_of_child(self) -> list[str]:
        """The handlers that a forked child has for SIGINT and SIGTERM."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            handlers = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]
            os.write(writer, repr([getattr(h, "__name__", str(h)) for h in handlers]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        text = os.read(reader, 1000).decode()
        os.close(reader)
        os.close(writer)
        return [name.strip(" '") for name in text.strip("[]").split(",")]

    @ether_get
    def interrupt(self) -> int:
        """Start a program and end it by SIGINT, as one ends ffmpeg; returns its exit code."""
        program = subprocess.Popen(["sleep", "60"])
        program.send_signal(signal.SIGINT)
        return program.wait(patience(10))


def _inet_sockets() -> set[str]:
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.lexists(link) and os.readlink(link).startswith("socket:")}


class Driver:
    """Reproducer I3, and whatever else an `async` method may do to its loop."""

    @ether_get
    async def check(self) -> None:
        sys.exit("no licence")

    @ether_get
    async def stop_loop(self) -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return "stopped"

    @ether_get
    async def leave_task(self) -> str:
        async def dies() -> None:
            sys.exit("later")

        self.task = asyncio.ensure_future(dies())
        return "left"

    @ether_get
    async def raise_it(self, name: str) -> None:
        raise _error(name)

    @ether_get
    async def ping(self) -> str:
        await asyncio.sleep(0)
        return "pong"


class Fit:
    """Reproducer I5, B7: raises what is asked for, in handlers and in methods that are called."""

    def __init__(self) -> None:
        self.seen = 0

    @ether_sub(topic="data")
    def fit(self, root: str) -> None:
        self.seen += 1
        if root != "good":
            raise _error(root)

    @ether_get
    def raise_it(self, name: str) -> None:
        raise _error(name)

    @ether_get(concurrency=2)
    def raise_beside(self, name: str) -> None:
        raise _error(name)

    @ether_get
    def count(self) -> int:
        return self.seen

    @ether_get
    def alarm(self, file: str) -> None:
        """A signal handler that raises after its method has returned."""

        def late(number: int, frame: Any) -> None:
            Path(file).write_text("raised")
            raise TimeoutError("too late")

        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.05)


ERRORS = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "SystemExit": SystemExit,
    "PanicException": PanicException,
    "CancelledError": asyncio.CancelledError,
    "BaseExceptionGroup": lambda text: BaseExceptionGroup(text, [PanicException("inside")]),
    "Unspeakable": Unspeakable,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "StopIteration": StopIteration,
}


def _error(name: str) -> BaseException:
    return ERRORS[name]("index out of bounds")  # type: ignore[no-any-return,operator]
