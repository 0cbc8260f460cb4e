"""A class whose instance has more to say than its broker takes."""

from __future__ import annotations

import time

from ether import ether_get, ether_pub


class Flooding:
    """Floods, and answers beside it."""

    def __init__(self) -> None:
        self.answered = 0

    @ether_pub(topic="flood")
    def say(self, number: int) -> int:
        return number

    @ether_get(concurrency=2)
    def flood(self, count: int) -> tuple[float, float]:
        """Publish; begin and end of the slowest publish, in seconds of the machine's steady clock."""
        slowest = (0.0, 0.0)
        for number in range(count):
            began = time.monotonic()
            self.say(number)
            ended = time.monotonic()
            if ended - began > slowest[1] - slowest[0]:
                slowest = began, ended
        return slowest

    @ether_get
    def quick(self, number: int) -> int:
        self.answered += 1
        return number

    @ether_get
    def ran(self) -> int:
        return self.answered
