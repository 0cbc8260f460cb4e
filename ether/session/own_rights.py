"""What an instance on another device may do beside what its decorators say: checked where it is done, before the broker
could refuse it, or (over MQTT 3.1.1) drop it without a word. Programs of the device that leads have all rights, and
nothing is checked for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ether.errors import NotAllowed
from ether.security.rights import covers, covers_filter

KEYS = ("publishes", "hears", "calls")


@dataclass(frozen=True, slots=True)
class OwnRights:
    """Users' topics and filters; `calls` are `service` or `service.method`."""

    instance: str
    publishes: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, instance: str, said: Mapping[str, Any], publishes: Iterable[str] = (), hears: Iterable[str] = ()
    ) -> OwnRights:
        """From the configuration (`KEYS`), and from the topics of the decorators."""
        first, second, calls = (tuple(map(str, said.get(key) or ())) for key in KEYS)
        return cls(instance, (*first, *publishes), (*second, *hears), calls)

    def check_publish(self, topic: str) -> None:
        """Raises `NotAllowed`."""
        if not any(covers(allowed, topic) for allowed in self.publishes):
            raise NotAllowed(self.instance, "publish", topic)

    def check_hear(self, topic_filter: str) -> None:
        """Raises `NotAllowed`."""
        if not any(covers_filter(allowed, topic_filter) for allowed in self.hears):
            raise NotAllowed(self.instance, "hear", topic_filter)

    def check_lease(self, service: str) -> None:
        """Raises `NotAllowed`: exclusive use takes the right to call all of it."""
        if service != self.instance and service not in self.calls:
            raise NotAllowed(self.instance, "call", service)

    def check_command(self, call: str) -> None:
        """Raises `NotAllowed`."""
        raise NotAllowed(self.instance, "command", call)

    def check_call(self, service: str, method: str) -> None:
        """Raises `NotAllowed`."""
        if service != self.instance and service not in self.calls and f"{service}.{method}" not in self.calls:
            raise NotAllowed(self.instance, "call", f"{service}.{method}")
