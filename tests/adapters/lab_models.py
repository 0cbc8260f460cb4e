"""Models of instruments for tests, named by their path in a lab's YAML."""

from __future__ import annotations

from hardware_adapters.simulate import SimulatedInstrument


class Valve(SimulatedInstrument):
    """Opens and closes, and lets the oven's heat out while it is open."""

    def __init__(self, name: str, identity: str, start: str = "closed") -> None:
        super().__init__(name, identity)
        self._start = self._state = start

    def reset(self) -> None:
        self._state = self._start

    def answer(self, command: str) -> str | None:
        if command in {"OPEN", "CLOSE"}:
            self._state = command.lower()
            return None
        return {"STATE?": self._state}[command]


class NoInstrument:
    """Cannot be a model."""
