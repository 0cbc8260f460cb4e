"""Calls by Ether: `ether.get` from a program to an instance in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from calls_rig import CALL_WITHIN_S, START_WITHIN_S, Array, Caller, OpenCaller, Setup, Skipped, main

import ether
from ether.utils import get_ether_logger


class EtherCaller:
    """Any number of threads; `get` is a bound method of the one object."""

    def __init__(self, joined: ether.Ether) -> None:
        self._get = joined.get

    def echo(self, text: str) -> str:
        answer: str = self._get("Echo", "echo", {"text": text}, timeout_s=CALL_WITHIN_S)
        return answer

    def echo_array(self, array: Array) -> Array:
        answer: Array = self._get("Echo", "echo_array", {"array": array}, timeout_s=CALL_WITHIN_S)
        return answer


@contextmanager
def connect(setup: Setup) -> Iterator[OpenCaller]:
    missing = [
        name
        for name, there in (
            ("ether.get", hasattr(ether.Ether, "get")),
            ("ether_get", hasattr(ether, "ether_get")),
        )
        if not there
    ]
    if missing:
        raise Skipped(f"this version of Ether has no {' and no '.join(missing)}")
    get_ether_logger().setLevel(logging.WARNING)
    described = {"instances": {"echo": {"class_path": "calls_echo.Echo"}}}
    with ether.Ether().tap(described, broker=setup.url, timeout_s=START_WITHIN_S) as joined:
        caller = EtherCaller(joined)

        def open_caller() -> nullcontext[Caller]:
            return nullcontext(caller)

        yield open_caller


if __name__ == "__main__":
    main(connect)
