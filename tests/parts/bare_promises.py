"""A broker that keeps no more than MQTT promises, for tests: a proxy on loopback before a real broker.

Each of three habits that real brokers, clusters and bridges have can be switched on:

- `hides_retained`: a retained message comes to a subscription without wildcards only (RabbitMQ).
- `delays_s`: each subscription's messages (with `by_topic`, each topic's) come after a delay of their own, so that no
  order across topics is kept; the order within one topic is (NATS, clusters).
- `strips`: messages pass without their MQTT 5 properties, in both directions (a default bridge of Mosquitto).

Promises: packets are passed whole, in the order of their kind; `close()` leaves no thread and no socket. The trap: the
broker behind it sends no more than its window of unacknowledged messages (20 for a stock Mosquitto), so what waits for
its delay holds up the rest, as it would there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lossy_proxy import split_packets
from patience import patience

from ether.wire.topics import matches

_READ_BYTES = 65_536
_CONNECT, _PUBLISH, _SUBSCRIBE, _UNSUBSCRIBE = 1, 3, 8, 10
_V5 = 5


@dataclass(frozen=True, slots=True)
class Habits:
    """What the proxy does. `delays_s`: from and to; each subscription or topic gets its delay by chance, by `seed`."""

    hides_retained: bool = False
    delays_s: tuple[float, float] | None = None
    by_topic: bool = False
    strips: bool = False
    seed: int = 1


@dataclass(frozen=True, slots=True)
class _Publish:
    """A PUBLISH, taken apart."""

    first: int
    topic: str
    packet_id: bytes
    payload: bytes
    properties: bytes

    @property
    def retained(self) -> bool:
        return bool(self.first & 1)

    def packed(self, level: int, *, strips: bool) -> bytes:
        name = self.topic.encode()
        properties = b"" if strips else self.properties
        section = _length(len(properties)) + properties if level == _V5 else b""
        body = struct.pack("!H", len(name)) + name + self.packet_id + section + self.payload
        return bytes([self.first]) + _length(len(body)) + body


def _length(number: int) -> bytes:
    packed = b""
    while True:
        number, low = divmod(number, 128)
        packed += bytes([low | (0x80 if number else 0)])
        if not number:
            return packed


def _number(packet: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer, and where it ends."""
    value = shift = 0
    while True:
        value |= (packet[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not packet[at - 1] & 0x80:
            return value, at


def _text(packet: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(packet[at : at + 2], "big")
    return packet[at + 2 : end].decode(), end


def _read_publish(packet: bytes, level: int) -> _Publish:
    topic, at = _text(packet, _number(packet, 1)[1])
    id_end = at + 2 if packet[0] & 0x06 else at
    packet_id, properties, at = packet[at:id_end], b"", id_end
    if level == _V5:
        size, start = _number(packet, at)
        properties, at = packet[start : start + size], start + size
    return _Publish(packet[0], topic, packet_id, packet[at:], properties)


class _Session:
    """One client's connection, and the one to the broker that is made for it."""

    def __init__(self, habits: Habits, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self._habits, self._client, self._broker = habits, client, broker
        self._level = 0
        self.client_id = ""
        self._filters: dict[str, None] = {}
        self._queues: dict[str, asyncio.Queue[tuple[float, bytes]]] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def pass_on(self, reader: asyncio.StreamReader, *, to_broker: bool) -> None:
        received = bytearray()
        while data := await reader.read(_READ_BYTES):
            received += data
            for packet in split_packets(received):
                self._to_broker(packet) if to_broker else self._to_client(packet)
            await (self._broker if to_broker else self._client).drain()

    def _to_broker(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == _CONNECT:
            at = _text(packet, _number(packet, 1)[1])[1]
            self._level, at = packet[at], at + 4
            if self._level == _V5:
                size, at = _number(packet, at)
                at += size
            self.client_id = _text(packet, at)[0]
        elif kind in (_SUBSCRIBE, _UNSUBSCRIBE):
            self._note_filters(packet, subscribes=kind == _SUBSCRIBE)
        elif kind == _PUBLISH and self._habits.strips:
            packet = _read_publish(packet, self._level).packed(self._level, strips=True)
        self._broker.write(packet)

    def _note_filters(self, packet: bytes, *, subscribes: bool) -> None:
        at = _number(packet, 1)[1] + 2
        if self._level == _V5:
            size, at = _number(packet, at)
            at += size
        while at < len(packet):
            topic_filter, at = _text(packet, at)
            if subscribes:
                self._filters[topic_filter] = None
                at += 1
            else:
                self._filters.pop(topic_filter, None)

    def _to_client(self, packet: bytes) -> None:
        if packet[0] >> 4 != _PUBLISH:
            self._client.write(packet)
            return
        message = _read_publish(packet, self._level)
        if self._habits.hides_retained and message.retained and message.topic not in self._filters:
            if message.packet_id:
                self._broker.write(b"\x40\x02" + message.packet_id)
            return
        packed = message.packed(self._level, strips=self._habits.strips)
        if self._habits.delays_s is None:
            self._client.write(packed)
        else:
            self._queue(message.topic, packed, self._habits.delays_s)

    def _queue(self, topic: str, packed: bytes, delays_s: tuple[float, float]) -> None:
        covering = [name for name in self._filters if matches(name, topic)]
        exact = topic if topic in self._filters else None
        key = topic if self._habits.by_topic else exact or next(iter(covering), topic)
        if key not in self._queues:
            self._queues[key] = asyncio.Queue()
            self.tasks.append(asyncio.get_running_loop().create_task(self._deliver(self._queues[key])))
        # One delay for each key, the same in every run. So one subscription is always behind another.
        chance = random.Random(f"{self._habits.seed} {key}")
        due = asyncio.get_running_loop().time() + chance.uniform(*delays_s)
        self._queues[key].put_nowait((due, packed))

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, packed = await queue.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            self._client.write(packed)

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in (self._client, self._broker):
            writer.close()


class BarePromises:
    """The proxy, from its construction until `close()`; a context manager."""

    def __init__(self, port: int, habits: Habits) -> None:
        """`port` is the broker's, on loopback."""
        self.port = 0
        self._upstream, self._habits = port, habits
        self._loop = asyncio.new_event_loop()
        self._sessions: dict[asyncio.Task[None], _Session | None] = {}
        self._thread = threading.Thread(target=self._run, name="bare-promises", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """For `broker=`."""
        return f"mqtt://127.0.0.1:{self.port}"

    def cut(self, client: str) -> int:
        """End the connections of clients whose id begins so; how many there were."""
        cut: int = self._do(self._cut(client))
        return cut

    def clients(self) -> list[str]:
        """The ids of the clients that are connected now."""
        return [session.client_id for session in list(self._sessions.values()) if session is not None]

    def close(self) -> None:
        """End all connections."""
        if self._thread.is_alive():
            self._do(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(patience(5))
            self._loop.close()

    def __enter__(self) -> BarePromises:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience(5))

    async def _cut(self, client: str) -> int:
        chosen = [task for task, session in self._sessions.items() if session and session.client_id.startswith(client)]
        for task in chosen:
            task.cancel()
        return len(chosen)

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._sessions):
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports are freed in the next turn of the loop

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = None
        try:
            await self._serve(task, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._sessions[task]

    async def _serve(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        session = self._sessions[task] = _Session(self._habits, writer, to_broker)
        ways = [
            asyncio.ensure_future(session.pass_on(reader, to_broker=True)),
            asyncio.ensure_future(session.pass_on(from_broker, to_broker=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            session.close()
            with contextlib.suppress(OSError):
                await asyncio.gather(writer.wait_closed(), to_broker.wait_closed(), return_exceptions=True)
