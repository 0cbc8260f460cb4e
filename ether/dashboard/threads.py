"""Waiting beside the event loop, on threads that nobody waits for at the end: a call to an instance may take hours."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


async def beside(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a function that waits, or what it raises. The event loop goes on meanwhile."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(change: Callable[..., object], value: object) -> None:
        if not future.done():
            change(value)

    def run() -> None:
        try:
            found: tuple[Callable[..., object], object] = (future.set_result, function(*arguments))
        except Exception as error:  # noqa: BLE001  it is raised where the result is awaited
            found = (future.set_exception, error)
        with suppress(RuntimeError):  # the page has ended meanwhile
            loop.call_soon_threadsafe(settle, *found)

    threading.Thread(target=run, name="ether-page-waits", daemon=True).start()
    return await future
