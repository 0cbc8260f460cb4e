"""A network of a given length: a TCP proxy on loopback through which every byte takes a fixed time, in each direction.

Promise: nothing is lost or reordered, and the end of a connection takes as long as its bytes. `far_away` leaves no
thread and no socket.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def far_away(port: int, one_way_s: float) -> Iterator[int]:
    """A port on loopback behind which the one named is `one_way_s` seconds away."""
    loop = asyncio.new_event_loop()
    stop, found = asyncio.Event(), []
    listening = threading.Event()

    async def serve() -> None:
        links: set[asyncio.Task[None]] = set()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            links.add(task)
            with suppress(OSError, asyncio.CancelledError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_carry(reader, far_writer, one_way_s), _carry(far_reader, writer, one_way_s))
            links.discard(task)

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        found.append(server.sockets[0].getsockname()[1])
        listening.set()
        await stop.wait()
        server.close()
        for task in list(links):
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="far-away")
    thread.start()
    try:
        assert listening.wait(10)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    """Bytes of one direction: read at once, written later."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        data = b"?"
        while data:
            try:
                data = await reader.read(65_536)
            except OSError:
                data = b""
            under_way.put_nowait((loop.time() + one_way_s, data))

    reading = asyncio.ensure_future(read())
    try:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        reading.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await reading
        writer.close()
