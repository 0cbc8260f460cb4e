"""The parts of the same pipeline, written without Ether."""

from __future__ import annotations


class Generator:
    """Produces a number."""

    def generate(self, data: int = 42) -> dict[str, int]:
        return {"data": data}


class Processor:
    """Multiplies numbers."""

    def __init__(self, name: str, multiplier: int = 2) -> None:
        self.name = name
        self.multiplier = multiplier

    def process(self, data: int = 0) -> dict[str, object]:
        return {"result_name": self.name, "value": data * self.multiplier}


class Collector:
    """Keeps the latest result of each processor, and sums them up."""

    def __init__(self) -> None:
        self.results: dict[str, float] = {}

    def collect(self, result_name: str, value: float) -> None:
        self.results[result_name] = value

    def summarize(self) -> None:
        values = list(self.results.values())
        mean = sum(values) / len(values)
        print(f"Summary of {len(values)} - mean: {mean}, max: {max(values)}, min: {min(values)}")
