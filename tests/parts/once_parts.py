"""A pump that is dosed over a foreign topic, on which several of its methods listen."""

from __future__ import annotations

from ether import ether_get, ether_sub


class Pump:
    """The reproducer of V6, with filters that overlap besides."""

    def __init__(self) -> None:
        self.heard: dict[str, list[int]] = {"dose": [], "note": [], "wide": [], "across": [], "both": []}

    @ether_sub(topic="mqtt:bench/dose")
    def dose(self, value: int) -> None:
        self.heard["dose"].append(value)

    @ether_sub(topic="mqtt:bench/dose")
    def note(self, value: int) -> None:
        self.heard["note"].append(value)

    @ether_sub(topic="mqtt:bench/+")
    def wide(self, value: int) -> None:
        self.heard["wide"].append(value)

    @ether_sub(topic="mqtt:+/dose")
    def across(self, value: int) -> None:
        self.heard["across"].append(value)

    @ether_sub(topic="mqtt:bench/dose")
    @ether_sub(topic="mqtt:bench/#")
    def both(self, value: int) -> None:
        self.heard["both"].append(value)

    @ether_get
    def done(self) -> dict[str, list[int]]:
        return self.heard


class Own:
    """The same inside of the session."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @ether_sub(topic="go/now")
    def exact(self, n: int) -> None:
        self.heard.append(f"exact {n}")

    @ether_sub(topic="go/+")
    def wide(self, n: int) -> None:
        self.heard.append(f"wide {n}")

    @ether_sub(topic="+/now")
    def across(self, n: int) -> None:
        self.heard.append(f"across {n}")

    @ether_get
    def done(self) -> list[str]:
        return self.heard
