"""One client's connection: bytes to packets, packets to the exchange, the session's queue back to the socket.

How it works. asyncio reads into our own buffer (`get_buffer`), which saves a copy of each message. `buffer_updated`
then handles every complete packet in the buffer, moves an incomplete rest to the front, and flushes the exchange
once.

    accepted ──CONNECT──> being admitted ──CONNACK──> in a session ──DISCONNECT, error, silence──> over

`_session` is None before the CONNACK and after the end; `_admission` is the task that checks a CONNECT; `_over` is
final.

Promise: a packet above the allowed size is refused before it is collected; a client that is silent for one and a half
keep-alive intervals is disconnected; small packets leave at once (TCP_NODELAY); a malformed packet ends its own
connection only.

The traps: a CONNECT is checked asynchronously, and packets that the client sent right behind it must wait for the
result. `flush` is called while the packets of *other* clients are handled, so it only writes, and never raises.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from broker.core.exchange import ClientSession, Exchange, LastWill
from broker.wire import packets
from broker.wire.packets import MalformedPacket, PublishPacket

CONNECT_WITHIN_S = 10.0
KEEP_ALIVES = 1.5  # a client may be silent for so many keep-alive intervals (MQTT 3.1.1, section 3.1.2.10)
BUFFER_BYTES = 16_384  # per connection; grows for as long as a larger packet arrives
HIGH_WATER_BYTES = 262_144  # asyncio asks for a pause when so much is unsent


@dataclass(frozen=True, slots=True)
class Admission:
    """The result of a CONNECT's check; `code` goes into the CONNACK (0 admits), None closes without one."""

    code: int | None
    client_id: str = ""
    clean: bool = True
    keep_alive_s: int = 0
    will: LastWill | None = None


AdmissionCheck = Callable[[bytes, tuple[str, int]], Awaitable[Admission]]
"""Judges a CONNECT packet that came from this address (host, port)."""


