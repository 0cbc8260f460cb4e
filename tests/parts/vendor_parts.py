"""Drivers as vendors ship them: nothing of Ether, hints for a type checker alone, results that are objects of theirs;
instances import them by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal


class Oven:
    """Reproducer I4."""

    def __init__(self) -> None:
        self.watts: Any = 0

    def read(self) -> float:
        return 20.0

    def set_power(self, watts: Decimal) -> None:
        self.watts = watts

    def power(self) -> Decimal:
        return self.watts  # type: ignore[no-any-return]


class Reply:
    """What a driver answers: no plain value."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Plc:
    """Reproducer I7."""

    def __init__(self) -> None:
        self.registers: dict[int, int] = {}

    def write_register(self, address: int, value: int) -> Reply:
        self.registers[address] = value
        return Reply()

    def write_quietly(self, address: int, value: int) -> Reply:
        return self.write_register(address, value)

    def save_register(self, address: int, value: int) -> Reply:
        return self.write_register(address, value)

    def write_and_tell(self, address: int, value: int) -> Reply:
        return self.write_register(address, value)

    def prepare(self) -> Reply:
        return Reply()

    def read(self, address: int) -> str:
        return self.registers.get(address, 0)  # type: ignore[return-value]  # a wrong hint


REGISTRY: dict[str, Any] = {
    "vendor_parts.Oven": {"methods": {name: {"ether_get": {}} for name in ("read", "set_power", "power")}},
    "vendor_parts.Plc": {
        "methods": {
            "write_register": {"ether_get": {}},
            "write_quietly": {"ether_get": {}, "result": "ignore"},
            "save_register": {"ether_save": {}},
            "write_and_tell": {"ether_get": {}, "ether_pub": {"topic": "written"}},
            "prepare": {"ether_sync": {"topic": "prepare"}},
            "read": {"ether_get": {}},
        }
    },
    "collections.deque": {
        "methods": {
            "append": {"ether_get": {}},
            "popleft": {"ether_get": {}, "ether_pub": {"topic": "popped"}},
            "rotate": {"ether_get": {}, "ether_sub": {"topic": "turn"}},
        }
    },
}
INSTANCES = {
    "oven": {"class_path": "vendor_parts.Oven"},
    "plc": {"class_path": "vendor_parts.Plc"},
    "cam": {"class_path": "collections.deque", "args": [[1, 2]]},
}
