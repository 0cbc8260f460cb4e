"""Messages of a service to systemd: it is ready, its status, it stops, and its worker still makes progress.

The protocol is one datagram of `NAME=value` lines to the Unix socket that `NOTIFY_SOCKET` names (sd_notify(3)). It
needs no library, and this module can be imported on every system.

Promise: nothing here raises because systemd does not answer, and no call takes longer than `SEND_S`. Without systemd
there is no `Notifier`, and a `Watchdog` without a notifier does nothing.
The traps: a user's own child process that inherits `NOTIFY_SOCKET` could report the service as ready, so the variables
are removed from the environment. And a watchdog that a thread feeds unconditionally guards nothing: the thread must ask
whether the *worker* makes progress.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from types import TracebackType

from ether.log import get_ether_logger

logger = get_ether_logger("Ether")

SEND_S = 2.0
"""How long one message may take. systemd reads within milliseconds, except while the machine boots."""

PINGS_EACH_PERIOD = 2
"""sd_watchdog_enabled(3) asks for a ping at half of the period."""

SHORTEST_PERIOD_S = 0.02
LONGEST_STATUS = 500


class Notifier:
    """Sends to the systemd that started this process. Every method returns whether the message was handed over."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        """`address` is a path, or `@name` for an abstract socket; `watchdog_s` is the period that systemd expects."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier | None:
        """The notifier that systemd's variables describe; None where systemd did not start this process. Removes the
        variables."""
        address = environ.pop("NOTIFY_SOCKET", "")
        period_us = environ.pop("WATCHDOG_USEC", "")
        whose = environ.pop("WATCHDOG_PID", "")
        if not address:
            return None
        if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
            logger.warning("cannot speak to systemd at %r: only Unix sockets are understood here", address)
            return None
        return cls(address, _seconds(period_us) if whose in ("", str(os.getpid())) else None)

    def ready(self, status: str = "") -> bool:
        """The service is ready."""
        return self._send("READY=1", *_status_lines(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(*_status_lines(text))

    def stopping(self, status: str = "") -> bool:
        """The service has begun to end."""
        return self._send("STOPPING=1", *_status_lines(status))

    def more_time(self, seconds: float) -> bool:
        """Starting, or stopping, takes up to that much longer from now on."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watchdog(self) -> bool:
        """Feed the watchdog. `Watchdog` does so in time."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> bool:
        # A socket for each message: an open one would be stale after a restart of systemd, and leak into forks.
        if not lines:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.settimeout(SEND_S)
                channel.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:
            logger.debug("systemd did not hear %s: %s", lines[0], error)
            return False
        return True


class Watchdog:
    """Feeds systemd's watchdog as long as `alive()` is true, twice in each period, on a thread of its own.

    `alive` must answer at once, from any thread: is the worker idle, or making progress? When it says no, or raises,
    the pings stop; after a period without a ping systemd kills the process and restarts it. In a process that is stuck
    in C code with the interpreter's lock this thread does not run, and the pings stop, too.
    """

    def __init__(self, notifier: Notifier | None, alive: Callable[[], bool]) -> None:
        self._notifier, self._alive = notifier, alive
        self._closed = threading.Event()
        self._was_alive = True
        self._thread: threading.Thread | None = None

    def start(self) -> Watchdog:
        """Begin; does nothing where systemd expects no pings."""
        if self._notifier is not None and self._notifier.watchdog_s is not None and self._thread is None:
            arguments = (self._notifier, self._notifier.watchdog_s / PINGS_EACH_PERIOD)
            self._thread = threading.Thread(target=self._run, args=arguments, name="ether-watchdog", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """End. Twice is fine. The process must end soon after, or announce by `stopping()` that it is ending."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(2 * SEND_S)

    def __enter__(self) -> Watchdog:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _run(self, notifier: Notifier, interval_s: float) -> None:
        while True:
            self._feed(notifier)
            if self._closed.wait(interval_s):
                return

    def _feed(self, notifier: Notifier) -> None:
        alive = self._is_alive()
        if alive:
            notifier.watchdog()
        if alive != self._was_alive:
            self._report(notifier, alive)
        self._was_alive = alive

    def _is_alive(self) -> bool:
        try:
            return self._alive()
        except Exception:  # an `alive()` that raises counts as no, and must not end the thread
            if self._was_alive:
                logger.exception("cannot tell whether the work still moves")
            return False

    def _report(self, notifier: Notifier, alive: bool) -> None:
        if alive:
            logger.warning("the work moves again: systemd's watchdog is fed")
            notifier.status("moves again")
            return
        period_s = notifier.watchdog_s or 0.0
        logger.error("the work hangs: systemd's watchdog is no longer fed and acts within %g s", period_s)
        notifier.status("hangs: the watchdog is no longer fed")


def _seconds(period_us: str) -> float | None:
    """The period; None for anything but a positive number: the variable may not be systemd's."""
    seconds = int(period_us) / 1e6 if period_us.isascii() and period_us.isdecimal() else 0.0
    return max(seconds, SHORTEST_PERIOD_S) if seconds > 0 else None


def _status_lines(text: str) -> tuple[str, ...]:
    """One assignment on one line: a newline in the text would begin another assignment."""
    line = " ".join(text.split())[:LONGEST_STATUS]
    return (f"STATUS={line}",) if line else ()
