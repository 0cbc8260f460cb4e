"""The instance of `test_no_circles`, and what it and the test count with."""

from __future__ import annotations

import gc

from ether import ether_get, ether_pub, ether_save, ether_sub, ether_sync


def unreachable() -> int:
    """How many objects nothing but themselves held; they are gone then."""
    return gc.collect()


class Far:
    """What the test calls and sends to."""

    @ether_get
    def echo(self, text: str) -> str:
        return text

    @ether_get
    async def echo_later(self, text: str) -> str:
        return text

    @ether_get
    def fail(self) -> str:
        raise ValueError("as asked")

    @ether_save
    def keep(self, text: str) -> str:
        return text

    @ether_sync(topic="prepare")
    def prepare(self, text: str) -> str:
        return text

    @ether_sub(topic="taken/0", qos=0)
    @ether_sub(topic="taken/1")
    def take(self, text: str) -> None:
        pass

    @ether_sub(topic="staged")
    @ether_pub(topic="staged/on")
    def stage(self, text: str) -> str:
        return text

    @ether_get
    def begin(self) -> int:
        """From now on nothing is collected."""
        found = unreachable()
        gc.disable()
        return found

    @ether_get
    def found(self) -> int:
        gc.enable()
        return unreachable()
