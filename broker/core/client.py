"""One client, from its first byte to its last: packets are cut out of what arrives and handled. Pure.

For: a connection of any kind (`broker.listeners`) gives what it read to `receive`, and writes what `outlet` holds.
How it works. `receive` handles every complete packet that it was given and keeps the rest. A PUBLISH goes to
`_publish`, everything else to `_control`. Before a CONNECT was admitted there is no session, and nothing but a CONNECT
is allowed.

Promise: a malformed packet, or one that declares more bytes than allowed, ends this client and nothing else, with the
reason code that the standard names. Once `over` is True nothing is received any more, and what `outlet` still holds is
the last to be written.
"""

import os
from typing import NamedTuple, cast

from broker.core.exchange import ClientSession, Exchange
from broker.core.outlet import Outlet
from broker.core.quotas import LONGEST_KEEP_ALIVE_S
from broker.core.timers import Timer
from broker.wire import packets, properties
from broker.wire.codec import Codec, ConnackFacts, level_of
from broker.wire.codec_v5 import V5
from broker.wire.codec_v311 import V311
from broker.wire.message import ApplicationMessage
from broker.wire.packets import MalformedPacket
from broker.wire.property_shapes import Shapes
from broker.wire.requests import ConnectRequest

KEEP_ALIVES = 1.5  # a client may be silent for so many keep-alive intervals (MQTT 3.1.1, section 3.1.2.10)
LARGEST_ANNOUNCED = 268_435_455
"""Some clients take a larger Maximum Packet Size for malformed, though the standard allows it."""
SMALL_READ_BYTES = 16_384
AHEAD = 8
"""A large packet is read into a buffer of its own, which is at most so many times as large as what has arrived of it: a
client has to send what it wants to take memory with."""
ALLOWED_FIRST = frozenset({*range(0x30, 0x36), *range(0x3A, 0x3E), 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0})
"""The first bytes of packets that a client may send once it was let in."""

_PUBACK = 0x40

UNSUPPORTED_V311, UNSUPPORTED_V5 = b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"


class Terms(NamedTuple):
    """What holds for every client: the largest remaining length of a packet, the protocol levels that are spoken."""

    max_packet_bytes: int
    levels: tuple[int, ...]


