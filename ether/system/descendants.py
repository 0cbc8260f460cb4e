"""Finds the processes that another process has started, also those that hide: by a mark in their environment.

A process that calls `setsid`, or forks twice and lets its parent end, leaves its process group and its place among its
parent's children. It keeps the environment that it was started with. So whoever starts a process puts a mark there, and
finds it again in everything that descends from it.

Promise: a signal reaches the process that was found, never one that has its number now. The traps: only Linux shows
the environment of processes, elsewhere the table is empty; and a descendant that was given an empty environment is only
found by its group, or by its parent while that lives.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

MARK = "ETHER_PROCESS_OF"
"""The environment variable that marks a process and what descends from it."""

_PREFIX = f"{MARK}=".encode()
_SAME_S = 0.05
"""For so long a table is the same for everybody: instances that end together are looked for together."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this user that is not a zombie. `started` is in clock ticks since the system's start, and makes a
    process unique together with its number."""

    pid: int
    parent: int
    group: int
    started: int
    mark: str

    def signal(self, number: int) -> None:
        """Send a signal; nothing where it has ended, even where another process has its number."""
        try:
            handle = os.pidfd_open(self.pid)
        except (OSError, AttributeError):  # it has ended; or the kernel, a sandbox or this Python has no such handles
            with suppress(OSError):
                if self._is_there():
                    os.kill(self.pid, number)
            return
        with suppress(OSError):
            try:
                if self._is_there():
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def _is_there(self) -> bool:
        now = _read(self.pid)
        return now is not None and now.started == self.started

    def command(self) -> str:
        """What it runs, for people."""
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                words = file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            words = ""
        return words or "?"


_lock = threading.Lock()
_latest: tuple[float, Mapping[int, Process]] = (float("-inf"), {})


def process_table(*, anew: bool = False) -> Mapping[int, Process]:
    """The processes of this user, by number; empty where the system does not show them. `anew`: none whose making began
    before this call. Those who wait for one that is being made share the next one."""
    global _latest
    not_before = time.monotonic() - (0.0 if anew else _SAME_S)
    with _lock:
        began, table = _latest
        if began < not_before:
            began = time.monotonic()
            table = {p.pid: p for p in map(_read, _numbers()) if p is not None}
            _latest = began, table
        return table


def descendants(table: Mapping[int, Process], mark: str, group: int, known: Iterable[Process]) -> dict[int, Process]:
    """Those of the table that have the mark, are in the group, or were `known` before; and their children, as far as
    these have no other mark: those belong to somebody else, who looks after them."""
    found = {p.pid: p for p in table.values() if p.mark == mark or p.group == group}
    found |= {p.pid: p for p in known if (now := table.get(p.pid)) is not None and now.started == p.started}
    new = set(found) | {group}
    while new:
        children = [p for p in table.values() if p.parent in new and p.pid not in found and p.mark in ("", mark)]
        found |= {p.pid: p for p in children}
        new = {p.pid for p in children}
    return found


def _numbers() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:  # not Linux
        return []


def _read(pid: int) -> Process | None:
    """None for a process of another user, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
        with open(f"/proc/{pid}/stat", "rb") as file:
            facts = file.read().rpartition(b")")[2].split()  # the command's name may hold anything but the last bracket
    except OSError:
        return None
    if len(facts) < 20 or facts[0] in (b"Z", b"X"):
        return None
    mark = next((item[len(_PREFIX) :] for item in environment.split(b"\0") if item.startswith(_PREFIX)), b"")
    return Process(pid, int(facts[1]), int(facts[2]), int(facts[19]), mark.decode("ascii", "replace"))
