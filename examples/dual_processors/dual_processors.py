"""Four parts of a pipeline: a generator, a processor that runs twice, and a collector.

These are ordinary classes. The decorators only mark methods for Ether; `run.py` uses the classes both ways.
"""

from __future__ import annotations

from ether import ether_pub, ether_start, ether_sub


class DataGenerator:
    """Produces a number."""

    @ether_start()
    @ether_pub(topic="data")
    def generate_data(self, data: int = 42) -> dict[str, int]:
        print(f"Generating data: {data}")
        return {"data": data}


class DataProcessor:
    """Multiplies numbers."""

    def __init__(self, name: str, multiplier: int = 2) -> None:
        self.name = name
        self.multiplier = multiplier

    @ether_sub(topic="data")
    @ether_pub(topic="result")
    def process_data(self, data: int = 0) -> dict[str, object]:
        result = data * self.multiplier
        print(f"{self.name}: {data} x {self.multiplier} = {result}")
        return {"result_name": self.name, "value": result}


class DataCollector:
    """Keeps the latest result of each processor, and sums them up."""

    def __init__(self) -> None:
        self.results: dict[str, float] = {}

    @ether_sub(topic="result")
    @ether_pub(topic="summarize")
    def collect_result(self, result_name: str, value: float) -> None:
        self.results[result_name] = value

    @ether_sub(topic="summarize")
    def summarize(self) -> None:
        values = list(self.results.values())
        mean = sum(values) / len(values)
        print(f"Summary of {len(values)} - mean: {mean}, max: {max(values)}, min: {min(values)}")
