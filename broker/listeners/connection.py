"""One client's connection: bytes to packets, packets to the exchange, the outbox back to the socket.

Promise: nothing larger than allowed is ever collected; a client that is silent for one and a half keep-alives is cut
off; small packets leave at once (TCP_NODELAY); a malformed packet ends this connection and no other.
The traps: a CONNECT is checked asynchronously, and what the client sent right behind it must wait for the verdict. And
`flush` runs inside other clients' packets, so it only ever writes, and never raises.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.core.exchange import ClientSession, Exchange, LastWill
from broker.wire import packets
from broker.wire.packets import MalformedPacket, PublishPacket

CONNECT_WITHIN_S = 10.0
PATIENCE = 1.5  # keep-alives without a sign of life, from the standard
BUFFER_BYTES = 16_384  # per connection; grows for the time of a larger packet
HIGH_WATER_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Admission:
    """What came of a CONNECT: a client that may enter, or the code of its refusal (None: without a word)."""

    code: int | None
    client_id: str = ""
    clean: bool = True
    keep_alive_s: int = 0
    will: LastWill | None = None


Gate = Callable[[bytes, tuple[str, int]], Awaitable[Admission]]


class ClientConnection(asyncio.BufferedProtocol):
    """The protocol object of one accepted socket."""

    def __init__(
        self, exchange: Exchange, gate: Gate, max_packet_bytes: int, everyone: set["ClientConnection"]
    ) -> None:
        self._exchange, self._gate, self._max_packet_bytes = exchange, gate, max_packet_bytes
        self._everyone = everyone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer, self._filled = bytearray(BUFFER_BYTES), 0
        self._limit = packets.LONGEST_CONNECT
        self._session: ClientSession | None = None
        self._admitting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience_s, self._heard_at = CONNECT_WITHIN_S, self._loop.time()
        self._paused = self._over = self._said_dollar = False

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._everyone.add(self)
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        plug = transport.get_extra_info("socket")
        if plug.family in (socket.AF_INET, socket.AF_INET6):
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer = self._loop.call_later(self._patience_s, self._check_patience)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._heard_at = self._loop.time()
        self._consume()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)
        if self._admitting is not None:
            self._admitting.cancel()
        self._finish(with_will=True)

    # -- what the exchange calls

    def flush(self) -> None:
        """Write what the outbox holds, as far as the socket takes it."""
        session, transport = self._session, self._transport
        if session is None or transport is None:
            return
        while not self._paused and not transport.is_closing() and (data := session.outbox.batch()):
            transport.write(data)

    def end(self, why: str) -> None:
        """Cut the connection, say why, and leave the will; at once: what is unsent is lost."""
        if self._over:
            return
        self._exchange.warn(why)
        self._cut(with_will=True)

    def hang_up(self) -> None:
        """The broker stops: no will, nobody is left to read it."""
        self._cut(with_will=False)

    # -- reading

    def _consume(self) -> None:
        at = 0
        try:
            while not self._over and self._admitting is None:
                packet = self._frame_at(at)
                if packet is None:
                    break
                start, end = packet
                self._handle(at, start, end)
                at = end
        except MalformedPacket as error:
            self.end(f"client {self._name()} sent {error}: it was disconnected")
        self._exchange.flush()
        if not self._over:
            self._keep_rest(at)

    def _frame_at(self, at: int) -> tuple[int, int] | None:
        """Where the body of the next packet starts and ends, once all of it is here."""
        buffer, filled, length, shift, start = self._buffer, self._filled, 0, 0, at + 1
        while True:
            if start >= filled:
                return None
            byte = buffer[start]
            length |= (byte & 127) << shift
            start += 1
            if byte < 128:
                break
            shift += 7
            if shift > 21:
                raise MalformedPacket("a packet length of more than four bytes")
        if length > self._limit:
            raise MalformedPacket(f"a packet of {length} bytes where {self._limit} are allowed")
        return (start, start + length) if start + length <= filled else None

    def _keep_rest(self, at: int) -> None:
        """Move the beginning of the next packet to the front; make room for the rest of it, and give room back."""
        rest, room = self._filled - at, len(self._buffer)
        size = 2 * room if rest == room else BUFFER_BYTES if rest < BUFFER_BYTES else room
        if at == 0 and size == room:
            return
        kept = self._buffer[at : self._filled]
        if size != room:
            self._buffer = bytearray(size)
        self._buffer[:rest] = kept
        self._filled = rest

    # -- packets

    def _handle(self, at: int, start: int, end: int) -> None:
        first = self._buffer[at]
        if self._session is None:
            self._connect(first, bytes(self._buffer[at:end]), start - at)
        elif first >> 4 == packets.PUBLISH:
            self._publish(first, at, start, end)
        else:
            self._control(self._session, first, bytes(self._buffer[start:end]))

    def _publish(self, first: int, at: int, start: int, end: int) -> None:
        buffer, qos = self._buffer, first >> 1 & 3
        topic_end = start + 2 + (buffer[start] << 8 | buffer[start + 1] if end - start >= 2 else end)
        body = topic_end + (2 if qos else 0)
        if body > end or qos == 3:
            raise MalformedPacket("a PUBLISH that makes no sense")
        topic = bytes(buffer[start + 2 : topic_end])
        if topic[:1] == b"$":
            self._refuse_dollar(topic)
        elif first == 0x30:
            self._exchange.publish_frame(topic, bytes(buffer[at:end]))
            return
        if qos == 0:
            self._accept(topic, bytes(buffer[body:end]), first)
        else:
            self._accept_numbered(topic, packets.packet_id(bytes(buffer[topic_end:body])), body, end, first)

    def _accept_numbered(self, topic: bytes, packet_id: int, body: int, end: int, first: int) -> None:
        assert self._session is not None
        twice = first & 4  # QoS 2: deliver on the first sight, remember the number until PUBREL
        if not (twice and packet_id in self._session.received):
            self._accept(topic, bytes(self._buffer[body:end]), first)
        if twice:
            self._session.received.add(packet_id)
        kind = packets.PUBREC if twice else packets.PUBACK
        self._exchange.answer(self._session, packets.acknowledgement(kind << 4, packet_id))

    def _accept(self, topic: bytes, payload: bytes, first: int) -> None:
        if topic[:1] != b"$":
            self._exchange.publish(PublishPacket(topic, payload, min(first >> 1 & 3, 1)), bool(first & 1))

    def _refuse_dollar(self, topic: bytes) -> None:
        """`$…` belongs to the broker: acknowledged as the standard allows, delivered to nobody, and said once."""
        if not self._said_dollar:
            self._said_dollar = True
            self._exchange.warn(f"client {self._name()} published to {packets.decoded_topic(topic)!r}: not delivered")

    def _control(self, session: ClientSession, first: int, body: bytes) -> None:
        match first:
            case 0x40:
                session.outbox.acknowledged(packets.packet_id(body))
                self.flush()
            case 0x62:
                number = packets.packet_id(body)
                session.received.discard(number)
                self._exchange.answer(session, packets.acknowledgement(0x70, number))
            case 0x82:
                self._subscribe(session, body)
            case 0xA2:
                number, filters = packets.unsubscribe(body)
                self._exchange.unsubscribe(session, filters)
                self._exchange.answer(session, packets.acknowledgement(0xB0, number))
            case 0xC0:
                self._exchange.answer(session, packets.PINGRESP)
            case 0xE0:
                self.flush()  # acknowledgements of what came just before
                self._finish(with_will=False)
                self._close()
            case _:
                raise MalformedPacket(f"a packet that starts with 0x{first:02x}")

    def _subscribe(self, session: ClientSession, body: bytes) -> None:
        number, filters = packets.subscribe(body)
        codes = self._exchange.subscribe(session, filters)
        self._exchange.answer(session, packets.suback(number, codes))
        self._exchange.send_retained(session, filters)

    # -- entering

    def _connect(self, first: int, packet: bytes, head: int) -> None:
        if first != packets.CONNECT << 4:
            raise MalformedPacket("something else than CONNECT first")
        if packets.level_of(packet[head:]) != 4:
            # Before anything of it is decoded: what follows the level has another form in MQTT 5.
            self._refuse(packets.UNSUPPORTED_PROTOCOL)
            return
        assert self._transport is not None
        self._transport.pause_reading()
        self._admitting = self._loop.create_task(self._admit(packet))

    async def _admit(self, packet: bytes) -> None:
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername") or ("?", 0)  # nothing is left of a connection that was reset
        admission = await self._gate(packet, peer[:2])
        self._admitting = None
        if self._over or self._transport.is_closing():
            return
        if admission.code != 0:
            self._refuse(b"" if admission.code is None else packets.connack(False, admission.code))
            return
        self._enter(admission)
        self._transport.resume_reading()
        self._consume()

    def _enter(self, admission: Admission) -> None:
        assert self._transport is not None
        self._session, present = self._exchange.open(admission.client_id, admission.clean, admission.will, self)
        self._limit = self._max_packet_bytes
        self._transport.write(packets.connack(present, 0))
        self._patience_s = admission.keep_alive_s * PATIENCE
        if self._timer is not None:
            self._timer.cancel()
        if self._patience_s:
            self._timer = self._loop.call_later(self._patience_s, self._check_patience)
        self.flush()

    def _refuse(self, answer: bytes) -> None:
        assert self._transport is not None
        if answer:
            self._transport.write(answer)
        self._close()

    # -- leaving

    def _check_patience(self) -> None:
        left_s = self._heard_at + self._patience_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_patience)
        elif self._session is None:
            self._cut(with_will=False)
        else:
            self.end(f"client {self._name()} was silent for {self._patience_s:.1f} s: it was disconnected")

    def _finish(self, with_will: bool) -> None:
        """Leave the session, once."""
        session, self._session, self._over = self._session, None, True
        if self._timer is not None:
            self._timer.cancel()
        if session is not None:
            self._exchange.close(session, with_will)

    def _cut(self, with_will: bool) -> None:
        self._finish(with_will)
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def _name(self) -> str:
        return repr(self._session.client_id) if self._session is not None else "without a name"
