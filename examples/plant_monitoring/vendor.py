"""Drivers as a vendor writes them, without Ether. They stay as they are: the YAML wraps them."""

from __future__ import annotations

import socket
import time


class Heater:
    """An electric heater that is set over TCP."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=2)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def set_power(self, watts: float) -> None:
        if (answer := self._ask(f"POWER {watts:g}")) != "OK":
            raise OSError(f"the heater says {answer!r}")

    @property
    def power(self) -> float:
        return float(self._ask("POWER?"))

    def _ask(self, line: str) -> str:
        if self._socket is None:
            raise OSError("the heater is not open")
        self._socket.sendall(line.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            if not (more := self._socket.recv(64)):
                raise OSError("the heater has closed the connection")
            answer += more
        return answer.decode().strip()


class Thermostat:
    """A PI controller; the integral stops while the output is at its limit (anti-windup)."""

    def __init__(self, setpoint: float, gain: float, reset_s: float, most: float) -> None:
        self.setpoint = setpoint
        self._gain, self._reset_s, self._most = gain, reset_s, most
        self._sum = 0.0
        self._last: float | None = None

    def update(self, measured: float) -> float:
        """The power to set, in watts."""
        now = time.monotonic()
        seconds = 0.0 if self._last is None else now - self._last
        self._last = now
        error = self.setpoint - measured
        wanted = self._gain * (error + self._sum / self._reset_s)
        if 0 < wanted < self._most or (error < 0) == (wanted >= self._most):
            self._sum += error * seconds
        return min(max(wanted, 0.0), self._most)
