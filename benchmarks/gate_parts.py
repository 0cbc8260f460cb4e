"""The instance of `gate.py` and of `side_by_side.py`."""

from __future__ import annotations

import sys

from ether import ether_get, ether_sub


class Far:
    """What calls and messages go to."""

    def __init__(self) -> None:
        self.arrived = 0

    @ether_get
    def echo(self, text: str) -> str:
        return text

    @ether_get
    def count(self) -> int:
        return self.arrived

    @ether_get
    def instructions(self) -> int:
        return int(sys.ether_instructions[0])  # type: ignore[attr-defined]

    @ether_sub(topic="bench/qos0", qos=0)
    @ether_sub(topic="bench/qos1")
    def take(self, text: str) -> None:
        self.arrived += 1
