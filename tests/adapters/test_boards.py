"""Boards that are reset when their port is opened, and boot with messages of their own."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from patience import patience

from hardware_adapters import SerialPort, WrongDevice

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")


class Board:
    """Resets when its port is opened (as DTR does), boots with a banner or in silence, then answers."""

    def __init__(self, boots_s: float, banner_after_s: float | None) -> None:
        import pty
        import tty

        self.boots_s, self.banner_after_s, self.opens = boots_s, banner_after_s, 0
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        os.close(slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._master, select.POLLIN | select.POLLHUP)
        was, ready, banner = False, 0.0, None
        while not self._stop.is_set():
            event = dict(poll.poll(10)).get(self._master, 0)
            there, now = not event & select.POLLHUP, time.monotonic()
            if there and not was:
                self.opens, ready = self.opens + 1, now + self.boots_s
                banner = None if self.banner_after_s is None else now + self.banner_after_s
            was = there
            if there and banner and now > banner:
                os.write(self._master, b"Booting...\r\n")
                banner = None
            if there and event & select.POLLIN:
                questions = os.read(self._master, 100)
                if now >= ready:
                    os.write(self._master, b"MyBoard,1\r\n" * questions.count(b"\n"))
            elif not there:
                self._stop.wait(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._master)


@contextmanager
def board(boots_s: float, banner_after_s: float | None) -> Iterator[Board]:
    made = Board(boots_s, banner_after_s)
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


@pytest.mark.slow("waits for boards that boot")
def test_another_board_is_another_one_after_it_has_booted() -> None:
    with board(0.1, None) as made, pytest.raises(WrongDevice, match="YourBoard"):
        SerialPort(made.name, identity="YourBoard,2", boot_s=0.3)


def test_the_lines_that_reset_a_board_can_be_left_alone() -> None:
    with SerialPort("loop://", line={"dtr": False, "rts": False}) as port:
        assert port.query("Q") == "Q"
    with pytest.raises(ValueError, match=r"line= has a setting that pyserial does not take: .*paritty"):
        SerialPort("loop://", line={"paritty": "E"})
