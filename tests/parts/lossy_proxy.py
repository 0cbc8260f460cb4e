"""A bad network for tests: a TCP proxy on loopback that mistreats whole MQTT packets (3.1.1 and 5).

Between clients and a broker it lets PUBLISH packets vanish, come twice, come late or change places, lets connections
stall and cuts them: by chance with a seed, by a `Policy` that may be changed while it runs, or when it is told to.
All other packets pass in order.

Promises: framing is never broken, and both sides see packet ids that make sense: each PUBLISH of QoS 1 gets an id of
the proxy's own towards its receiver, so what was doubled or acknowledged early cannot settle another message. One
thread does all of it, and `close()` leaves no thread and no socket. What waits is bounded: past the bounds a packet
passes unharmed.

The trap: an unacknowledged `drop` fills the sender's window until its connection is cut, as MQTT sends nothing again
on a connection that lives; `acknowledge_and_drop` is what a broker does that loses messages. QoS 2 and topic aliases
(empty topics) pass unharmed.
"""

from __future__ import annotations

import enum
import random
import re
import selectors
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from patience import patience

_READ_BYTES = 65_536
_PACKET_MAX_BYTES = 64 << 20
_BUFFER_BYTES = 1 << 20  # of unwritten bytes in one direction, before its source is no longer read
_HELD_MAX = 10_000  # packets that are late or out of place, of all connections together
_CONNECTIONS_MAX = 200
_UPSTREAM_S = patience(2.0)
_REORDER_S = 0.05  # how long a packet that changes its place waits for another one to overtake it
_COMMAND_S = patience(5.0)
_CONNECT, _PUBLISH, _PUBACK, _DISCONNECT = 1, 3, 4, 14
_DUP = 0x08
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST

T = TypeVar("T")


class Direction(enum.Enum):
    """Which way a packet goes."""

    TO_BROKER = "to the broker"
    TO_CLIENT = "to the client"


class Fate(enum.Enum):
    """What happened to a PUBLISH (`CUT`, `STALL`: to its connection)."""

    PASS = "passed"
    DROP = "dropped, not acknowledged"
    ACKNOWLEDGE_AND_DROP = "dropped, acknowledged"
    DOUBLE = "sent twice"
    DELAY = "sent late"
    REORDER = "sent behind a later one"
    STALL = "connection stalled"
    CUT = "connection cut"


@dataclass(frozen=True, slots=True)
class Policy:
    """How likely each fate is for a PUBLISH whose topic matches `topics` (a regular expression, searched). The
    probabilities add up to at most 1; the rest passes. `delay_s` is a range, all times are seconds."""

    drop: float = 0.0
    acknowledge_and_drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    stall: float = 0.0
    cut: float = 0.0
    delay_s: tuple[float, float] = (0.05, 0.5)
    stall_s: float = 0.5
    topics: str = ""

    def __post_init__(self) -> None:
        if min(self._chances()) < 0 or sum(self._chances()) > 1 + 1e-9:
            raise ValueError(f"the probabilities of {self} are not all positive with a sum of at most 1")

    def _chances(self) -> tuple[float, ...]:
        return (self.drop, self.acknowledge_and_drop, self.double, self.delay, self.reorder, self.stall, self.cut)

    def fate(self, chance: random.Random, topic: str) -> Fate:
        """What happens to the next PUBLISH on this topic."""
        if not topic or not re.search(self.topics, topic):
            return Fate.PASS
        drawn = chance.random()
        for fate, likely in zip(_HARM, self._chances(), strict=True):
            if drawn < likely:
                return fate
            drawn -= likely
        return Fate.PASS


_HARM = [fate for fate in Fate if fate is not Fate.PASS]
CALM = Policy()
"""Everything passes."""


class Broken(Exception):
    """Bytes that are not MQTT."""


def split_packets(received: bytearray) -> Iterator[bytes]:
    """Take the whole packets out of the front of what was received; raises `Broken`."""
    at = 0
    try:
        while (end := _packet_end(received, at)) is not None and end <= len(received):
            yield bytes(memoryview(received)[at:end])
            at = end
    finally:
        del received[:at]


