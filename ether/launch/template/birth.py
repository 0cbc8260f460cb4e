"""Makes a process that was just forked from the template what an instance's process is that was started by itself.

Promises: its standard streams, working directory, process group, signals, environment and command line are its own, the
ones that other programs see (`ps`, `/proc/PID/environ`) included; no generator of random numbers goes on from where
another instance's does; no file of the template is open in it. The traps: the system shows the environment and the
command line that a process was started with, so these are written over where they lie in memory, and there is as much
room as the template was started with; and what a library keeps that draws random numbers by itself is not known here,
so libraries are looked at before (`preload`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ether.launch.template.protocol import MARK_WIDTH, NAME_WIDTH, WORD
from ether.system.descendants import MARK


def become_instance(name: str, mark: str, files: Sequence[int], of_template: Iterable[int]) -> None:
    """In the forked process, before anything else. `files` as in `protocol`; `of_template` are the open files that the
    template needs, and nobody else."""
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    os.fchdir(files[3])
    for file in (*files, *of_template):
        os.close(file)
    if mark:
        os.environ[MARK] = mark
    else:
        os.environ.pop(MARK, None)
    show_mark(mark)
    rename(name)
    for words in (sys.argv, sys.orig_argv):
        words[-2:] = ["instance"]
    reseed()


def reseed() -> None:
    """New seeds for the generators that every process has, and for those of libraries that are imported. Python reseeds
    its own by itself after a fork."""
    if (random := getattr(sys.modules.get("numpy"), "random", None)) is not None:
        random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.seed()
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        processes.current_process().authkey = os.urandom(32)


def show_mark(mark: str) -> None:
    """Write the mark over the template's in the environment that the system shows."""
    begins, ends = _memory()[2:]
    old = f"{MARK}=".encode()
    block = _read(begins, ends)
    at = 0 if block.startswith(old) else block.index(b"\0" + old) + 1
    _write(begins + at + len(old), mark.encode().ljust(MARK_WIDTH, b"\0")[:MARK_WIDTH])


def rename(name: str) -> None:
    """Write `instance NAME` over the template's words on the command line that the system shows."""
    begins, ends = _memory()[:2]
    old = b"\0" + WORD.encode() + b"\0" + b"-" * NAME_WIDTH
    at = _read(begins, ends).index(old)
    _write(begins + at, (b"\0instance\0" + name.encode()[:NAME_WIDTH]).ljust(len(old), b"\0"))


def check_memory() -> None:
    """Raises `OSError` where this system does not let a process write over what it shows of itself."""
    begins, ends = _memory()[:2]
    with suppress(ValueError):
        _write(begins, _read(begins, ends))


def _memory() -> tuple[int, int, int, int]:
    """Where the command line begins and ends, and the environment (fields 48 to 51 of proc(5))."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46]), int(fields[47]), int(fields[48])


def _read(begins: int, ends: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(begins)
        return memory.read(ends - begins)


def _write(at: int, data: bytes) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(at)
        memory.write(data)
