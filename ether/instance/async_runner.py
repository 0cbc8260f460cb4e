"""Runs a user's `async def` methods from a worker: an event loop on a thread of its own, made when first needed.

The loop keeps running between messages, so tasks that a handler leaves behind go on. asyncio is imported with the loop:
it takes 3 MB, and few instances have such methods.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class CoroutineRunner:
    """One event loop. `run` blocks the calling worker until the coroutine has finished."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The coroutine's result; raises what it raised."""
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop()).result()

    def close(self) -> None:
        """Cancel the remaining tasks and end the thread. A second call does nothing."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        import asyncio

        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name=f"ether-async-{self._name}", daemon=True
            )
            self._thread.start()
        return self._loop


async def _cancel_all() -> None:
    import asyncio

    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
