"""Classes that the tests of saves host; instances import them by name."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from call_parts import Ledger, right_answer

from ether import ether, ether_get, ether_save


class Doser:
    """Notes each dose before it does anything, so that a second one is seen whatever is killed."""

    def __init__(self, ledger: str) -> None:
        self._ledger = Ledger(ledger)

    @ether_save
    def dose(self, call: str, number: int) -> dict[str, Any]:
        self._ledger.note(call)
        return right_answer(call, number)

    @ether_save
    def hold(self, call: str, gate: str) -> str:
        """Say on the topic `dosing` that it has begun, and go on when somebody has written into the named pipe."""
        self._ledger.note(call)
        ether.pub({"call": call, "pid": os.getpid()}, topic="dosing")
        Path(gate).read_text()
        return call

    @ether_save
    def refuse(self, call: str) -> None:
        self._ledger.note(call)
        raise ValueError(f"no {call}")

    @ether_save
    def unsendable(self, call: str) -> Any:
        self._ledger.note(call)
        return {"lock": threading.Lock()}

    @ether_get
    def pid(self) -> int:
        return os.getpid()

    @ether_get
    def limit_files(self, size: int) -> None:
        """No file of this process may grow past `size` bytes; -1: any."""
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Relay:
    """Saves elsewhere, from inside of its own process."""

    @ether_get
    def pid(self) -> int:
        return os.getpid()

    @ether_get
    def relay(self, service: str, method: str, params: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        return ether.save(service, method, params, timeout_s=timeout_s)
