"""Classes for the tests of replays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ether import ether_pub, ether_sub


class Filter:
    """Arithmetic whose last bits differ at once where an input does."""

    @ether_sub(topic="signal")
    @ether_pub(topic="filtered")
    def filter(self, samples: Any, gain: float) -> dict[str, Any]:
        samples = np.asarray(samples)
        return {"samples": np.fft.irfft(np.fft.rfft(samples) * gain, samples.size), "mean": float(samples.mean())}
