"""A device that answers late at random, chats, echoes, doubles and drops, behind a pty or a TCP port; and the campaign
that asks it. What it did with each question is known, so that answers can be judged."""

from __future__ import annotations

import os
import random
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hardware_adapters import Adapter, AdapterError

IDENTITY = "ACME,Slow,0007,1.0"


@dataclass(frozen=True)
class Habits:
    """How often (0 to 1) an answer is late (up to `latest_s`), dropped, doubled, or beside an unasked line. In time
    means within `in_time_s` (a third of the time-out)."""

    in_time_s: float
    latest_s: float = 0.0
    late: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    chat: float = 0.0
    echo: bool = False
    acknowledge: bool = False
    chatter: bytes = b"!CHAT"


@dataclass
class Device:
    """Answers `Q17?` with `A17`; `*IDN?` and `*OPC?` as an instrument does, with the same habits."""

    habits: Habits
    seed: int = 0
    asked: list[str] = field(default_factory=list)
    in_time: set[str] = field(default_factory=set)
    sent_at: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._stop = threading.Event()

    def answer(self, text: str) -> bytes | None:
        if text == "*IDN?":
            return IDENTITY.encode()
        if text == "*OPC?":
            return b"1"
        if text.endswith("?"):
            return b"A" + text[1:-1].encode()
        return b"OK" if self.habits.acknowledge else None

    def hear(self, text: str) -> tuple[bytes, float, bytes]:
        """What is sent at once, the pause after it, and what is sent then."""
        habits, chance = self.habits, self._chance
        self.asked.append(text)
        at_once = text.encode() + b"\n" if habits.echo else b""
        answer = self.answer(text)
        if answer is None:
            return at_once, 0.0, b""
        draw = chance.random()
        pause_s, lines = 0.0, [answer]
        if draw < habits.late:
            pause_s = chance.uniform(habits.in_time_s, habits.latest_s)
            self.counts["late"] += 1
        elif draw < habits.late + habits.drop:
            lines = []
            self.counts["dropped"] += 1
        else:
            self.in_time.add(text)
        if chance.random() < habits.double:
            lines *= 2
            self.counts["doubled"] += bool(lines)
        if chance.random() < habits.chat:
            lines.insert(chance.randint(0, len(lines)), habits.chatter)
            self.counts["chats"] += 1
        return at_once, pause_s, b"".join(line + b"\n" for line in lines)

    def serve(self, descriptor: int) -> None:
        """One question after the other, as most instruments do, until the other side has gone."""
        heard = b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not self._stop.is_set():
                if not selector.select(0.05):
                    continue
                try:
                    data = os.read(descriptor, 4096)
                except OSError:
                    return
                if not data:
                    return
                heard += data
                while b"\n" in heard:
                    line, heard = heard.split(b"\n", 1)
                    at_once, pause_s, then = self.hear(line.decode())
                    if at_once:
                        os.write(descriptor, at_once)
                    if pause_s:
                        self._stop.wait(pause_s)
                    if then:
                        os.write(descriptor, then)
                        self.sent_at[line.decode()] = time.monotonic()

    @contextmanager
    def on_a_pty(self) -> Iterator[str]:
        import pty
        import tty

        master, slave = pty.openpty()
        tty.setraw(slave)
        thread = threading.Thread(target=self.serve, args=(master,))
        thread.start()
        try:
            yield os.ttyname(slave)
        finally:
            self._stop.set()
            thread.join()
            os.close(master)
            os.close(slave)

    @contextmanager
    def on_a_socket(self) -> Iterator[int]:
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(0.1)

        def accept() -> None:
            while not self._stop.is_set():
                try:
                    reader, _ = server.accept()
                except TimeoutError:
                    continue
                with reader:
                    reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.serve(reader.fileno())

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            self._stop.set()
            thread.join()
            server.close()


@dataclass
class Verdict:
    """What came of a campaign."""

    asked: int = 0
    right: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    in_time: int = 0
    given_out: int = 0
    took_s: float = 0.0


def campaign(adapter: Adapter, device: Device, questions: int, *, write_every: int = 0) -> Verdict:
    """Ask so many different questions, and judge each answer."""
    verdict, began = Verdict(), time.monotonic()
    for number in range(questions):
        if write_every and number % write_every == 0:
            with_error(adapter, number, verdict)
        question, right = f"Q{number}?", f"A{number}"
        verdict.asked += 1
        answer: str | None = None
        try:
            answer = adapter.query(question)
        except AdapterError as error:
            verdict.errors[type(error).__name__] += 1
            late = time.monotonic() - device.sent_at.get(question, 0.0) < device.habits.in_time_s
            if late:  # the device had to wait for a busy machine
                device.in_time.discard(question)
        if answer is not None and answer != right:
            verdict.wrong.append((question, answer))
        verdict.right += answer == right
        if question in device.in_time:
            verdict.in_time += 1
            verdict.given_out += answer == right
    verdict.took_s = time.monotonic() - began
    return verdict


def with_error(adapter: Adapter, number: int, verdict: Verdict) -> None:
    try:
        adapter.write(f"SET {number}")
    except AdapterError as error:
        verdict.errors[type(error).__name__] += 1
