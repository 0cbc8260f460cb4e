"""Pipelines inside trials: a chain of four hops, a net with fan-out and fan-in, sources that run by themselves, and
handlers that go on in threads, tasks and executors."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from patience import patience

from ether import ether, ether_every, ether_get, ether_init, ether_pub, ether_save, ether_start, ether_sub

_WAITS = threading.Event()
"""Never set."""


def pause(seconds: float) -> None:
    """As work that takes so long."""
    if seconds > 0:
        _WAITS.wait(seconds)


class One:
    @ether_sub(topic="a")
    @ether_pub(topic="b")
    def one(self, x: int) -> dict[str, int]:
        return {"x": x}


class Two:
    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    @ether_sub(topic="b")
    @ether_pub(topic="c")
    def two(self, x: int) -> dict[str, int]:
        pause(self.seconds)
        return {"x": x}


class Three:
    @ether_sub(topic="c")
    @ether_pub(topic="d")
    def three(self, x: int) -> dict[str, int]:
        return {"x": x}


class Gen:
    """go → value."""

    @ether_sub(topic="go")
    @ether_pub(topic="value")
    def gen(self, x: int) -> dict[str, int]:
        return {"x": x}


class Sq:
    """value → square."""

    @ether_sub(topic="value")
    @ether_pub(topic="square")
    def sq(self, x: int) -> dict[str, int]:
        return {"x": x, "square": x * x}


# -- a net: a → (left, right) → met → (twice at a time) → far → end


class Net:
    """One part of the net; every handler takes 0 to `most_s` seconds."""

    def __init__(self, most_s: float = 0.0, seed: int = 0) -> None:
        self.most_s, self.chance = most_s, random.Random(seed)

    def work(self, x: int) -> dict[str, int]:
        pause(self.chance.uniform(0, self.most_s))
        return {"x": x}


class Left(Net):
    @ether_sub(topic="a")
    @ether_pub(topic="met")
    def left(self, x: int) -> dict[str, int]:
        return self.work(x)


class Right(Net):
    @ether_sub(topic="a")
    @ether_pub(topic="met")
    @ether_pub(topic="aside")
    def right(self, x: int) -> dict[str, int]:
        return self.work(x)


class Met(Net):
    @ether_sub(topic="met")
    def met(self, x: int) -> None:
        ether.pub(self.work(x), topic="far")
        ether.record({"x": x}, name="note")

    @ether_get(concurrency=2)
    @ether_pub(topic="asked")
    def ask(self, x: int) -> dict[str, int]:
        return self.work(x)


class Far(Net):
    @ether_sub(topic="far")
    @ether_pub(topic="end")
    def far(self, x: int) -> dict[str, int]:
        answer = ether.get("met", "ask", {"x": x})
        ether.record({"x": x}, name="after")
        return {"x": int(answer["x"])}


class End(Net):
    @ether_sub(topic="end")
    @ether_pub(topic="done")
    def end(self, x: int) -> dict[str, int]:
        return self.work(x)

    @ether_get
    def die(self) -> None:
        os._exit(3)


NET = {"left": "Left", "right": "Right", "met": "Met", "far": "Far", "end": "End"}
PER_TRIAL = {"a": 1, "met": 2, "aside": 1, "far": 2, "note": 2, "asked": 2, "after": 2, "end": 2, "done": 2}
"""How many values the net makes of one message on `a`, by topic."""


class Free:
    """Runs by itself: a schedule, and a thread of its own."""

    def __init__(self) -> None:
        self.over = threading.Event()

    @ether_init
    def begin(self) -> None:
        threading.Thread(target=self.flow, daemon=True).start()

    def flow(self) -> None:
        while not self.over.wait(0.02):
            ether.pub({"own": True}, topic="thread")

    @ether_every("50Hz")
    @ether_pub(topic="tick")
    def tick(self) -> dict[str, bool]:
        return {"own": True}


class Follower:
    """Is fed by what runs by itself."""

    @ether_sub(topic="tick")
    @ether_pub(topic="followed")
    def follow(self, own: bool) -> dict[str, bool]:
        return {"own": own}


# -- handlers that go on elsewhere


class Threads:
    """Records from threads that a handler starts: a plain one, a timer, a subclass, one started by such a one, and jobs
    of a pool that lives as long as the object."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    @ether_sub(topic="go")
    def go(self, x: int) -> None:
        threading.Thread(target=self.later, args=("plain", x)).start()
        threading.Timer(0.05, self.later, ("timer", x)).start()
        _Own(self, x).start()
        self.pool.submit(self.later, "pool", x)
        done = [threading.Thread(target=self.later, args=("joined", x))]
        for thread in done:
            thread.start()
        for thread in done:
            thread.join()

    def later(self, name: str, x: int) -> None:
        pause(0.05)
        ether.record({"x": x}, name=name)
        ether.pub({"x": x}, topic="sent")
        if name == "plain":
            threading.Thread(target=self.later, args=("inner", x)).start()

    @ether_sub(topic="sent")
    @ether_pub(topic="heard")
    def hear(self, x: int) -> dict[str, int]:
        return {"x": x}


