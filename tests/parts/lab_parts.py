"""Classes for tests of sessions; instances import them by name."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

from ether import ether, ether_cleanup, ether_init, ether_pub, ether_save_all, ether_shutdown, ether_sub


class Echo:
    """Publishes what it is given."""

    @ether_sub(topic="in")
    @ether_pub(topic="out")
    def echo(self, root: Any) -> Any:
        return root


class Typed:
    """Takes an int, and nothing else."""

    @ether_sub(topic="int")
    @ether_pub(topic="doubled")
    def double(self, value: int) -> int:
        return 2 * value

    @ether_sub(topic="fail")
    def fail(self, how: str) -> None:
        if how == "exit":
            sys.exit(3)
        if how == "recursion":
            self.fail(how)
        if how == "unicode":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "wrong \udcff")
        if how == "memory":
            raise MemoryError("too much")
        if how == "silent":
            raise Unspeakable
        if how == "group":
            raise ExceptionGroup("both", [KeyError("a"), ValueError("b")])
        raise ValueError(how)

    @ether_sub(topic="unsendable")
    @ether_pub(topic="never")
    def unsendable(self) -> object:
        return {"images": [0, {"mask": object()}]}


class Unspeakable(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Lifecycle:
    """Says what happens to it."""

    def __init__(self, name: str, fail_in: str = "") -> None:
        self.name = name
        self.fail_in = fail_in

    def _step(self, step: str) -> None:
        print(f"{self.name}: {step} in {threading.current_thread().name}", flush=True)
        if step == self.fail_in:
            raise RuntimeError(f"{step} went wrong")

    @ether_init
    def init(self) -> None:
        self._step("init")

    @ether_save_all
    def save(self) -> None:
        self._step("save_all")

    @ether_cleanup
    def clean(self) -> None:
        self._step("cleanup")

    @ether_shutdown
    def end(self) -> None:
        self._step("shutdown")


class Raising:
    """Cannot be built."""

    def __init__(self) -> None:
        self._open_port()

    def _open_port(self) -> None:
        raise OSError("port COM7 is in use")


class Exiting:
    """Takes its process with it."""

    def __init__(self) -> None:
        print("out of order", file=sys.stderr)
        os._exit(7)


class Slow:
    """Takes its time."""

    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)


class Tapping:
    """Does what an instance must not."""

    def __init__(self) -> None:
        ether.tap()


class Source:
    """Publishes from a thread of its own, from inside a handler and by `ether.pub`."""

    @ether_sub(topic="go")
    def go(self) -> None:
        self.measure(1)
        ether.pub(2, topic="values")
        thread = threading.Thread(target=self.measure, args=(3,))
        thread.start()
        thread.join()

    @ether_pub(topic="values")
    def measure(self, value: int) -> int:
        return value


class Asynchronous:
    """`async def` methods, and a task that outlives its handler."""

    @ether_sub(topic="async")
    @ether_pub(topic="async-done")
    async def work(self, value: int) -> int:
        await asyncio.sleep(0)
        self.task = asyncio.create_task(self.later(value))
        return value + 1

    @ether_pub(topic="later-done")
    async def later(self, value: int) -> int:
        await asyncio.sleep(0.01)
        return value + 2


class Environment:
    """Tells about its process."""

    @ether_sub(topic="where")
    @ether_pub(topic="here")
    def where(self) -> dict[str, Any]:
        return {
            "cwd": os.getcwd(),
            "path": sys.path,
            "PYTHONPATH": os.environ.get("PYTHONPATH"),
            "stdin": sys.stdin.read(),
            "main_thread": threading.current_thread() is threading.main_thread(),
            "argv": sys.argv,
            "cmdline": open("/proc/self/cmdline").read() if os.path.exists("/proc/self/cmdline") else "",
        }


class Busy:
    """Is busy for a while, and saves in the end."""

    @ether_sub(topic="busy")
    def be_busy(self, seconds: float) -> None:
        print("busy", flush=True)
        time.sleep(seconds)

    @ether_save_all
    def save(self) -> None:
        print("saved", flush=True)


class Endless:
    """Causes itself."""

    @ether_sub(topic="round")
    @ether_pub(topic="round")
    def again(self, n: int) -> dict[str, int]:
        return {"n": n + 1}

    @ether_save_all
    def save(self) -> None:
        print("endless saved", flush=True)


class Printer:
    """Prints long lines and short ones."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    @ether_sub(topic="print")
    def say(self, lines: int, length: int) -> None:
        for _ in range(lines):
            print(self.letter * length)
        print("an end without a line break", end="")


class Lingering:
    """Leaves a thread behind that keeps its process from ending."""

    @ether_init
    def begin(self) -> None:
        threading.Thread(target=self.linger_for_ever, daemon=False).start()

    def linger_for_ever(self) -> None:
        threading.Event().wait(600)  # bare: as good as for ever


class Stubborn:
    """Goes on whatever happens."""

    @ether_sub(topic="go")
    def go_on(self, root: int) -> None:
        while True:
            try:
                threading.Event().wait(600)  # bare: as good as for ever
            except Exception:  # as users write it
                continue

    @ether_cleanup
    def clean_up(self) -> None:
        print("cleaned up", flush=True)


class Deaf:
    """Ends by no signal but the last one."""

    @ether_sub(topic="go")
    def go_on(self, root: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGABRT])
        threading.Event().wait(600)  # bare: as good as for ever
