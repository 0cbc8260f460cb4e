"""Runs a user's `async def` methods from a worker: an event loop on a thread of its own, made when first needed.

The loop keeps running between messages, so tasks that a handler leaves behind go on. asyncio is imported with the loop:
it takes 3 MB, and few instances have such methods.

Promise: the loop outlives what runs on it. asyncio ends its loop at `sys.exit()` and `KeyboardInterrupt` in a task, and
at `loop.stop()`, which scripts use to end themselves. Here others wait for the same loop: the exception goes to whoever
called the method, and the loop goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from ether.connection import fork_guard as forks
from ether.log import get_ether_logger

if TYPE_CHECKING:
    import asyncio

logger = get_ether_logger("Ether")

_CLOSE_S = 1.0
"""For the tasks that are left to take their cancellation, and for the loop's thread to end. A task that does not yield
holds up the loop for ever."""


class CoroutineRunner:
    """One event loop. `run` blocks the calling worker until the coroutine has finished."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result; raises what it raised. Where the waiting thread is interrupted, the coroutine is
        cancelled."""
        import asyncio

        future = asyncio.run_coroutine_threadsafe(_carried(coroutine), self._running_loop())
        try:
            outcome = future.result()
        except BaseException:
            future.cancel()  # nothing where the exception is the coroutine's own
            raise
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome

    def run_each(
        self,
        stream: Generator[Any, Any, Any] | AsyncGenerator[Any, Any],
        take: Callable[[Any], object],
        stopped: threading.Event,
    ) -> None:
        """Run through a generator, an asynchronous one on the loop; each value is taken on the calling thread. Ends at
        the next value when it is `stopped`."""
        if isinstance(stream, Generator):
            with contextlib.closing(stream):
                for value in stream:
                    if stopped.is_set():
                        return
                    take(value)
            return
        try:
            while not stopped.is_set():
                try:
                    value = self.run(_next_of(stream))
                except StopAsyncIteration:
                    return
                take(value)
        finally:
            self.run(stream.aclose())

    def close(self) -> None:
        """Cancel the remaining tasks and end the thread; waits `_CLOSE_S` for each. A second call does nothing."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        import asyncio

        cancelled = asyncio.run_coroutine_threadsafe(_cancel_all(), loop)
        try:
            cancelled.result(_CLOSE_S)
        except TimeoutError:
            logger.warning("%s: a task of its event loop does not end", self._name)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            loop.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._keep_running, args=(self._loop,), name=f"ether-async-{self._name}", daemon=True
            )
            self._thread.start()
        return self._loop

    def _keep_running(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread of the loop. It runs until `close`, whatever ends the loop before."""
        while True:
            forked = forks.times
            try:
                loop.run_forever()
            except BaseException as error:  # of a task that a method has left behind
                if forks.times != forked:
                    forks.end_forked(error)
                logger.exception(
                    "%s: a task has raised an exception that ends event loops; this one goes on", self._name
                )
            else:
                if loop is self._loop:
                    logger.warning("%s: its code has stopped the event loop; it goes on", self._name)
            if loop is not self._loop:
                return


class _Raised:
    """An exception at which asyncio would end the loop, on its way to the waiting thread."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


async def _next_of(stream: AsyncGenerator[Any, Any]) -> Any:
    return await anext(stream)


async def _carried(coroutine: Coroutine[Any, Any, Any]) -> Any:
    forked = forks.times
    try:
        value = await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        if forks.times != forked:
            forks.end_forked(error)
        return _Raised(error)
    except BaseException as error:
        if forks.times != forked:
            forks.end_forked(error)
        raise
    if forks.times != forked:
        forks.end_forked(None)
    return value


async def _cancel_all() -> None:
    import asyncio

    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
