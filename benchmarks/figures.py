"""What the benchmarks measure, and how they print it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

TOPIC = "bench/plain"
PAD = "x" * 12
"""Makes a body of about 64 bytes."""


def summarise(arrived: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Arrivals as (received, sent) in nanoseconds of the machine's monotonic clock."""
    delays = sorted((received - sent) / 1000 for received, sent in arrived)
    first_sent = min(sent for _, sent in arrived)
    seconds = (max(received for received, _ in arrived) - first_sent) / 1e9
    return {
        "count": len(arrived),
        "rate": len(arrived) / seconds,
        "p50_us": delays[len(delays) // 2],
        "p99_us": delays[int(len(delays) * 0.99)],
    }


def median(rows: Sequence[dict[str, Any]], key: str) -> float:
    """The median of one figure over the rounds."""
    return statistics.median(row[key] for row in rows)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
