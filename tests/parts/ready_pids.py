"""Which process is behind an instance of a test's session."""

from __future__ import annotations

from running_brokers import soon

from ether import Ether


def pid_of(ether: Ether, name: str) -> int:
    """Of the instance, as soon as it is ready."""
    found: list[int] = []

    def is_ready() -> bool:
        found.extend(int(it["pid"]) for it in ether.instances() if (it["name"], it["state"]) == (name, "ready"))
        return bool(found)

    assert soon(is_ready, 10)
    return found[0]