def _packet_end(received: bytearray, at: int) -> int | None:
    length = shift = 0
    for index in range(at + 1, min(at + 5, len(received))):
        length |= (received[index] & 0x7F) << shift
        shift += 7
        if received[index] < 0x80:
            if length > _PACKET_MAX_BYTES:
                raise Broken(f"a packet of {length:,} bytes")
            return index + 1 + length
    if len(received) >= at + 5:
        raise Broken("a length of more than four bytes")
    return None


def _body_at(packet: bytes) -> int:
    at = 1
    while packet[at] >= 0x80:
        at += 1
    return at + 1


def _text_at(packet: bytes, at: int) -> tuple[str, int]:
    """A length-prefixed text, and where it ends."""
    end = at + 2 + int.from_bytes(packet[at : at + 2], "big")
    return packet[at + 2 : end].decode("utf-8", "replace"), end


def _client_id(packet: bytes) -> str:
    """Of a CONNECT."""
    _, at = _text_at(packet, _body_at(packet))
    version, at = packet[at], at + 4
    if version >= 5:
        length = shift = 0
        while True:
            byte, at = packet[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += length
    return _text_at(packet, at)[0]


def _with_id(packet: bytes, at: int, packet_id: int, *, duplicate: bool = False) -> bytes:
    first = packet[0] | (_DUP if duplicate else 0)
    return b"".join((bytes((first,)), packet[1:at], struct.pack("!H", packet_id), packet[at + 2 :]))


@dataclass(eq=False, slots=True)
class _Pipe:
    """One direction of one connection."""

    direction: Direction
    chance: random.Random
    source: socket.socket
    target: socket.socket
    received: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    behind: list[_Late] = field(default_factory=list)
    ids: dict[int, int | None] = field(default_factory=dict)
    """Towards the target: the proxy's packet id to the source's, or None where nobody waits for its
    acknowledgement."""
    last_id: int = 0
    over: bool = False
    """No PUBLISH may follow."""
    ended: bool = False
    shut: bool = False

    def new_id(self, original: int | None) -> int:
        if len(self.ids) >= 0xFFFF:
            raise Broken("65,535 messages that are not acknowledged")
        while True:
            self.last_id = self.last_id % 0xFFFF + 1
            if self.last_id not in self.ids:
                self.ids[self.last_id] = original
                return self.last_id


@dataclass(eq=False, slots=True)
class _Connection:
    number: int
    client: socket.socket
    broker: socket.socket
    to_broker: _Pipe
    to_client: _Pipe
    client_id: str = ""
    stalled_until: float = 0.0
    closed: bool = False
    watched: dict[socket.socket, int] = field(default_factory=dict)

    @property
    def pipes(self) -> tuple[_Pipe, _Pipe]:
        return self.to_broker, self.to_client

    def back(self, pipe: _Pipe) -> _Pipe:
        """The other direction."""
        return self.to_client if pipe is self.to_broker else self.to_broker


@dataclass(eq=False, slots=True)
class _Late:
    """A packet that waits. `sent` once it has gone, or its connection has."""

    connection: _Connection
    pipe: _Pipe
    packet: bytes
    sent: bool = False


class LossyProxy:
    """Stands in front of the broker at `upstream_host:upstream_port`, on a loopback port of its own (`host`, `port`).

    A context manager. Every method may be called from any thread. Clients are named by the beginning of their client
    id, `""` means all of them.
    """

    def __init__(self, upstream_host: str, upstream_port: int, *, seed: int = 0, policy: Policy = CALM) -> None:
        self._upstream = upstream_host, upstream_port
        self._seed = seed
        self._policies = dict.fromkeys(Direction, policy)
        self._counts: Counter[tuple[Direction, Fate]] = Counter()
        self._connections: set[_Connection] = set()
        self._clients: tuple[str, ...] = ()
        self._numbers, self._order = count(), count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._held = 0
        self._unnoticed: set[socket.socket] = set()
        self._commands: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake_end = socket.socketpair()
        self._wake_end.setblocking(False)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_CONNECTIONS_MAX)
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="lossy-proxy", daemon=True)
        self._thread.start()

    # -- any thread

    def url(self, username: str, password: str) -> str:
        """`mqtt://user:password@host:port`, through the proxy."""
        return f"mqtt://{quote(username, safe='')}:{quote(password, safe='')}@{self.host}:{self.port}"

    def apply(self, policy: Policy, *directions: Direction) -> None:
        """From now on this is what happens, in these directions or in both. What waits already, goes on waiting."""
        for direction in directions or tuple(Direction):
            self._policies[direction] = policy

    def count(self, fate: Fate, *directions: Direction) -> int:
        """How many packets (connections) met that fate so far. A packet that is late or behind counts from when it was
        held back; one that waits on a connection that ends, never arrives."""
        return sum(self._counts[direction, fate] for direction in directions or tuple(Direction))

    def counts(self) -> dict[str, int]:
        """All of it, for people."""
        return {f"{fate.value} {direction.value}": number for (direction, fate), number in self._counts.items()}

    def clients(self) -> tuple[str, ...]:
        """The client ids of the connections that live."""
        return self._clients

    def cut(self, client: str = "", *, unnoticed_s: float = 0.0) -> int:
        """Reset connections; returns how many, when it is done. The broker hears of it `unnoticed_s` seconds later, as
        where a cable was pulled."""
        return self._do(lambda: self._to_each(client, lambda each: self._cut(each, unnoticed_s)))

    def stall(self, seconds: float, client: str = "") -> int:
        """Let nothing pass on connections for that long; returns how many they are."""
        return self._do(lambda: self._to_each(client, lambda each: self._stall(each, seconds)))

    @property
    def unnoticed(self) -> int:
        """Connections that are cut, and the broker does not know it yet."""
        return len(self._unnoticed)

    @property
    def held(self) -> int:
        """Packets that wait: late ones and ones that are to change places."""
        return self._held

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition on this proxy (its counts, its clients, what it holds) is true."""
        with self._changed:
            self._waiting += 1
            try:
                return self._changed.wait_for(condition, patience(timeout_s))
            finally:
                self._waiting -= 1

    def close(self) -> None:
        """End every connection and the thread. Twice is fine."""
        self._closing = True
        try:
            self._wake()
        except OSError:
            pass  # its thread has seen it already, and has closed everything
        self._thread.join(_COMMAND_S)
        assert not self._thread.is_alive()

    def __enter__(self) -> LossyProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _do(self, command: Callable[[], T]) -> T:
        """Have the proxy's thread run it, and wait until it has."""
        answer: SimpleQueue[T] = SimpleQueue()
        self._commands.append(lambda: answer.put(command()))
        self._wake()
        try:
            return answer.get(timeout=_COMMAND_S)
        except Empty:
            raise TimeoutError(f"the proxy did not obey within {_COMMAND_S:g} s; is it closed?") from None

    def _wake(self) -> None:
        self._waker.send(b"!")

    # -- the proxy's thread

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, events in self._selector.select(self._run_timers()):
                    self._handle(key.fileobj, key.data, events)
                while self._commands:
                    self._commands.popleft()()
                if self._waiting:
                    with self._changed:
                        self._changed.notify_all()
        finally:
            for connection in list(self._connections):
                self._close(connection)
            for each in (self._listener, self._waker, self._wake_end, *self._unnoticed):
                each.close()
            self._selector.close()

    def _handle(self, ready: object, connection: _Connection | None, events: int) -> None:
        if ready is self._listener:
            self._accept()
        elif connection is None:
            self._wake_end.recv(4096)
        elif not connection.closed:
            pipe = connection.to_broker if ready is connection.client else connection.to_client
            try:
                if events & selectors.EVENT_READ:
                    self._read(connection, pipe)
                self._write(connection)
            except (OSError, Broken, IndexError):
                self._close(connection, reset=True)

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heappush(self._timers, (monotonic() + delay_s, next(self._order), action))

    def _run_timers(self) -> float | None:
        """Do what is due; returns the seconds until something is."""
        while self._timers:
            left = self._timers[0][0] - monotonic()
            if left > 0:
                return left
            heappop(self._timers)[2]()
        return None

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # gone before we came
            return
        if len(self._connections) >= _CONNECTIONS_MAX:
            client.close()
            return
        try:
            broker = socket.create_connection(self._upstream, _UPSTREAM_S)
        except OSError:
            client.close()
            return
        for each in (client, broker):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = next(self._numbers)
        there = _Pipe(Direction.TO_BROKER, random.Random(f"{self._seed}/{number}/there"), client, broker)
        back = _Pipe(Direction.TO_CLIENT, random.Random(f"{self._seed}/{number}/back"), broker, client)
        connection = _Connection(number, client, broker, there, back)
        self._connections.add(connection)
        self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        """Ask the selector for what this connection can do now."""
        stalled = connection.stalled_until > 0
        for pipe in connection.pipes:
            wanted = 0
            if not stalled and not pipe.ended and len(pipe.outgoing) < _BUFFER_BYTES:
                wanted |= selectors.EVENT_READ
            if not stalled and connection.back(pipe).outgoing:
                wanted |= selectors.EVENT_WRITE
            self._ask(connection, pipe.source, wanted)

    def _ask(self, connection: _Connection, sock: socket.socket, wanted: int) -> None:
        had = connection.watched.get(sock, 0)
        if wanted == had:
            return
        connection.watched[sock] = wanted
        if not had:
            self._selector.register(sock, wanted, connection)
        elif not wanted:
            self._selector.unregister(sock)
        else:
            self._selector.modify(sock, wanted, connection)

    def _read(self, connection: _Connection, pipe: _Pipe) -> None:
        if pipe.ended:
            return
        try:
            data = pipe.source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end(pipe)
            return
        pipe.received += data
        for packet in split_packets(pipe.received):
            self._take(connection, pipe, packet)
            if connection.closed:
                return

    def _end(self, pipe: _Pipe) -> None:
        """Its source says nothing more."""
        pipe.ended = pipe.over = True
        pipe.behind.clear()

    def _write(self, connection: _Connection) -> None:
        """Send what can be sent; close what is over."""
        if connection.closed or connection.stalled_until:
            return
        for pipe in connection.pipes:
            if pipe.outgoing:
                try:
                    del pipe.outgoing[: pipe.target.send(pipe.outgoing)]
                except BlockingIOError:
                    pass
            if pipe.ended and not pipe.outgoing and not pipe.shut:
                pipe.shut = True
                pipe.target.shutdown(socket.SHUT_WR)
        if connection.to_broker.shut and connection.to_client.shut:
            self._close(connection)
        else:
            self._watch(connection)

    def _close(self, connection: _Connection, *, reset: bool = False, unnoticed_s: float = 0.0) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._connections.discard(connection)
        self._note_clients()
        for pipe in connection.pipes:
            self._ask(connection, pipe.source, 0)
            self._end(pipe)
            if reset:
                pipe.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.client.close()
        if unnoticed_s:
            self._unnoticed.add(connection.broker)
            self._at(unnoticed_s, lambda: self._let_notice(connection.broker))
        else:
            connection.broker.close()

    def _note_clients(self) -> None:
        self._clients = tuple(sorted(connection.client_id for connection in self._connections))

    def _let_notice(self, broker: socket.socket) -> None:
        self._unnoticed.discard(broker)
        broker.close()

    # -- packets

    def _take(self, connection: _Connection, pipe: _Pipe, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == _PUBLISH and packet[0] & 0x06 != 0x04:
            self._publish(connection, pipe, packet)
        elif kind == _PUBACK:
            self._acknowledged(connection, pipe, packet)
        else:
            pipe.outgoing += packet
            if kind == _CONNECT:
                connection.client_id = _client_id(packet)
                self._note_clients()
            elif kind == _DISCONNECT:
                pipe.over = True
                pipe.behind.clear()

    def _publish(self, connection: _Connection, pipe: _Pipe, packet: bytes) -> None:
        topic, id_at = _text_at(packet, _body_at(packet))
        fate = self._policies[pipe.direction].fate(pipe.chance, topic)
        if fate in (Fate.DELAY, Fate.REORDER) and self._held >= _HELD_MAX:
            fate = Fate.PASS
        self._counts[pipe.direction, fate] += 1
        _TREATMENTS[fate](self, connection, pipe, packet, id_at)

    def _pass(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        self._send(pipe, packet, id_at)
        behind, pipe.behind = pipe.behind, []
        for late in behind:
            self._send_late(late)

    def _send(self, pipe: _Pipe, packet: bytes, id_at: int, *, again: bool = False) -> None:
        if packet[0] & 0x06:
            original = int.from_bytes(packet[id_at : id_at + 2], "big")
            packet = _with_id(packet, id_at, pipe.new_id(None if again else original), duplicate=again)
        pipe.outgoing += packet

    def _acknowledged(self, connection: _Connection, pipe: _Pipe, packet: bytes) -> None:
        at = _body_at(packet)
        original = connection.back(pipe).ids.pop(int.from_bytes(packet[at : at + 2], "big"), None)
        if original is not None:
            pipe.outgoing += _with_id(packet, at, original)

    def _drop(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        pass

    def _acknowledge_and_drop(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        if packet[0] & 0x06:
            connection.back(pipe).outgoing += b"\x40\x02" + packet[id_at : id_at + 2]

    def _double(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        self._pass(connection, pipe, packet, id_at)
        self._send(pipe, packet, id_at, again=True)

    def _delay(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        self._hold(connection, pipe, packet, pipe.chance.uniform(*self._policies[pipe.direction].delay_s))

    def _reorder(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        pipe.behind.append(self._hold(connection, pipe, packet, _REORDER_S))

    def _hold(self, connection: _Connection, pipe: _Pipe, packet: bytes, delay_s: float) -> _Late:
        late = _Late(connection, pipe, packet)
        self._held += 1
        self._at(delay_s, lambda: self._due(late))
        return late

    def _due(self, late: _Late) -> None:
        try:
            self._send_late(late)
            self._write(late.connection)
        except (OSError, Broken):
            self._close(late.connection, reset=True)

    def _send_late(self, late: _Late) -> None:
        if late.sent:
            return
        late.sent = True
        self._held -= 1
        if not late.pipe.over:
            self._send(late.pipe, late.packet, _text_at(late.packet, _body_at(late.packet))[1])

    # -- connections that suffer

    def _stall_by_chance(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        self._pass(connection, pipe, packet, id_at)
        self._stall(connection, self._policies[pipe.direction].stall_s)

    def _cut_by_chance(self, connection: _Connection, pipe: _Pipe, packet: bytes, id_at: int) -> None:
        self._close(connection, reset=True)

    def _stall(self, connection: _Connection, seconds: float) -> None:
        connection.stalled_until = max(connection.stalled_until, monotonic() + seconds)
        self._watch(connection)
        self._at(seconds, lambda: self._resume(connection))

    def _resume(self, connection: _Connection) -> None:
        if connection.closed or monotonic() < connection.stalled_until:
            return
        connection.stalled_until = 0.0
        try:
            self._write(connection)
        except OSError:
            self._close(connection, reset=True)

    def _cut(self, connection: _Connection, unnoticed_s: float) -> None:
        self._counts[Direction.TO_BROKER, Fate.CUT] += 1
        self._close(connection, reset=True, unnoticed_s=unnoticed_s)

    def _to_each(self, client: str, action: Callable[[_Connection], None]) -> int:
        chosen = [connection for connection in self._connections if connection.client_id.startswith(client)]
        for connection in chosen:
            action(connection)
        return len(chosen)


_TREATMENTS: dict[Fate, Callable[[LossyProxy, _Connection, _Pipe, bytes, int], None]] = {
    Fate.PASS: LossyProxy._pass,
    Fate.DROP: LossyProxy._drop,
    Fate.ACKNOWLEDGE_AND_DROP: LossyProxy._acknowledge_and_drop,
    Fate.DOUBLE: LossyProxy._double,
    Fate.DELAY: LossyProxy._delay,
    Fate.REORDER: LossyProxy._reorder,
    Fate.STALL: LossyProxy._stall_by_chance,
    Fate.CUT: LossyProxy._cut_by_chance,
}