class ClientProtocol:
    """The protocol of one connection; `peer` is its address for people."""

    def __init__(self, exchange: Exchange, terms: Terms, peer: str) -> None:
        self._exchange, self._terms, self._peer = exchange, terms, peer
        self._codec: Codec = V311
        self.outlet = Outlet(V311)
        self.over = False
        self._session: ClientSession | None = None
        self._chunks: list[bytes | bytearray] = []
        self.large_packet: bytearray | None = None
        """A large packet under way, whose first `_kept_bytes` have arrived, or a part of it."""
        self._kept_bytes = self._needed_bytes = 0
        self._limit = packets.LONGEST_CONNECT
        self._aliases: dict[int, bytes] = {}
        self._shapes: Shapes = {}
        self.acks_at_once = self.acks_in_vain = 0
        self.barred_user = b""
        """Who may not enter through this listener, whatever the password."""
        self.may_hold_acks = True
        """False where the connection writes after each read anyway."""
        self._warned_rights = self._asked = False
        self._certificate_name: str | None = None
        self._silence_s, self._last_read = float(exchange.quotas.connect_within_s), exchange.now
        self._timer: Timer | None = exchange.timers.at(exchange.now + self._silence_s, self._check_silence)

    def identify(self, name: str) -> None:
        """The name in the certificate that the client has shown: it is its user, whatever its CONNECT will say. An
        empty one is let in nowhere."""
        self._certificate_name = name

    # -- bytes

    def receive(self, data: bytes) -> None:
        """Handle what was read from the connection."""
        self._last_read = self._exchange.now
        if self._asked:
            self._wait(data)
            return
        if self.large_packet is not None:
            data = self._fill(data)
        if self.over:
            return
        if self._chunks:
            self._keep(data)
            if self._kept_bytes < self._needed_bytes:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._handle(data)

    def _fill(self, data: bytes) -> bytes:
        """Copy the part that belongs to the large packet under way; the rest."""
        while data and (space := self.space()) is not None:
            taken = min(len(data), len(space))
            space[:taken] = data[:taken]
            self.filled(taken)
            data = data[taken:]
        return data

    def space(self) -> memoryview | None:
        """The buffer for the next bytes, while a large packet is under way; else None."""
        return None if self.large_packet is None else memoryview(self.large_packet)[self._kept_bytes :]

    def filled(self, count: int) -> None:
        """`count` bytes were read into `space()`."""
        self._last_read = self._exchange.now
        self._kept_bytes += count
        packet = self.large_packet
        if packet is None or self._kept_bytes < len(packet):
            return
        if len(packet) < self._needed_bytes:
            self._begin_buffer(packet)
        else:
            self.large_packet = None
            self._handle(cast(bytes, packet))  # from now on nobody writes to it

    def _begin_buffer(self, begun: bytes | bytearray | memoryview) -> None:
        """Go on with a packet whose beginning this is in a larger buffer."""
        self.large_packet = bytearray(min(self._needed_bytes, AHEAD * len(begun)))
        self.large_packet[: len(begun)] = begun

    def _handle(self, data: bytes) -> None:
        """Handle the complete packets, and keep the rest."""
        try:
            at = self._handle_all(data)
        except MalformedPacket as error:
            self.end(error.reason, f"client {self._name()} sent {error}: it was disconnected")
            return
        except IndexError:
            text = "a packet that ends too early"
            self.end(packets.MALFORMED, f"client {self._name()} sent {text}: it was disconnected")
            return
        if at < len(data) and not self.over:
            self._kept_bytes = len(data) - at
            if self._needed_bytes >= SMALL_READ_BYTES and self._kept_bytes * AHEAD >= SMALL_READ_BYTES:
                self._begin_buffer(memoryview(data)[at:])
                return
            self._chunks.append(bytearray(data[at:]))

    def _wait(self, data: bytes) -> None:
        """What arrives before it is known whether this client may enter is kept, and is not much."""
        self._kept_bytes = len(data) + (self._kept_bytes if self._chunks else 0)
        self._chunks.append(data)
        if self._kept_bytes > packets.LONGEST_CONNECT:
            self._finish(with_will=False)

    def _keep(self, data: bytes) -> None:
        """Keep a part of a packet. Small parts are joined, so that single bytes cost no object each."""
        last = self._chunks[-1]
        if len(data) < SMALL_READ_BYTES and isinstance(last, bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data) if len(data) < SMALL_READ_BYTES else data)
        self._kept_bytes += len(data)

    @property
    def limit_bytes(self) -> int:
        """The largest packet that is taken now: small before the client is admitted."""
        return self._limit

    @property
    def wanted_bytes(self) -> int:
        """How much is missing of the packet whose beginning was read; 0 where that is not known."""
        return self._needed_bytes - self._kept_bytes if self._chunks and self._needed_bytes > self._kept_bytes else 0

    def _handle_all(self, data: bytes) -> int:
        """Handle the complete packets; gives where the incomplete one begins. Its length is checked as soon as it is
        known, before the body arrives."""
        at, filled = 0, len(data)
        while at + 2 <= filled and not (self.over or self._asked):
            length, start = data[at + 1], at + 2
            if length > 127 and start < filled and 0 < (more := data[start]) < 128:
                length, start = length & 127 | more << 7, start + 1
            elif length > 127:
                length, shift = length & 127, 7
                while True:
                    if start >= filled:
                        self._needed_bytes = filled - at + 1
                        return at
                    byte = data[start]
                    length |= (byte & 127) << shift
                    start += 1
                    if byte < 128:
                        if not byte:
                            self._codec.check_long_length()
                        break
                    shift += 7
                    if shift > 21:
                        raise MalformedPacket("a packet length of more than four bytes")
            if length > self._limit:
                text = f"a packet of {length} bytes where {self._limit} are allowed"
                raise MalformedPacket(text, packets.PACKET_TOO_LARGE)
            end = start + length
            if end > filled:
                self._check_first(data[at])  # what is wrong already is not waited for
                self._needed_bytes = end - at
                return at
            first, session = data[at], self._session
            if first >> 4 == packets.PUBLISH and session is not None:
                self._publish(session, data, at, start, end)
            elif first == _PUBACK and length == 2 and session and (number := data[start] << 8 | data[start + 1]):
                self._acknowledged(session, first, number, packets.SUCCESS)  # most packets: in line, without a copy
            else:
                self._control(first, bytes(data[start:end]))
            at = end
        self._needed_bytes = 2
        return at

    def _check_first(self, first: int) -> None:
        """Whether a packet may begin so; only `_control` says what is wrong with it."""
        if first not in ALLOWED_FIRST if self._session is not None else first != packets.CONNECT << 4:
            self._control(first, b"")

    # -- messages of the client

    def _publish(self, session: ClientSession, data: bytes, at: int, start: int, end: int) -> None:
        message, packet_id, alias, expiry_s = self._codec.publish(data, at, start, end, self._shapes)
        if alias is not None:
            self._resolve(message_alias=alias, topic=message.topic)
            message.topic = self._aliases[alias]
        exchange = self._exchange
        if expiry_s is not None:
            message.expire_in(expiry_s, exchange.now)
        if not message.qos:
            if exchange.publish(message, session) == packets.NOT_AUTHORIZED:
                self._warn_of_rights(message.topic)
        elif message.qos == 1:
            reason = exchange.publish(message, session)
            if reason == packets.NOT_AUTHORIZED:
                self._warn_of_rights(message.topic)
            self._answer(0x40, packet_id, reason)
        else:
            self._publish_once(session, packet_id, message)

    def _warn_of_rights(self, topic: bytes) -> None:
        """Once a connection: a client of 3.1.1, or at QoS 0, is not told itself."""
        if not self._warned_rights:
            self._warned_rights = True
            self._exchange.warn(f"client {self._name()} published to {topic.decode()!r} without a right: not delivered")

    def _publish_once(self, session: ClientSession, packet_id: int, message: ApplicationMessage) -> None:
        """QoS 2: delivered on its first arrival. Its packet id is kept until PUBREL, so that a repetition is
        acknowledged again and not delivered again."""
        reason = packets.SUCCESS
        if packet_id not in session.received:
            if len(session.received) >= self._exchange.quotas.unreleased:
                text = f"more than {len(session.received)} messages of QoS 2 without releasing one"
                raise MalformedPacket(text, packets.TOO_MANY_UNACKNOWLEDGED)
            reason = self._exchange.publish(message, session)
            if reason < packets.FAILURE or self._codec is V311:
                session.received.add(packet_id)
        self._answer(0x50, packet_id, reason)

    def _resolve(self, message_alias: int, topic: bytes) -> None:
        if not 0 < message_alias <= self._exchange.quotas.aliases:
            raise MalformedPacket(f"the topic alias {message_alias}", packets.INVALID_ALIAS)
        if topic:
            self._aliases[message_alias] = topic
        elif message_alias not in self._aliases:
            raise MalformedPacket(f"the topic alias {message_alias} before its topic", packets.PROTOCOL_ERROR)

    def _answer(self, first: int, packet_id: int, reason: int = 0) -> None:
        self.send(self._codec.answer(first, packet_id, reason))

    def send(self, frame: bytes) -> None:
        """Queue a packet for this client; one that it does not take ends it, because nothing else can be said."""
        if len(frame) > self.outlet.max_packet_bytes:
            text = f"client {self._name()} takes {self.outlet.max_packet_bytes} bytes, and an answer has {len(frame)}"
            self.end(packets.PACKET_TOO_LARGE, f"{text}: it was disconnected")
            return
        self.outlet.send_frame(frame)
        exchange = self._exchange
        may_wait = frame[0] == _PUBACK and self.may_hold_acks
        if not (may_wait and (self in exchange.unflushed or exchange.held_acks.hold(self, exchange.now))):
            exchange.unflushed[self] = None
        if self.outlet.bytes > exchange.quotas.waiting_bytes and len(self.outlet) > 2:
            text = f"client {self._name()} does not read the answers to what it sends: it was disconnected"
            self.end(packets.QUOTA_EXCEEDED, text)

    # -- everything else

    def _control(self, first: int, body: bytes) -> None:
        session = self._session
        if session is None:
            self._connect(first, body)
            return
        codec = self._codec
        match first:  # the kind in the upper four bits, and the flags that the standard fixes for it
            case 0x40 | 0x50 | 0x70:
                self._acknowledged(session, first, *codec.acknowledgement(body))
            case 0x62:  # PUBREL, answered by PUBCOMP
                number, _ = codec.acknowledgement(body)
                known = number in session.received
                session.received.discard(number)
                self._answer(0x70, number, packets.SUCCESS if known else packets.UNKNOWN_PACKET_ID)
            case 0x82:
                request = codec.subscribe(body)
                reasons, due = self._exchange.subscribe(session, request)
                self.send(codec.suback(request.packet_id, reasons))
                self._exchange.send_retained(session, due, request.identifier)
            case 0xA2:
                number, filters = codec.unsubscribe(body)
                self.send(codec.unsuback(number, self._exchange.unsubscribe(session, filters)))
            case 0xC0:
                if body:
                    raise MalformedPacket("a PINGREQ with a body")
                self.send(packets.PINGRESP)
            case 0xE0:
                self._disconnect(session, body)
            case 0x10 | 0xF0:  # a second CONNECT; an AUTH, where no authentication was agreed on
                raise MalformedPacket(f"a packet that starts with {first:#04x}", packets.PROTOCOL_ERROR)
            case _:
                raise MalformedPacket(f"a packet that starts with {first:#04x}")

    def _acknowledged(self, session: ClientSession, first: int, packet_id: int, reason: int) -> None:
        queue, now, failed = session.queue, self._exchange.now, reason >= packets.FAILURE
        waiting = self.outlet.bytes
        if first == _PUBACK:
            queue.acknowledged(packet_id, now)
        elif first == 0x70:
            queue.completed(packet_id, now)
        else:
            known = queue.received(packet_id, failed, now)
            if not failed:
                self._answer(0x62, packet_id, packets.SUCCESS if known else packets.UNKNOWN_PACKET_ID)
        if self.outlet.bytes > waiting:
            self._exchange.unflushed[self] = None

    def _disconnect(self, session: ClientSession, body: bytes) -> None:
        request = self._codec.disconnect(body)
        if request.session_expiry_s is not None:
            if request.session_expiry_s and not session.expiry_s:
                text = "a DISCONNECT that would keep a session which was not to be kept"
                raise MalformedPacket(text, packets.PROTOCOL_ERROR)
            session.expiry_s = request.session_expiry_s
        self._finish(request.with_will)

    # -- entering

    def _connect(self, first: int, body: bytes) -> None:
        if first != packets.CONNECT << 4:
            raise MalformedPacket("something else than CONNECT first", packets.PROTOCOL_ERROR)
        level = level_of(body)
        if level not in self._terms.levels:
            # Refused before anything else is decoded: what follows the level may have another form. Clients of MQTT 5
            # understand the answer of 3.1.1; it says best that this is what there is.
            self.send(UNSUPPORTED_V5 if level > 4 and 5 in self._terms.levels else UNSUPPORTED_V311)
            self._finish(with_will=False)
            return
        self._codec = self.outlet.codec = V5 if level == 5 else V311
        request = self._codec.connect(body)
        if self._certificate_name is not None:
            request = request._replace(username=self._certificate_name.encode(), password=None, by_certificate=True)
        if request.authentication_method is not None:
            self._refuse(packets.BAD_AUTHENTICATION_METHOD)
        elif not request.client_id and not request.clean_start and self._codec is V311:
            self._refuse(packets.INVALID_CLIENT_ID)
        elif self.barred_user and request.username == self.barred_user:
            self._admit(request, packets.BAD_LOGIN)
        else:
            reason = self._exchange.logins.admit(request, lambda reason: self._answered(request, reason))
            if reason is None:
                self._asked = True
            else:
                self._admit(request, reason)

    def _answered(self, request: ConnectRequest, reason: int) -> None:
        """Now it is known whether the client may enter: go on with what has arrived meanwhile."""
        if self.over:
            return
        self._asked = False
        self._admit(request, reason)
        self.receive(b"")

    def _admit(self, request: ConnectRequest, reason: int) -> None:
        """Let the client in, or not: `reason` is what came of its password, before which nothing is looked up."""
        if reason:
            what = "its certificate names nobody who may enter" if request.by_certificate else "wrong user or password"
            self._exchange.warn(f"a client at {self._peer} was refused: {what}")
        elif reason := self._exchange.reason_to_refuse(request.client_id, request):
            why = "the number of sessions" if reason == packets.QUOTA_EXCEEDED else "its rights"
            self._exchange.warn(f"client {request.client_id.decode()!r} at {self._peer} was refused: {why}")
        if reason:
            self._refuse(reason)
        else:
            self._enter(request)

    def _enter(self, request: ConnectRequest) -> None:
        facts = self._connack_facts()
        keep_alive_s = self._keep_alive(request.keep_alive_s, facts)
        client_id = request.client_id
        if not client_id:
            client_id = b"auto-" + os.urandom(12).hex().encode()
            facts[properties.ASSIGNED_CLIENT_ID] = client_id
        if request.wants_response_information:
            facts[properties.RESPONSE_INFORMATION] = b"response/" + os.urandom(12).hex().encode()
        if len(self._codec.connack(False, packets.SUCCESS, facts)) > request.max_packet_bytes:
            facts.pop(properties.RESPONSE_INFORMATION, None)  # the only one that a client can do without
            if len(self._codec.connack(False, packets.SUCCESS, facts)) > request.max_packet_bytes:
                self._exchange.warn(f"client {client_id.decode()!r} was refused: it takes too small packets")
                self._refuse(packets.PACKET_TOO_LARGE)
                return
        self.outlet.limit(request.max_packet_bytes, request.alias_maximum)
        session, present = self._exchange.open(client_id, request, self)
        self._session, self._limit = session, self._terms.max_packet_bytes
        self.send(self._codec.connack(present, packets.SUCCESS, facts))
        self._watch(keep_alive_s * KEEP_ALIVES)
        self._exchange.resume(session, request)

    def _keep_alive(self, asked_s: int, facts: ConnackFacts) -> int:
        """The keep-alive that holds, in seconds. A client of 3.1.1 cannot be told another one than its own."""
        longest_s = self._exchange.quotas.keep_alive_s
        if self._codec is V311 or longest_s == LONGEST_KEEP_ALIVE_S or 0 < asked_s <= longest_s:
            return asked_s
        facts[properties.SERVER_KEEP_ALIVE] = longest_s
        return longest_s

    def _connack_facts(self) -> ConnackFacts:
        facts: ConnackFacts = {
            properties.RECEIVE_MAXIMUM: self._exchange.quotas.unreleased,
            properties.TOPIC_ALIAS_MAXIMUM: self._exchange.quotas.aliases,
        }
        longest = self._terms.max_packet_bytes
        announced = 1 + len(packets.variable_integer(longest)) + longest
        if announced <= LARGEST_ANNOUNCED:
            facts[properties.MAXIMUM_PACKET_SIZE] = announced
        return facts

    def _refuse(self, reason: int) -> None:
        if answer := self._codec.connack(False, reason, {}):
            self.send(answer)
        self._finish(with_will=False)

    # -- leaving

    def end(self, reason: int, why: str) -> None:
        """End the connection and publish the will. The client is told the reason where its version can say it."""
        if self.over:
            return
        self._exchange.warn(why)
        if self._session is None:
            if self._codec is V5:
                self.outlet.send_frame(self._codec.connack(False, reason, {}))
        else:
            if reason == packets.QUOTA_EXCEEDED:
                self.outlet.cut_short()  # what it has not read is what ended it
            # A DISCONNECT may give its reason in words also where the client wants no other problem information.
            farewell = self._codec.disconnection(reason, why)
            if len(farewell) > self.outlet.max_packet_bytes:
                farewell = self._codec.disconnection(reason, "")
            if farewell and len(farewell) <= self.outlet.max_packet_bytes:
                self.outlet.send_frame(farewell)
        self._finish(with_will=True)

    def hang_up(self) -> None:
        """End the connection without its will, because the broker stops."""
        if self._session is not None and (farewell := self._codec.disconnection(packets.SHUTTING_DOWN, "")):
            self.outlet.send_frame(farewell)
        self._finish(with_will=False)

    def lost(self, why: str = "") -> None:
        """The connection is gone; `why` is a warning for people, where there is one."""
        if why and not self.over:
            self._exchange.warn(f"client {self._name()} at {self._peer} was disconnected: {why}")
        self.outlet.drop_all()
        self._finish(with_will=True)

    def _finish(self, with_will: bool) -> None:
        """Leave the session. The second call finds none and does nothing, so the will is published once."""
        session, self._session, self.over = self._session, None, True
        self._chunks.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._exchange.unflushed[self] = None
        if session is not None:
            self._exchange.close(session, with_will)

    def _watch(self, silence_s: float) -> None:
        """From now on the client may be silent for so long; 0 is for ever."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._silence_s = silence_s
        if silence_s:
            self._timer = self._exchange.timers.at(self._exchange.now + silence_s, self._check_silence)

    def _check_silence(self) -> None:
        """End a client that was silent too long; else look again when that could be so at the earliest.

        One timer a client: a packet only sets `_last_read`, which is cheaper than a new timer for each. Before the
        CONNECT it is not bytes that count but the time: a client that sends single bytes is ended, too.
        """
        entered = self._session is not None
        due = self._last_read + self._silence_s
        if entered and due > self._exchange.now:
            self._timer = self._exchange.timers.at(due, self._check_silence)
        elif entered:
            text = f"client {self._name()} was silent for {self._silence_s:.1f} s: it was disconnected"
            self.end(packets.SILENT, text)
        else:
            self._finish(with_will=False)

    def _name(self) -> str:
        return repr(self._session.client_id.decode()) if self._session is not None else "without a name"
