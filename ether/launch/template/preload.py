"""Imports modules in the template process, and says which of them must not be there.

A fork copies memory, and of threads only the one that forks; files stay shared. So a module is at fault that leaves
threads, processes, open files or sockets (a GPU's driver is a file, too), and one that has drawn random numbers: every
instance would go on with the same ones. Promise: such a module is named, with what it has done, before an instance is
forked.
The trap: some libraries have threads that they end and start again around a fork (OpenBLAS), so threads are counted
behind a fork made on trial.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_IMPORT = "<frozen importlib"
_DRAW_FOR_THEMSELVES = (*sys.stdlib_module_names, "numpy")
"""Packages whose modules draw random numbers when they are imported, and are reseeded in each instance, or keep
nothing of them."""


def import_and_look(module: str) -> str | None:
    """Import a module; the reason why it must not be in a template process, None where it may."""
    files, state = _open_files(), random.getstate()
    with _draws() as drawn:
        try:
            importlib.import_module(module)
        except BaseException as error:  # noqa: BLE001  user code may raise anything
            return f"cannot be imported: {type(error).__name__}: {error}"
    if (threads := threads_left()) > 0:
        return f"has started {threads} {'thread' if threads == 1 else 'threads'}, which a fork ends"
    if children():
        return "has started a process, which would belong to no instance"
    if opened := sorted(set(_open_files().values()) - set(files.values())):
        if any("nvidia" in each or "/dev/kfd" in each or "/dev/dri" in each for each in opened):
            return "has begun to use the GPU (CUDA or ROCm), which no fork survives"
        return f"keeps open, for all instances together: {', '.join(opened[:3])}"
    if drawn or random.getstate() != state or _numpy_has_drawn():
        who = f" ({drawn[0]})" if drawn else ""
        return f"draws random numbers when it is imported{who}, which would be the same in all instances"
    return None


def threads_left() -> int:
    """How many threads beside this one are there when this process forks."""
    if _threads() == 1:
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is what is to be found out
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        left = _threads() - 1
    os.waitpid(pid, 0)
    return left


def children() -> list[int]:
    """The processes that this one has started, and has not waited for; none where the kernel lists none."""
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(pid) for pid in listed.read().split()]
    return []


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _open_files() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of this very listing
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return {number: target for number, target in found.items() if not target.startswith("/proc/")}


def _numpy_has_drawn() -> bool:
    """Whether NumPy's old global generator has been drawn from, or given a seed."""
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    if numpy_random is None:
        return False
    bits = numpy_random.mtrand._rand._bit_generator
    fresh = type(bits)().state["state"]["pos"]
    return bool(bits.state["state"]["pos"] != fresh or getattr(bits, "seed_seq", bits) is None)


@contextmanager
def _draws() -> Iterator[list[str]]:
    """Within the block, the modules that ask for random bytes, or make a generator, while they are imported."""
    drawn: list[str] = []

    def watched(function: Callable[..., Any], draws: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if draws(*args, **kwargs):
                name = _imported_around(sys._getframe(1))
                if name.partition(".")[0] not in _DRAW_FOR_THEMSELVES:
                    drawn.append(name)
            return function(*args, **kwargs)

        return call

    def unseeded(generator: object, seed: object = None, version: int = 2) -> bool:
        return seed is None

    places: list[tuple[Any, str, Callable[..., bool]]] = [
        (os, "urandom", lambda size: True),
        (random, "_urandom", lambda size: True),
        (random.Random, "seed", unseeded),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, draws in places:
        setattr(owner, name, watched(getattr(owner, name), draws))
    try:
        yield drawn
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _imported_around(frame: FrameType | None) -> str:
    """The module whose import this frame belongs to: the one nearest to Python's import."""
    name = ""
    while frame is not None and not frame.f_code.co_filename.startswith(_IMPORT):
        name = str(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return name
