"""Classes that the tests of calls host; instances import them by name.

What they did stands in a ledger: a folder with a file for each process, one line for each execution, written before
the method does anything else, so that it outlives kill -9.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ether import ether, ether_get, ether_save, ether_save_all, ether_sub
from ether.errors import CallError

SAVED = "saved"
"""Stands in the ledger for `save_all`."""


def right_answer(call: str, number: int) -> dict[str, Any]:
    """The one answer to a call; no two calls have the same."""
    return {"call": call, "answer": number * number + 7}


class Ledger:
    """The executions of one process."""

    def __init__(self, folder: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(Path(folder) / f"{os.getpid()}", flags, 0o600)

    def note(self, call: str) -> None:
        """This call is being executed."""
        os.write(self._file, f"{call}\n".encode())


def executions(folder: Path) -> Counter[str]:
    """How often each call was executed, by whomever."""
    return Counter(line for file in folder.iterdir() for line in file.read_text().splitlines())


class Tally:
    """Answers, and notes each call that it executes."""

    def __init__(self, ledger: str) -> None:
        self._ledger = Ledger(ledger)

    @ether_get
    def answer(self, call: str, number: int) -> dict[str, Any]:
        self._ledger.note(call)
        return right_answer(call, number)

    @ether_save
    def keep(self, call: str, number: int) -> dict[str, Any]:
        return self.answer(call, number)

    @ether_get
    def doze(self, call: str, seconds: float) -> str:
        """Say on the topic `dozing` that it has begun, and be busy for a while."""
        self._ledger.note(call)
        ether.pub({"call": call, "pid": os.getpid()}, topic="dozing")
        time.sleep(seconds)
        return call

    @ether_save_all
    def save_all(self) -> None:
        self._ledger.note(SAVED)

    @ether_get
    def hold(self, call: str, gate: str) -> str:
        """As `doze`, until somebody has written into the named pipe."""
        self._ledger.note(call)
        ether.pub({"call": call, "pid": os.getpid()}, topic="dozing")
        Path(gate).read_text()
        return call


class Caller:
    """Calls others, from inside of its own process, and tells what came of it."""

    @ether_get
    def relay(self, service: str, seconds: float, timeout_s: float) -> dict[str, Any]:
        """Call somebody who dozes; when it failed and how, on the clock of this machine."""
        deadline, error = time.monotonic() + timeout_s, None
        try:
            ether.get(service, "doze", {"call": f"relayed to {service}", "seconds": seconds}, timeout_s=timeout_s)
        except CallError as told:
            error = type(told).__name__
        return {"error": error, "at": time.monotonic(), "deadline": deadline}

    @ether_sub(topic="call-on")
    def call_on(self, service: str, threads: int) -> None:
        """Call somebody from several threads until killed. After the first right answer and after every hundred, tell
        it on `called`."""
        assert ether.get(service, "answer", {"call": f"{os.getpid()}-first", "number": 0})["answer"] == 7
        ether.pub({"pid": os.getpid(), "right": 1, "wrong": 0}, topic="called")
        workers = [threading.Thread(target=self._call_on, args=(service, n), daemon=True) for n in range(threads)]
        for worker in workers:
            worker.start()

    def _call_on(self, service: str, thread: int) -> None:
        right = wrong = 0
        for number in range(1_000_000):
            call = f"{os.getpid()}-{thread}-{number}"
            try:
                given = ether.get(service, "answer", {"call": call, "number": number}, timeout_s=0.3)
            except CallError:
                continue
            if given == right_answer(call, number):
                right += 1
            else:
                wrong += 1
            if wrong or right % 100 == 0:
                ether.pub({"pid": os.getpid(), "right": right, "wrong": wrong}, topic="called")
