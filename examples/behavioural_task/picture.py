"""The mean response to each tone, as an SVG of a few lines, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from alignment import AFTER_S, BEFORE_S, Aligned

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 240, 50, 30
_EACH = 4
"""Samples that are averaged into one point; a screen shows no more."""
_TICKS_S = (-0.2, 0, 0.2, 0.4, 0.6)
_COLOURS = {"go": "#0072b2", "no-go": "#d55e00"}


def drawn(trials: Mapping[str, Sequence[Aligned]]) -> str:
    """The picture: for each tone the mean over its trials and over all channels."""
    means = {cue: np.mean([trial.window.mean(axis=1) for trial in found], axis=0) for cue, found in trials.items()}
    low, high = min(map(np.min, means.values())), max(map(np.max, means.values()))
    lines = [_frame(low, high)]
    for row, (cue, mean) in enumerate(means.items()):
        colour = _COLOURS.get(cue, "black")
        lines.append(f'<polyline fill="none" stroke="{colour}" points="{_points(mean, low, high)}"/>')
        lines.append(
            f'<text x="{_WIDTH - 110}" y="{30 + 18 * row}" fill="{colour}">{cue}, {len(trials[cue])} trials</text>'
        )
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    body = "\n".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'


def _frame(low: float, high: float) -> str:
    cue, floor = _across(BEFORE_S), _HEIGHT - _BOTTOM
    return "\n".join([
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<line x1="{cue}" y1="10" x2="{cue}" y2="{floor}" stroke="#888" stroke-dasharray="4"/>',
        f'<text x="{cue + 4}" y="22" fill="#555">tone</text>',
        *(f'<text x="{_across(BEFORE_S + at) - 10:.0f}" y="{_HEIGHT - 10}">{at:g} s</text>' for at in _TICKS_S),
        f'<text x="4" y="20">{high:.0f} µV</text>', f'<text x="4" y="{floor}">{low:.0f} µV</text>',
    ])  # fmt: skip


def _points(mean: np.ndarray, low: float, high: float) -> str:
    mean = mean.reshape(-1, _EACH).mean(axis=1)
    up = (mean - low) / (high - low) * (_HEIGHT - _BOTTOM - 10)
    across = (_across((number + 0.5) * _EACH / 1000) for number in range(len(mean)))
    return " ".join(f"{x:.1f},{_HEIGHT - _BOTTOM - y:.1f}" for x, y in zip(across, up, strict=True))


def _across(seconds: float) -> float:
    return _LEFT + seconds / (BEFORE_S + AFTER_S) * (_WIDTH - _LEFT - 10)