class ClientConnection(asyncio.BufferedProtocol):
    """The protocol object of one accepted socket."""

    def __init__(
        self, exchange: Exchange, check: AdmissionCheck, max_packet_bytes: int, connections: set["ClientConnection"]
    ) -> None:
        self._exchange, self._check, self._max_packet_bytes = exchange, check, max_packet_bytes
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer, self._filled = bytearray(BUFFER_BYTES), 0
        self._limit = packets.LONGEST_CONNECT  # until the client is admitted, nothing larger is collected
        self._session: ClientSession | None = None
        self._admission: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence_limit_s, self._last_read = CONNECT_WITHIN_S, self._loop.time()
        self._paused = self._over = self._warned_dollar = False

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer = self._loop.call_later(self._silence_limit_s, self._check_silence)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._last_read = self._loop.time()
        self._consume()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._admission is not None:
            self._admission.cancel()
        self._finish(with_will=True)

    # -- what the exchange calls

    def flush(self) -> None:
        """Write the session's queue, as far as the socket takes it. `resume_writing` goes on from there."""
        session, transport = self._session, self._transport
        if session is None or transport is None:
            return
        while not self._paused and not transport.is_closing() and (data := session.queue.batch()):
            transport.write(data)

    def end(self, why: str) -> None:
        """Abort the connection, report why, and publish the will. What asyncio has not sent yet is lost."""
        if self._over:
            return
        self._exchange.warn(why)
        self._cut(with_will=True)

    def hang_up(self) -> None:
        """Abort the connection without its will, because the broker stops."""
        self._cut(with_will=False)

    # -- reading

    def _consume(self) -> None:
        """Handle every complete packet of the buffer. A CONNECT stops it: `_admit` calls again when it is judged."""
        at = 0
        try:
            while not self._over and self._admission is None:
                body = self._body_at(at)
                if body is None:
                    break
                start, end = body
                self._handle(at, start, end)
                at = end
        except MalformedPacket as error:
            self.end(f"client {self._name()} sent {error}: it was disconnected")
        self._exchange.flush()
        if not self._over:
            self._keep_rest(at)

    def _body_at(self, at: int) -> tuple[int, int] | None:
        """Where the body of the packet at `at` starts and ends; None until all of it has arrived.

        The first byte is the packet's kind; one to four bytes of length follow, seven bits each, the lowest first.
        The length is checked as soon as it is known, before the body arrives.
        """
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
        """Move the incomplete packet at `at` to the front of the buffer, and fit the buffer's size to it.

        A buffer that one packet fills completely is doubled; the packet's size is within the limit, so the buffer
        stays below about twice the limit. A rest that fits into `BUFFER_BYTES` gives back what a large packet had
        taken.
        """
        rest, room = self._filled - at, len(self._buffer)
        size = 2 * room if rest == room else BUFFER_BYTES if rest < BUFFER_BYTES else room
        if at == 0 and size == room:
            return
        tail = self._buffer[at : self._filled]
        if size != room:
            self._buffer = bytearray(size)
        self._buffer[:rest] = tail
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
        """A PUBLISH whose packet begins at `at` and whose body lies from `start` to `end`.

        Of its first byte, bit 0 is RETAIN, bits 1 and 2 are the QoS, bit 3 is DUP. The body is the topic's length
        (two bytes), the topic, with QoS 1 and 2 the packet id (two bytes), and the payload.
        """
        buffer, qos = self._buffer, first >> 1 & 3
        # Where even the topic's length is missing, `end` is added: that lies behind the body, and the check
        # below refuses it.
        topic_end = start + 2 + (buffer[start] << 8 | buffer[start + 1] if end - start >= 2 else end)
        body = topic_end + (2 if qos else 0)
        if body > end or qos == 3:
            raise MalformedPacket("a PUBLISH that makes no sense")
        topic = bytes(buffer[start + 2 : topic_end])
        if topic[:1] == b"$":
            self._refuse_dollar(topic)
        elif first == 0x30:  # QoS 0, neither RETAIN nor DUP: subscribers get these very bytes
            self._exchange.publish_frame(topic, bytes(buffer[at:end]))
            return
        if qos == 0:
            self._accept(topic, bytes(buffer[body:end]), first)
        else:
            self._accept_numbered(topic, packets.packet_id(bytes(buffer[topic_end:body])), body, end, first)

    def _accept_numbered(self, topic: bytes, packet_id: int, body: int, end: int, first: int) -> None:
        """Deliver a message of QoS 1 or 2, and acknowledge it.

        QoS 2 is delivered on its first arrival. Its packet id is kept until PUBREL, so that a repetition is
        acknowledged again and not delivered again.
        """
        assert self._session is not None
        exactly_once = first & 4
        if not (exactly_once and packet_id in self._session.received):
            self._accept(topic, bytes(self._buffer[body:end]), first)
        if exactly_once:
            self._session.received.add(packet_id)
        kind = packets.PUBREC if exactly_once else packets.PUBACK
        self._exchange.answer(self._session, packets.acknowledgement(kind << 4, packet_id))

    def _accept(self, topic: bytes, payload: bytes, first: int) -> None:
        if topic[:1] != b"$":
            self._exchange.publish(PublishPacket(topic, payload, min(first >> 1 & 3, 1)), bool(first & 1))

    def _refuse_dollar(self, topic: bytes) -> None:
        """A topic that begins with `$` is the broker's: acknowledged, not delivered, reported once a connection."""
        if not self._warned_dollar:
            self._warned_dollar = True
            self._exchange.warn(f"client {self._name()} published to {packets.decoded_topic(topic)!r}: not delivered")

    def _control(self, session: ClientSession, first: int, body: bytes) -> None:
        match first:  # the kind in the upper four bits, and the flags that the standard fixes for it
            case 0x40:  # PUBACK
                session.queue.acknowledged(packets.packet_id(body))
                self.flush()
            case 0x62:  # PUBREL, answered by PUBCOMP
                number = packets.packet_id(body)
                session.received.discard(number)
                self._exchange.answer(session, packets.acknowledgement(0x70, number))
            case 0x82:  # SUBSCRIBE
                self._subscribe(session, body)
            case 0xA2:  # UNSUBSCRIBE, answered by UNSUBACK
                number, filters = packets.unsubscribe(body)
                self._exchange.unsubscribe(session, filters)
                self._exchange.answer(session, packets.acknowledgement(0xB0, number))
            case 0xC0:  # PINGREQ
                self._exchange.answer(session, packets.PINGRESP)
            case 0xE0:  # DISCONNECT; the acknowledgements of the packets before it leave first
                self.flush()
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
        """Start the check of a CONNECT. No byte is read until it is judged; what the buffer holds waits there."""
        if first != packets.CONNECT << 4:
            raise MalformedPacket("something else than CONNECT first")
        if packets.level_of(packet[head:]) != 4:
            # Refused before anything else is decoded: what follows the level has another form in MQTT 5.
            self._refuse(packets.UNSUPPORTED_PROTOCOL)
            return
        assert self._transport is not None
        self._transport.pause_reading()
        self._admission = self._loop.create_task(self._admit(packet))

    async def _admit(self, packet: bytes) -> None:
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername") or ("?", 0)  # a connection that was reset has none
        admission = await self._check(packet, peer[:2])
        self._admission = None
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
        self._silence_limit_s = admission.keep_alive_s * KEEP_ALIVES
        if self._timer is not None:
            self._timer.cancel()
        if self._silence_limit_s:
            self._timer = self._loop.call_later(self._silence_limit_s, self._check_silence)
        self.flush()

    def _refuse(self, answer: bytes) -> None:
        assert self._transport is not None
        if answer:
            self._transport.write(answer)
        self._close()

    # -- leaving

    def _check_silence(self) -> None:
        """End a client that was silent too long; else look again when that could be so at the earliest.

        One timer a connection: a packet only sets `_last_read`, which is cheaper than a new timer for each.
        """
        left_s = self._last_read + self._silence_limit_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_silence)
        elif self._session is None:
            self._cut(with_will=False)
        else:
            self.end(f"client {self._name()} was silent for {self._silence_limit_s:.1f} s: it was disconnected")

    def _finish(self, with_will: bool) -> None:
        """Leave the session. The second call finds none and does nothing, so the will is published once."""
        session, self._session, self._over = self._session, None, True
        if self._timer is not None:
            self._timer.cancel()
        if session is not None:
            self._exchange.close(session, with_will)

    def _cut(self, with_will: bool) -> None:
        """Leave the session and abort the socket."""
        self._finish(with_will)
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        """Close the socket once asyncio has sent what was written."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()

    def _name(self) -> str:
        return repr(self._session.client_id) if self._session is not None else "without a name"
