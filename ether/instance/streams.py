"""Methods that yield: generators are run through by Ether, where without it the caller would.

The trap: a generator does nothing until somebody runs through it. A handler, a tick or a call that returns one is over
only when it has ended. A method of the user's own code that calls a yielding method gets the generator, as ever.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import Any

Stream = Generator[Any, Any, Any] | AsyncGenerator[Any, Any]


STREAMS = (GeneratorType, AsyncGeneratorType)
"""What a method has returned that yields."""


def run_through(stream: Stream, keep: bool, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> list[Any] | None:
    """Run through a generator, an asynchronous one by `run`; returns what it yielded where that is to be kept. Raises
    what the generator raises."""
    kept: list[Any] = []
    if isinstance(stream, AsyncGenerator):
        run(_run_through_async(stream, kept if keep else None))
    elif keep:
        kept.extend(stream)
    else:
        for _ in stream:
            pass
    return kept if keep else None


async def _run_through_async(stream: AsyncGenerator[Any, Any], kept: list[Any] | None) -> None:
    async for value in stream:
        if kept is not None:
            kept.append(value)
