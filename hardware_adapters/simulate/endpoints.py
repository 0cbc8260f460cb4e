"""The ports of simulated instruments: a real pty, or a TCP port (`socket://`) where there are no ptys.

A pty is reached by a link whose name stays the same, as those of `/dev/serial/by-id`. `unplug()` closes the pty while
its reader has it open, and removes the link, as the operating system does with a pulled adapter. A thread serves each
endpoint that is plugged in: it waits for bytes, for the next message that is due, or for a byte in its wake-up
socket.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from collections import deque
from pathlib import Path
from typing import Protocol

from hardware_adapters.framing import Framer
from hardware_adapters.simulate.instrument import SimulatedInstrument

_READ_BYTES = 65536
_JOIN_S = 5.0
_CATCH_UP = 1000  # unsolicited messages that are made up for after a jump of the time, at most


class SimulatedEndpoint(Protocol):
    """A place at which an instrument is plugged in, or not."""

    @property
    def port(self) -> str:
        """The name with which `SerialPort` opens it."""

    def plug(self, instrument: SimulatedInstrument) -> None:
        """Plug an instrument in; another one is unplugged before."""

    def unplug(self) -> None:
        """Unplug the instrument; harmless where nothing is plugged in."""

    def tick(self) -> None:
        """The lab's time has jumped: send what is due."""


class Dialogue:
    """The exchange with one instrument: bytes in, bytes out when they are due. No I/O."""

    def __init__(self, instrument: SimulatedInstrument) -> None:
        self._instrument, self._framer = instrument, Framer(instrument.framing)
        self._pending: deque[tuple[float, bytes]] = deque()
        self._every_s = instrument.stream_every_s
        self._next = instrument.clock.now() + (self._every_s or 0.0)

    def receive(self, data: bytes) -> None:
        """Bytes from the reader."""
        instrument, now = self._instrument, self._instrument.clock.now()
        for message in self._framer.feed(data):
            answer = instrument.handle(message)
            if instrument.faults.hits("echo", now):
                self._pending.append((now, instrument.framing.encode(message)))
            if answer is not None:
                at = now + instrument.faults.delay_s(now)
                for payload in instrument.faults.sent(answer, instrument.chatter, now):
                    sent = instrument.faults.distorted(instrument.framing.encode(payload), now)
                    self._pending.append((at, sent))

    def due(self) -> list[bytes]:
        """The messages that are due now."""
        now = self._instrument.clock.now()
        unsolicited = self._unsolicited(now)
        sent = [unsolicited] if unsolicited else []
        while self._pending and self._pending[0][0] <= now:
            sent.append(self._pending.popleft()[1])
        return sent

    def wait_s(self) -> float | None:
        """How long until the next bytes are due, in real time; None where nothing is planned."""
        clock = self._instrument.clock
        times = [self._pending[0][0]] if self._pending else []
        times += [self._next] if self._every_s else []
        return clock.wall_s(min(times) - clock.now()) if times else None

    def _unsolicited(self, now: float) -> bytes:
        """The unsolicited messages up to now; after a long pause, only the last `_CATCH_UP`."""
        sent, instrument = b"", self._instrument
        if not self._every_s:
            return sent
        self._next = max(self._next, now - _CATCH_UP * self._every_s)
        while self._next <= now:
            self._next += self._every_s
            message = instrument.unasked()
            if message is not None:
                payload = message.encode() if isinstance(message, str) else message
                sent += instrument.faults.distorted(instrument.framing.encode(payload), now)
        return sent


class _Served:
    """A thread that carries bytes between file descriptors and an instrument, until `stop()`."""

    def __init__(self, name: str, instrument: SimulatedInstrument) -> None:
        self._dialogue = Dialogue(instrument)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name=f"simulated {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tick(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    def stop(self) -> None:
        self._stopping.set()
        self.tick()
        self._thread.join(_JOIN_S)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(self._dialogue.wait_s()):
                if key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(_READ_BYTES)
                else:
                    self._ready(key.fd)
            if sent := self._dialogue.due():
                self._send(b"".join(sent))

    def _ready(self, descriptor: int) -> None:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        raise NotImplementedError


