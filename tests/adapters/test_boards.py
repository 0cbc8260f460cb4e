"""Boards that are reset when their port is opened, and boot with messages of their own."""

from __future__ import annotations

import os
import queue
import re
import select
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from patience import patience

from hardware_adapters import BadAnswer, SerialPort, VisaInstrument, WrongDevice

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")


class Board:
    """Resets when its port is opened (as DTR does), boots with a banner or in silence, then answers."""

    def __init__(self, boots_s: float, banner_after_s: float | None, *, says_ready: bool = False) -> None:
        self.boots_s, self.banner_after_s, self.opens = boots_s, banner_after_s, 0
        self.says_ready, self.asked_too_early = says_ready, 0
        self._folder = tempfile.TemporaryDirectory()
        self.name = os.path.join(self._folder.name, "board")
        self._stop, self._replugged = threading.Event(), threading.Event()
        self._plug()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _plug(self) -> None:
        import pty
        import tty

        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.symlink(os.ttyname(slave), f"{self.name}.new")
        os.replace(f"{self.name}.new", self.name)
        os.close(slave)

    def replug(self) -> None:
        """The plug is pulled and put in again: another port stands under the same name."""
        self._replugged.set()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._master, select.POLLIN | select.POLLHUP)
        was, ready, banner, says = False, 0.0, None, False
        while not self._stop.is_set():
            if self._replugged.is_set():
                poll.unregister(self._master)
                os.close(self._master)
                self._plug()
                poll.register(self._master, select.POLLIN | select.POLLHUP)
                was = False
                self._replugged.clear()
            event = dict(poll.poll(10)).get(self._master, 0)
            there, now = not event & select.POLLHUP, time.monotonic()
            if there and not was:
                self.opens, ready, says = self.opens + 1, now + self.boots_s, self.says_ready
                banner = None if self.banner_after_s is None else now + self.banner_after_s
            was = there
            if there and banner and now > banner:
                os.write(self._master, b"Booting...\r\n")
                banner = None
            if there and says and now >= ready:
                os.write(self._master, b"Ready v1.2\r\n")
                says = False
            if there and event & select.POLLIN:
                questions = os.read(self._master, 100)
                self.asked_too_early += now < ready
                if now >= ready:
                    os.write(self._master, b"MyBoard,1\r\n" * questions.count(b"\n"))
            elif not there:
                self._stop.wait(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        self._folder.cleanup()


@contextmanager
def board(boots_s: float, banner_after_s: float | None, *, says_ready: bool = False) -> Iterator[Board]:
    made = Board(boots_s, banner_after_s, says_ready=says_ready)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("banner_after_s", [None, 0.05, 0.7])
def test_d1_a_board_that_boots_is_found_with_one_opening(banner_after_s: float | None) -> None:
    with (
        board(0.9, banner_after_s) as made,
        SerialPort(made.name, identity="MyBoard,1", timeout_s=patience(2), boot_s=patience(1.5)) as port,
    ):
        assert port.presence.online
        assert port.query("*IDN?") == "MyBoard,1"
        assert made.opens == 1


def test_d1_a_board_that_boots_in_silence_is_asked_until_the_time_out() -> None:
    with board(0.9, None) as made, SerialPort(made.name, identity="MyBoard,1", timeout_s=patience(3)) as port:
        assert (port.presence.online, made.opens) == (True, 1)


def test_d1_without_an_identity_the_banner_is_no_answer() -> None:
    with board(0.3, 0.1) as made, SerialPort(made.name, boot_s=patience(1), timeout_s=patience(2)) as port:
        assert port.query("*IDN?") == "MyBoard,1"


@pytest.mark.parametrize("ready", ["Ready", b"Ready v1", re.compile(r"^Ready v\d")])
def test_a_board_that_says_when_it_is_ready_is_not_waited_for_longer(ready: Any) -> None:
    """It is written to after its line alone, and neither that nor what it says before is an answer, or input."""
    heard: list[bytes] = []
    with (
        board(0.25, 0.05, says_ready=True) as made,
        SerialPort(made.name, ready=ready, boot_s=patience(30), timeout_s=patience(2), on_input=heard.append) as port,
    ):
        assert port.query("*IDN?") == "MyBoard,1"
        assert (made.opens, made.asked_too_early, heard) == (1, 0, [])


def test_a_board_that_says_it_comes_back_after_each_replug() -> None:
    with (
        board(0.15, 0.05, says_ready=True) as made,
        SerialPort(made.name, identity="MyBoard,1", ready="Ready", timeout_s=patience(2)) as port,
    ):
        states: queue.SimpleQueue[bool] = queue.SimpleQueue()
        port.watch_presence(lambda presence: states.put(presence.online))
        for opens in (2, 3, 4):
            made.replug()
            assert [states.get(timeout=patience(10)) for _ in range(2)] == [False, True]
            assert port.query("*IDN?") == "MyBoard,1"
            assert (made.opens, made.asked_too_early) == (opens, 0)


def test_a_board_that_does_not_say_it_is_named() -> None:
    with board(0.1, 0.02) as made, pytest.raises(BadAnswer, match=r"did not say 'Ready' within 0\.3 s.*Booting"):
        SerialPort(made.name, ready="Ready", boot_s=0.3)
    with (  # with an identity it is asked all the same: it may not have been reset
        board(0.1, None) as made,
        SerialPort(made.name, identity="MyBoard,1", ready="Ready", boot_s=0.3, timeout_s=patience(2)) as port,
    ):
        assert port.presence.online


def test_wrong_words_of_a_boot_are_refused() -> None:
    for wrong in ({"ready": ""}, {"ready": 5}, {"boot_s": -1}, {"boot_s": float("nan")}):
        with pytest.raises(ValueError, match=r"boot_s is|ready is"):
            SerialPort("loop://", **wrong)  # type: ignore[arg-type]


def test_over_visa_there_is_no_line_to_wait_for() -> None:
    with pytest.raises(TypeError, match="ready= is an option of SerialPort"):
        VisaInstrument("ASRL1::INSTR", ready="Ready")


@pytest.mark.slow("waits for boards that boot")
def test_another_board_is_another_one_after_it_has_booted() -> None:
    with board(0.1, None) as made, pytest.raises(WrongDevice, match="YourBoard"):
        SerialPort(made.name, identity="YourBoard,2", boot_s=0.3)


def test_the_lines_that_reset_a_board_can_be_left_alone() -> None:
    with SerialPort("loop://", line={"dtr": False, "rts": False}) as port:
        assert port.query("Q") == "Q"
    with pytest.raises(ValueError, match=r"line= has a setting that pyserial does not take: .*paritty"):
        SerialPort("loop://", line={"paritty": "E"})
