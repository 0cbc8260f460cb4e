"""One connection to a broker, kept by paho, with a shorter way for the frequent packets.

paho remains responsible for CONNECT, CONNACK, SUBSCRIBE, keep-alive and DISCONNECT. This subclass replaces how bytes
move. A packet is written by the thread that has it, under the send queue's lock; the network thread is woken only when
the socket is full. Reads are 64 KiB; all packets in one read are handled together, and PUBLISH and PUBACK never become
paho objects. What that gains, and which private names of paho it relies on: docs/decisions/0005-paho-tuned.md. A test
fails when one of those names vanishes.

The trap: paho's methods may close its socket on the network thread while a publisher is writing. Everything that writes
or closes therefore holds the send queue's lock. Names of this class begin with `wire` where paho could have the same.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from time import monotonic
from typing import Any, Protocol, cast

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ether.errors import BrokerRefuses, BrokerUnreachable, NotAuthorized
from ether.errors.reason_codes import connect_advice_for
from ether.transport.base import Will
from ether.transport.copies import packed_number
from ether.transport.endpoint import Endpoint
from ether.transport.mqtt_versions import PackedProperties, Version
from ether.transport.opening import open_socket
from ether.transport.packets import LARGE_BYTES, MalformedFrame, PacketBatch, PacketReader
from ether.transport.send_queue import LinkDown, Publication, SendQueue
from ether.transport.sockets import ByteStream, Waker, acknowledger_of, wait_on, was_closed
from ether.transport.subscriptions import FilterOptions

READ_BYTES = 65_536  # recv(262144) costs mmap, mremap and munmap for each call
TICK_S = 0.5  # how often keep-alive is looked at
SILENCE_S = 2.0
"""How long the other machine may acknowledge nothing before the connection is given up. TCP alone repeats a lost packet
after 0.2, 0.6, 1.4, 3.0 and 6.2 s: measured after a cut of 3.5 s, the broker's next attempt came 2.7 s after its end. A
new connection takes 1.3 s at most. The value must be below 3.0 - 0.5 s, as a heartbeat is sent every 0.5 s."""

ACK_DELAY_S = 0.001  # how long a few acknowledgements wait for a packet to travel with
PACED_ACK_DELAY_S = 0.05
"""The same for messages that come one by one, `_PACED_S` and more apart: they wait for each other, too. With 1 ms the
network thread woke up twice for each message of a sensor. In a burst nothing waits so long: a broker that has 20
messages under way would be slowed down by the 7 that may wait, and stock ones drop what they cannot send."""
_PACED_S = 0.001
_STALL_S = 0.002  # a message that comes so soon behind acknowledgements may have waited for them
_STALLS = 3  # so many times in a row are no chance
_ACKS_AT_ONCE = 32  # bytes of acknowledgements (8 of them) that do not wait: a broker may allow few messages under way
_CONNACK = 0x20
_UNSUPPORTED_VERSION, _TAKEN_OVER = 0x84, 0x8E
_OLD_UNSUPPORTED_VERSION = b"\x01"  # of CONNACK in the form of 3.1.1
_NOT_AUTHORIZED = {0x86, 0x87, 0x8A, 0x8C}  # bad password, not authorized, banned, bad authentication method

logger = logging.getLogger("Ether.transport")


_NO_MESSAGE_IS_MEANT = {0x88, 0x89, 0x8B, 0x8D, 0x8E, 0x98, 0x9C, 0x9D, 0xA0}
"""The reasons of a DISCONNECT that have nothing to do with what was sent: the server is busy or shuts down, the client
was silent, was taken over, or is to go to another server."""


class ConnectionLost(Exception):
    """The connection is over; `taken_over` where another client connected with the same client id, `cut` where the
    broker has closed it, perhaps because of a message."""

    def __init__(self, reason: str, *, taken_over: bool = False, cut: bool = False) -> None:
        super().__init__(reason)
        self.taken_over, self.cut = taken_over, cut


class VersionRefused(Exception):
    """The broker does not speak this version of MQTT; `silent` where it has closed the connection instead of saying so,
    for this reason or another one."""

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


class Owner(Protocol):
    """Receives what a connection brings, on the network thread."""

    def on_batch(self, batch: PacketBatch) -> None: ...
    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None: ...
    def on_unsuback(self, packet_id: int) -> None: ...


class _NoOwner:
    """The owner of a connection that is being closed: everything that still arrives is ignored."""

    def on_batch(self, batch: PacketBatch) -> None: ...
    def on_suback(self, packet_id: int, reasons: Sequence[int]) -> None: ...
    def on_unsuback(self, packet_id: int) -> None: ...


class MqttWire(Client):
    """One connection: `open`, `pump` until it is lost, `shut`. Never used again after that."""

    def __init__(
        self, endpoint: Endpoint, client_id: str, version: Version, will: Will | None, *,
        send_queue: SendQueue, owner: Owner, waker: Waker,
    ) -> None:  # fmt: skip
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            reconnect_on_failure=False,
            **version.client_arguments,
        )
        self.wire_version = version
        self.wire_window, self.wire_max_packet_bytes, self.wire_numbers = 1, 0, False
        self._wire_endpoint, self._wire_waker = endpoint, waker
        self._wire_send_queue, self._wire_owner = send_queue, owner
        self._wire_lock = send_queue.lock
        self._wire_reader = PacketReader(version.split_properties)
        self._wire_acks = b""
        self._wire_ack_delay_s, self._wire_paced = PACED_ACK_DELAY_S, False
        self._wire_acks_timed, self._wire_stalls = 0.0, 0
        self._wire_thread = 0
        self._wire_backlog: deque[tuple[bytes | memoryview, Publication | None]] = deque()
        self._wire_lost: ConnectionLost | None = None
        self._wire_refused: NotAuthorized | None = None
        self._wire_connack: tuple[ReasonCode, Properties | None] | None = None
        self._wire_stopped: Callable[[], bool] = lambda: False
        self._wire_heard = False
        self._wire_acknowledge_bytes: Callable[[], None] | None = None
        self._wire_deadline = 0.0
        if endpoint.username is not None:
            self.username_pw_set(endpoint.username, endpoint.password)
        if will is not None:
            will_properties = version.will_properties(will.properties)
            self.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=will_properties)
        self.on_connect = self._wire_on_connect
        self.on_subscribe = self._wire_on_subscribe
        self.on_unsubscribe = self._wire_on_unsubscribe
        self.on_disconnect = self._wire_on_disconnect

    # opening

    def open(self, deadline: float, keepalive_s: int, stopped: Callable[[], bool]) -> None:
        """Connect and wait for the CONNACK. Raises `VersionRefused`, `NotAuthorized`, `BrokerUnreachable`, or
        `InterruptedError` once `stopped()`.

        `connect()` is paho's: it opens the socket through `_create_socket_connection` and queues the CONNECT. `pump`
        then moves bytes on this thread until paho has called `_wire_on_connect`. What is left is to translate each way
        to fail. Some older brokers answer the CONNECT of MQTT 5 by closing the connection without a single byte, so
        that case means another version, not an unreachable broker.
        """
        self._wire_deadline, self._wire_stopped = deadline, stopped
        address = self._wire_endpoint.address
        host = self._wire_endpoint.host or self._wire_endpoint.path
        try:
            self.connect(host, self._wire_endpoint.port, keepalive_s, **self.wire_version.connect_arguments())
            self._wire_wait = wait_on(self._wire_socket, self._wire_waker)
            over_tcp = self._wire_endpoint.kind != "unix"
            self._wire_acknowledge_bytes = acknowledger_of(self._wire_socket, over_tcp=over_tcp)
            self.pump(lambda: self._wire_connack is not None or stopped(), deadline)
        except (InterruptedError, NotAuthorized):
            raise
        except TimeoutError:
            raise BrokerUnreachable(address, "no answer in time") from None
        except OSError as error:
            raise BrokerUnreachable(address, error.strerror or str(error)) from error
        except ConnectionLost as error:
            if self._wire_refused is not None:
                raise self._wire_refused from error
            if self._wire_connack is None and not self._wire_heard:
                raise VersionRefused(str(error), silent=True) from error
            if self._wire_connack is None:
                raise BrokerUnreachable(address, str(error)) from error
            self._wire_lost = error  # lost just after the CONNACK: the next pump() raises it
        if stopped():
            raise InterruptedError("closed while connecting")
        self._wire_judge(address)

    def _wire_judge(self, address: str) -> None:
        """Accept the broker's CONNACK, or raise why it refuses."""
        assert self._wire_connack is not None
        reason, properties = self._wire_connack
        if reason.value == _UNSUPPORTED_VERSION:
            raise VersionRefused(f"it does not speak MQTT {self.wire_version.version.value}")
        if reason.value in _NOT_AUTHORIZED:
            raise NotAuthorized(address, str(reason).lower())
        if reason.is_failure:
            raise BrokerRefuses(address, f"it refused the connection: {reason}", connect_advice_for(reason.value))
        for lack, advice in self.wire_version.lacks(properties):
            raise BrokerRefuses(address, lack, advice)
        self.wire_window, self.wire_max_packet_bytes = self.wire_version.limits(properties)
        self.wire_numbers = self.wire_version.takes_numbers(properties)

    @property
    def _wire_socket(self) -> ByteStream:
        if self._sock is None:
            raise ConnectionLost("the socket is closed")
        return cast(ByteStream, self._sock)

    def _create_socket_connection(self) -> Any:  # a `ByteStream` of any kind, which paho treats as plain TCP
        remaining, waker, stopped = self._wire_deadline - monotonic(), self._wire_waker, self._wire_stopped
        return open_socket(self._wire_endpoint, remaining, waker, stopped, give_up_s=min(SILENCE_S, self._keepalive))

    # paho's callbacks

    def _wire_on_connect(
        self, _c: Client, _u: Any, _f: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._wire_connack = reason, properties

    def _wire_on_subscribe(self, _c: Client, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._wire_send_queue.release_id(mid)
        self._wire_owner.on_suback(mid, [reason.value for reason in reasons])

    def _wire_on_unsubscribe(self, _c: Client, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        self._wire_send_queue.release_id(mid)
        self._wire_owner.on_unsuback(mid)

    def _wire_on_disconnect(self, _c: Client, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:
        by_broker = flags.is_disconnect_packet_from_server
        if by_broker and reason.value == _TAKEN_OVER:
            self.fail("another client connected with our id", taken_over=True)
        elif by_broker:
            self.fail(f"the broker said: {reason}", cut=reason.value not in _NO_MESSAGE_IS_MEANT)
        else:
            self.fail("the broker does not answer (keep-alive)" if self._ping_t else str(reason))

    # the network thread

    def pump(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Move bytes until `done()`. Raises `ConnectionLost`, or `TimeoutError` at `deadline` (monotonic seconds).

        The loop waits for the first of four things: bytes to read, room to write (only while something is left over),
        a wake-up by another thread, or the time for keep-alive or acknowledgements. The order of what follows a wait
        matters: publications that publishers left go out first, then acknowledgements that found no packet to travel
        with; reading comes last, because its callbacks may wake other threads, which then compete for the interpreter
        lock.
        """
        next_tick = monotonic()
        self._wire_thread = get_ident()
        while not done():
            if self._wire_lost is not None:
                raise self._wire_lost
            now = monotonic()
            if deadline is not None and now >= deadline:
                raise TimeoutError
            if now >= next_tick:
                next_tick = now + TICK_S
                self.loop_misc()  # paho's keep-alive, which may end the connection
                self._wire_send_queue.look()
                continue
            wait_s = (next_tick if deadline is None else min(next_tick, deadline)) - now
            if self._wire_acks:  # held back by `acknowledge`
                wait_s = min(wait_s, self._wire_ack_delay_s if self._wire_paced else ACK_DELAY_S)
            readable, writable = self._wire_wait.wait(wait_s, writing=bool(self._wire_backlog))
            if self._wire_send_queue.left:
                self._wire_send_queue.send_left()
            if self._wire_acks and not readable:
                after = monotonic()
                self._wire_acks_timed = after if self._wire_paced and after - now >= wait_s else 0.0
                with self._wire_lock:
                    self._wire_send_acks_locked()
            if writable:
                with self._wire_lock:
                    self._wire_flush_locked()
                if self._wire_send_queue.left and not self._wire_backlog:
                    self._wire_send_queue.send_left()
                self._wire_send_queue.run_callbacks()
            if readable:
                self._wire_read()

    def _wire_read(self) -> None:
        """Read once, and deliver every packet that is complete."""
        sock = self._sock
        if sock is None:
            return
        try:
            space = self._wire_reader.space()
            if space is None:
                data = sock.recv(READ_BYTES)
                count = len(data)
                batch = self._wire_reader.feed(data)
            else:
                count = sock.recv_into(space)  # type: ignore[attr-defined]
                batch = self._wire_reader.filled(count)
        except BlockingIOError:
            return
        except MalformedFrame as error:
            raise ConnectionLost(f"the broker sent {error}") from error
        except NotAuthorized:
            raise
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error), cut=was_closed(error)) from error
        if not count:
            raise ConnectionLost("the broker closed the connection", cut=True)
        # What is sent for these packets acknowledges their bytes, too; where nothing is, the broker may wait for that.
        if self._wire_acknowledge_bytes is not None and not batch.to_acknowledge:
            self._wire_acknowledge_bytes()
        self._wire_heard = True
        before, self._last_bytes_received = self._last_bytes_received, monotonic()
        if batch.to_acknowledge:
            alone = len(batch.to_acknowledge) == 1
            self._wire_paced = alone and self._last_bytes_received - before >= _PACED_S
            self._wire_note_stall(self._last_bytes_received - self._wire_acks_timed)
        self._wire_owner.on_batch(batch)
        for first, body in batch.others:
            self._wire_hand_to_paho(first, body)

    def _wire_note_stall(self, after_s: float) -> None:
        """A message came `after_s` seconds after acknowledgements for which there was no packet. A broker that has few
        messages under way, and sends the next one only then, would be slowed down: from now on they hardly wait."""
        if self._wire_acks_timed:
            self._wire_acks_timed = 0.0
            self._wire_stalls = self._wire_stalls + 1 if after_s < _STALL_S else 0
            if self._wire_stalls >= _STALLS:
                self._wire_ack_delay_s = ACK_DELAY_S

    def _wire_hand_to_paho(self, first: int, body: bytes) -> None:
        """Let paho handle a packet other than PUBLISH and PUBACK, in the form in which its own reader leaves one."""
        try:
            if first == _CONNACK:
                body = self.wire_version.readable_connack(body)
                if body[1:2] == _OLD_UNSUPPORTED_VERSION:  # paho has no word for this answer
                    raise VersionRefused(f"it does not speak MQTT {self.wire_version.version.value}")
            packet = self._in_packet
            packet["command"], packet["packet"], packet["remaining_length"] = first, bytearray(body), len(body)
            code = self._packet_handle()
        except (MalformedPacket, MalformedFrame) as error:
            raise ConnectionLost(f"the broker sent a malformed packet: {error}") from error
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.fail(f"protocol error {int(code)}")

    # writing, by any thread

    def _mid_generate(self) -> int:
        return self._wire_send_queue.reserve_id()

    def _packet_queue(self, command: int, packet: bytes | bytearray, *_: Any, **__: Any) -> MQTTErrorCode:
        with self._wire_lock:
            try:
                self.send_locked(bytes(packet))
            except LinkDown:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def acknowledge(self, acks: bytes) -> None:
        """Send acknowledgements; on a lost connection they are void.

        A few of them from the network thread wait (`ACK_DELAY_S`). The network thread has just woken a reader, and
        a write now would keep the interpreter lock from it (50 µs of each call). Often the reader's answer follows at
        once and takes the acknowledgements along.
        """
        with self._wire_lock:
            self._wire_acks += acks
            if get_ident() != self._wire_thread or len(self._wire_acks) >= _ACKS_AT_ONCE:
                self._wire_send_acks_locked()

    def _wire_send_acks_locked(self) -> None:
        try:
            if self._wire_acks:  # a publisher may have taken them along just now
                self.send_locked(b"")
        except LinkDown:
            pass

    def wake_locked(self) -> None:
        self._wire_waker.wake()

    @property
    def congested(self) -> bool:
        return bool(self._wire_backlog)

    @property
    def last_written(self) -> float:
        return self._last_msg_out

    def send_locked(self, data: bytes, owner: Publication | None = None) -> bool:
        # Waiting acknowledgements travel in front of any small packet, in the same write.
        if self._wire_acks and owner is None and len(data) < LARGE_BYTES:
            data = self._wire_acks + data
            self._wire_acks = b""
        if not self._wire_backlog and owner is None:
            written = self._wire_write(data)
            if written == len(data):
                return True
            self._wire_backlog.append((memoryview(data)[written:], None))
            self._wire_waker.wake()  # from now on the network thread writes
        else:
            self._wire_backlog.append((data, owner))
        return False

    def _wire_write(self, data: bytes | memoryview) -> int:
        sock = self._sock
        if sock is None or self._wire_lost is not None:
            raise LinkDown
        try:
            written = sock.send(data)  # type: ignore[arg-type]
        except BlockingIOError:
            return 0
        except OSError as error:
            if isinstance(error, NotAuthorized):
                self._wire_refused = error
            self.fail(error.strerror or str(error), cut=was_closed(error))
            raise LinkDown from error
        self._last_msg_out = monotonic()
        return written

    def _wire_flush_locked(self) -> None:
        try:
            while self._wire_backlog:
                data, owner = self._wire_backlog[0]
                written = self._wire_write(data) if data else 0
                if written < len(data):
                    self._wire_backlog[0] = (memoryview(data)[written:], owner)
                    return
                self._wire_backlog.popleft()
                if owner is not None:
                    self._wire_send_queue.written_locked(owner)
        except LinkDown:
            pass  # pump() raises what fail() noted

    # subscriptions

    def ask_subscribe(self, filters: Sequence[tuple[str, FilterOptions]]) -> int:
        """Send a SUBSCRIBE; its packet id, 0 where the connection is lost."""
        options = [(name, self.wire_version.subscription(wanted.qos, wanted.as_published)) for name, wanted in filters]
        number = filters[0][1].number if len(filters) == 1 else 0
        properties = PackedProperties(packed_number(number)) if number else None
        return self.subscribe(options, properties=properties)[1] or 0

    def ask_unsubscribe(self, filters: Sequence[str]) -> int:
        """Send an UNSUBSCRIBE; its packet id, 0 where the connection is lost."""
        return self.unsubscribe(list(filters))[1] or 0

    # the end

    def fail(self, reason: str, *, taken_over: bool = False, cut: bool = False) -> None:
        """Give the connection up, on any thread: `pump()` raises `ConnectionLost(reason)`. The first reason counts."""
        if self._wire_lost is None:
            self._wire_lost = ConnectionLost(reason, taken_over=taken_over, cut=cut)
            self._wire_waker.wake()

    def _sock_close(self) -> None:
        if self._sock is not None:
            with self._wire_lock:  # not during a write: the system may give its file descriptor to another socket
                super()._sock_close()

    def farewell(self, deadline: float) -> None:
        """Write what is left and a DISCONNECT, and wait at most until `deadline` for the broker to close, which shows
        that it has read them. Closing with unread bytes would reset the connection, and the broker would publish the
        will."""
        self._wire_owner = _NoOwner()  # no acknowledgement may follow the DISCONNECT
        try:
            self.pump(lambda: not self._wire_backlog, deadline)
            self.disconnect()
            self.pump(lambda: not self._wire_backlog, deadline)
            self._wire_socket.shutdown(socket.SHUT_WR)
            self.pump(lambda: False, deadline)
        except (ConnectionLost, TimeoutError, OSError):
            pass

    def shut(self) -> None:
        """Close the socket. QoS 0 messages that were not written are lost, and their receipts say so."""
        self._sock_close()
        with self._wire_lock:
            backlog, self._wire_backlog = self._wire_backlog, deque()
            for _, owner in backlog:
                if owner is not None:
                    self._wire_send_queue.lost_locked(owner)
        self._wire_send_queue.run_callbacks()