class _Own(threading.Thread):
    """A user's own class of thread."""

    def __init__(self, of: Threads, x: int) -> None:
        super().__init__()
        self.of, self.x = of, x

    def run(self) -> None:
        self.of.later("own", self.x)


class Async:
    """Coroutines: values after an await, in a task, in an executor, in a thread of asyncio."""

    @ether_sub(topic="go")
    @ether_pub(topic="async")
    async def go(self, x: int) -> dict[str, int]:
        await asyncio.sleep(0.01)
        ether.record({"x": x}, name="awaited")
        await asyncio.gather(
            asyncio.create_task(self.task(x)),
            asyncio.get_running_loop().run_in_executor(None, ether.record, {"x": x}, "executor"),
            asyncio.to_thread(ether.record, {"x": x}, "to-thread"),
        )
        answer = await ether.aget("store", "fetch", {"x": x})
        ether.record(answer, name="fetched")
        return {"x": x}

    async def task(self, x: int) -> None:
        await asyncio.sleep(0.02)
        ether.record({"x": x}, name="task")


class Store:
    """Is called by others."""

    @ether_get
    @ether_pub(topic="fetching")
    def fetch(self, x: int) -> dict[str, int]:
        return {"x": x}

    @ether_save
    def put(self, x: int) -> None:
        pause(0.05)
        ether.record({"x": x}, name="stored")

    @ether_get
    def fit(self, x: int, seconds: float) -> dict[str, int]:
        pause(seconds)
        ether.record({"x": x}, name="fit")
        return {"x": x}


class Asker:
    """Calls others, also without a wait for the answer."""

    @ether_sub(topic="go")
    def go(self, x: int) -> None:
        ether.get("store", "fetch", {"x": x})
        ether.record({"x": x}, name="asked")
        ether.get_later("store", "fit", {"x": x, "seconds": 0.1})
        ether.save("store", "put", {"x": x})
        ether.record({"x": x}, name="saved")


class Camera:
    """A trial starts its thread, which streams until it is told to stop."""

    def __init__(self) -> None:
        self.over = threading.Event()

    @ether_get
    def begin(self) -> None:
        threading.Thread(target=self.flow, name="flow", daemon=True).start()

    def flow(self) -> None:
        while not self.over.wait(0.02):
            ether.pub({"frame": True}, topic="frame")

    @ether_get
    def stop(self) -> None:
        self.over.set()


class Endless:
    """A handler that does not return while others wait for it."""

    def __init__(self) -> None:
        self.over = threading.Event()

    @ether_sub(topic="go")
    def never(self, x: int) -> None:
        self.over.wait(patience(60))

    @ether_get(concurrency=2)
    def let_go(self) -> None:
        self.over.set()


class Starter:
    """Starts a stream by `ether.start()`."""

    @ether_start
    def begin(self, **_: Any) -> None:
        ether.record({"begun": True}, name="begun")
