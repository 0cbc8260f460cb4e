"""The instance of `gate.py`."""

from __future__ import annotations

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

    @ether_sub(topic="bench/qos0", qos=0)
    @ether_sub(topic="bench/qos1")
    def take(self, text: str) -> None:
        self.arrived += 1
