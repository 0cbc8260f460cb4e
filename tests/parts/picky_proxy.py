"""A broker that does not take everything: a proxy on loopback that judges each PUBLISH on its way to a real broker.

MQTT 3.1.1 has no way to refuse a message, so brokers of that version close the connection at a packet they do not take
(NATS at 1 MB, AWS IoT at 128 kB, rumqttd at 20 kB), or acknowledge it and drop it. `CUT` and `DROP` do the same. A
number is the reason code of a PUBACK over MQTT 5; over 3.1.1 it means `DROP`.

Promise: nothing of it outlives its block. The trap: it closes a connection while packets before the judged one may
still wait for their acknowledgements, as those brokers do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lossy_proxy import split_packets
from patience import patience

CUT, DROP = "cut", "drop"
_CONNECT, _PUBLISH = 1, 3


@dataclass(frozen=True)
class Published:
    """A PUBLISH on its way to the broker."""

    client: str
    topic: str
    size: int
    """Bytes of the whole packet."""
    body: bytes
    """Properties, if any, and payload."""
    qos: int
    packet_id: bytes


Judge = Callable[[Published], "str | int | None"]
"""`CUT`, `DROP`, or a reason code; None lets the packet pass."""


def takes_at_most(limit: int, otherwise: str | int = CUT) -> Judge:
    """A limit for whole packets."""
    return lambda packet: otherwise if packet.size > limit else None


@dataclass
class PickyProxy:
    """`judge` may be replaced at any time. `only_v311`: it refuses MQTT 5, as brokers of 3.1.1 do."""

    upstream: int
    judge: Judge = lambda packet: None
    only_v311: bool = False
    room: int | None = None
    """So many connections at a time; further ones are closed without a word."""
    port: int = 0
    cuts: list[Published] = field(default_factory=list)
    """What connections were closed at."""
    refused: list[Published] = field(default_factory=list)
    """What got a reason code, or was dropped."""
    connections: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def serve(self, ready: threading.Event, end: asyncio.Event) -> None:
        """Until `end` is set."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        server.close()
        for writer in list(self._writers):
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.room is not None and len(self._writers) >= 2 * self.room:
            writer.close()
            return
        self._writers.add(writer)
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            self._writers.discard(writer)
            writer.close()
            return
        self._writers.add(upstream)
        self.connections += 1
        try:
            await asyncio.gather(
                self._to_broker(reader, writer, upstream), self._to_client(upstream_reader, writer, upstream)
            )
        finally:
            self._writers -= {writer, upstream}

    async def _to_client(
        self, upstream_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await upstream_reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        upstream.close()

    async def _to_broker(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: asyncio.StreamWriter
    ) -> None:
        received, client, version = bytearray(), "", 4
        with suppress(OSError):
            while data := await reader.read(65_536):
                received += data
                for packet in split_packets(received):
                    if packet[0] >> 4 == _CONNECT:
                        client, version = _connect_of(packet)
                        if version == 5 and self.only_v311:
                            writer.write(b"\x20\x02\x00\x01")
                            break
                    fate = self._fate(packet, client, version, writer)
                    if fate == CUT:
                        writer.transport.abort()
                        upstream.close()
                        return
                    if fate is None:
                        upstream.write(packet)
                else:
                    await upstream.drain()
                    continue
                break
        upstream.close()
        writer.close()

    def _fate(self, packet: bytes, client: str, version: int, writer: asyncio.StreamWriter) -> str | int | None:
        if packet[0] >> 4 != _PUBLISH:
            return None
        published = _published_of(packet, client)
        fate = self.judge(published)
        if fate == CUT:
            self.cuts.append(published)
        elif fate is not None:
            self.refused.append(published)
            if published.qos:
                reason = bytes((fate, 0)) if isinstance(fate, int) and version == 5 else b""
                writer.write(bytes((0x40, 2 + len(reason))) + published.packet_id + reason)
        return fate


def _body_of(packet: bytes) -> int:
    at = 1
    while packet[at] >= 0x80:
        at += 1
    return at + 1


def _text_at(packet: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + int.from_bytes(packet[at : at + 2], "big")
    return packet[at + 2 : end].decode("utf-8", "replace"), end


def _connect_of(packet: bytes) -> tuple[str, int]:
    """Client id and version (4 is 3.1.1)."""
    _, at = _text_at(packet, _body_of(packet))
    version, at = packet[at], at + 4
    if version == 5:
        at += packet[at] + 1  # fewer than 128 bytes of properties, as Ether sends them
    return _text_at(packet, at)[0], version


def _published_of(packet: bytes, client: str) -> Published:
    topic, at = _text_at(packet, _body_of(packet))
    qos = packet[0] >> 1 & 3
    packet_id = packet[at : at + 2] if qos else b""
    return Published(client, topic, len(packet), packet[at + len(packet_id) :], qos, packet_id)


@contextmanager
def picky_proxy(upstream: int, judge: Judge = lambda packet: None, *, only_v311: bool = False) -> Iterator[PickyProxy]:
    """A proxy in front of the broker at a port of this machine."""
    proxy = PickyProxy(upstream, judge, only_v311)
    ready, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def main() -> None:
        end = asyncio.Event()
        loops.append((asyncio.get_running_loop(), end))
        await proxy.serve(ready, end)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="picky-proxy", daemon=True)
    thread.start()
    assert ready.wait(patience(5))
    try:
        yield proxy
    finally:
        loop, end = loops[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(patience(5))
        assert not thread.is_alive()