class _ServedPty(_Served):
    """The instrument's side of a pty. It keeps the reader's side open, too: else the pty would end when a reader
    closes it."""

    def __init__(self, name: str, instrument: SimulatedInstrument) -> None:
        import pty
        import tty

        super().__init__(name, instrument)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = os.ttyname(self._slave)
        self._selector.register(self._master, selectors.EVENT_READ)
        self.overrun = 0

    def stop(self) -> None:
        super().stop()
        os.close(self._master)
        os.close(self._slave)

    def _ready(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._dialogue.receive(os.read(descriptor, _READ_BYTES))

    def _send(self, data: bytes) -> None:
        """Send; bytes beyond the pty's buffer are lost and counted, as on a real line without flow control."""
        try:
            self.overrun += len(data) - os.write(self._master, data)
        except BlockingIOError:
            self.overrun += len(data)


class PtyEndpoint:
    """A pty reached by a link (POSIX)."""

    def __init__(self, link: Path) -> None:
        self._link, self._guard = link, threading.RLock()
        self._served: _ServedPty | None = None

    @property
    def port(self) -> str:
        """See `SimulatedEndpoint`."""
        return str(self._link)

    def plug(self, instrument: SimulatedInstrument) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            self.unplug()
            self._served = _ServedPty(instrument.name, instrument)
            self._served.start()
            self._link.symlink_to(self._served.device)

    def unplug(self) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            self._link.unlink(missing_ok=True)
            if self._served is not None:
                self._served.stop()
                self._served = None

    def tick(self) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            if self._served is not None:
                self._served.tick()


class _ServedSocket(_Served):
    """A TCP server for one reader at a time; a second reader replaces the first."""

    def __init__(self, name: str, instrument: SimulatedInstrument, number: int) -> None:
        super().__init__(name, instrument)
        self._server = socket.create_server(("127.0.0.1", number))
        self._selector.register(self._server, selectors.EVENT_READ)
        self._reader: socket.socket | None = None
        self.number: int = self._server.getsockname()[1]

    def stop(self) -> None:
        super().stop()
        self._server.close()
        if self._reader is not None:
            self._reader.close()

    def _ready(self, descriptor: int) -> None:
        if descriptor == self._server.fileno():
            self._hang_up()
            self._reader, _ = self._server.accept()
            self._selector.register(self._reader, selectors.EVENT_READ)
        elif self._reader is not None:
            self._hear(self._reader)

    def _hear(self, reader: socket.socket) -> None:
        try:
            data = reader.recv(_READ_BYTES)
        except OSError:
            data = b""
        if data:
            self._dialogue.receive(data)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._reader is not None:
            self._selector.unregister(self._reader)
            self._reader.close()
            self._reader = None

    def _send(self, data: bytes) -> None:
        if self._reader is not None:
            try:
                self._reader.sendall(data)
            except OSError:
                self._hang_up()


class SocketEndpoint:
    """A TCP port of this machine, the same one each time it is plugged in."""

    def __init__(self) -> None:
        self._served: _ServedSocket | None = None
        self._guard = threading.RLock()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.number: int = probe.getsockname()[1]

    @property
    def port(self) -> str:
        """See `SimulatedEndpoint`."""
        return f"socket://127.0.0.1:{self.number}"

    def plug(self, instrument: SimulatedInstrument) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            self.unplug()
            self._served = _ServedSocket(instrument.name, instrument, self.number)
            self._served.start()

    def unplug(self) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            if self._served is not None:
                self._served.stop()
                self._served = None

    def tick(self) -> None:
        """See `SimulatedEndpoint`."""
        with self._guard:
            if self._served is not None:
                self._served.tick()
