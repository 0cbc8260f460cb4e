"""From recorded pieces and the times of tones to one window of samples around each tone.

Pure numpy: its input is a recording, of today or of last year. The trap: with two clocks every latency is wrong by
their difference. Here both times come from one machine; on two machines, synchronise the clocks by PTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

RATE_HZ = 1000
BEFORE_S, AFTER_S = 0.2, 0.8
_HELD = 3
"""A response begins at the first of so many consecutive samples that stand out of the noise."""


class Recording(NamedTuple):
    """All samples (samples, channels), the time of the first one, and how many are missing in between."""

    samples: np.ndarray
    began: float
    missing: int


class Aligned(NamedTuple):
    """The window around a tone: (1000, channels) microvolts, the tone at sample 200. `onset_ms` is the beginning of the
    response, None where nothing stands out of the noise; `peak_uv` its height, over all channels."""

    window: np.ndarray
    onset_ms: float | None
    peak_uv: float


def joined(pieces: Iterable[Mapping[str, Any]]) -> Recording:
    """The pieces as one recording. Missing samples are NaN, so that all others keep their time."""
    ordered = sorted(pieces, key=lambda piece: piece["first"])
    first = ordered[0]["first"]
    end = ordered[-1]["first"] + len(ordered[-1]["samples"])
    samples = np.full((end - first, ordered[0]["samples"].shape[1]), np.nan)
    for piece in ordered:
        at = piece["first"] - first
        samples[at : at + len(piece["samples"])] = piece["samples"]
    return Recording(samples, ordered[0]["began"] + first / RATE_HZ, int(np.isnan(samples[:, 0]).sum()))


def around(recording: Recording, cue_time: float) -> Aligned:
    """The window around a tone, found by time alone."""
    at = round((cue_time - BEFORE_S - recording.began) * RATE_HZ)
    window = recording.samples[max(at, 0) : at + round((BEFORE_S + AFTER_S) * RATE_HZ)]
    mean = window.mean(axis=1)
    cue = round(BEFORE_S * RATE_HZ)
    quiet, after = mean[:cue], mean[cue:]
    stands_out = after > np.nanmean(quiet) + 5 * np.nanstd(quiet)
    held = np.convolve(stands_out, np.ones(_HELD, int), "valid") == _HELD
    onset = float(np.argmax(held)) * 1000 / RATE_HZ if held.any() else None
    return Aligned(window, onset, float(np.nanmax(after)))
