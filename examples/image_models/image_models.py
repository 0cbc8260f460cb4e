"""A camera and three small models that follow cells through its images: denoise, segment, track.

Ordinary classes in plain numpy. The decorators mark what Ether shall do with them; `run.py` uses them both ways. The
scene is simulated, so where the cells really are is known; all that follows is computed from the noisy images alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ether import ether_every, ether_get, ether_pub, ether_start, ether_sub

SIZE = 128
RATE_HZ = 30
RADIUS = 3.0
"""Of a cell: the standard deviation of its light, in pixels."""
_REACH = 5
"""The filter sees this many pixels in each direction."""
_WIDTH = 2 * _REACH + 1


class Scene:
    """Cells that wander about a dish and turn round at its walls; light and noise as a camera has them."""

    def __init__(self, cells: int = 7, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._places = self._random.uniform(16, SIZE - 16, (cells, 2))
        self._steps = self._random.normal(0, 0.5, (cells, 2))
        self._light = self._random.uniform(35, 70, cells)
        self._background = np.tile(40 + 25 * np.arange(SIZE) / SIZE, (SIZE, 1))  # the lamp stands to the right

    def advance(self) -> np.ndarray:
        """One frame later; returns where the cells are, as (cells, 2) rows and columns."""
        self._steps += self._random.normal(0, 0.05, self._steps.shape)
        for axis in range(2):
            beyond = (self._places[:, axis] < 10) | (self._places[:, axis] > SIZE - 10)
            inwards = np.sign(SIZE / 2 - self._places[:, axis])
            self._steps[beyond, axis] = inwards[beyond] * np.abs(self._steps[beyond, axis])
        self._places = self._places + self._steps
        return self._places

    def signal(self) -> np.ndarray:
        """The cells' own light: (SIZE, SIZE) photons, without background and noise."""
        away = np.arange(SIZE) - self._places[:, :, None]
        rows, columns = np.exp(-(away**2) / (2 * RADIUS**2)).transpose(1, 0, 2)
        return np.einsum("c,cy,cx->yx", self._light, rows, columns, optimize=True)

    def exposure(self) -> np.ndarray:
        """What the camera counts: (SIZE, SIZE) uint16, with photon noise and read noise."""
        photons = self._random.poisson(self._background + self.signal())
        return np.clip(photons + self._random.normal(0, 6, photons.shape), 0, 65535).astype(np.uint16)


class Camera:
    """Exposes 30 times a second from `start` on."""

    def __init__(self, seed: int = 1) -> None:
        self._scene = Scene(seed=seed)
        self._truth: list[list[list[float]]] = []
        self._runs = False

    @ether_start
    def begin(self) -> None:
        self._runs = True

    @ether_every(f"{RATE_HZ}Hz")
    def tick(self) -> None:
        if self._runs:
            self.expose()

    @ether_pub(topic="cells/image")
    def expose(self) -> dict[str, Any]:
        self._truth.append(self._scene.advance().tolist())
        return {"number": len(self._truth) - 1, "image": self._scene.exposure()}

    @ether_get
    def truth(self, number: int) -> list[list[float]]:
        """Where the cells were in that frame: row and column."""
        return self._truth[number]


class Denoiser:
    """A filter of 11 × 11 weights, learned from simulated pairs of a noisy and a clean image by ridge regression."""

    def __init__(self, images: int = 6, seed: int = 100) -> None:
        squares, products = 0.0, 0.0
        for number in range(images):
            scene = Scene(cells=12, seed=seed + number)
            seen, clean = _neighbourhoods(_padded(scene.exposure())), scene.signal().ravel()
            squares, products = squares + seen.T @ seen, products + seen.T @ clean
        weights = np.linalg.solve(squares + 1e3 * np.eye(_WIDTH**2), products)
        kernel = np.zeros((SIZE + 2 * _REACH, SIZE + 2 * _REACH))
        kernel[:_WIDTH, :_WIDTH] = weights.reshape(_WIDTH, _WIDTH)
        self._spectrum = np.conj(np.fft.rfft2(kernel))

    @ether_sub(topic="cells/image")
    @ether_pub(topic="cells/denoised")
    def denoise(self, number: int, image: np.ndarray) -> dict[str, Any]:
        padded = _padded(image)
        clean = np.fft.irfft2(np.fft.rfft2(padded) * self._spectrum, padded.shape)
        return {"number": number, "image": clean[:SIZE, :SIZE].astype(np.float32)}


def _padded(image: np.ndarray) -> np.ndarray:
    """How much brighter or darker than their median the pixels are, with a mirrored margin as wide as the filter."""
    return np.pad(image.astype(float) - np.median(image), _REACH, mode="reflect")


def _neighbourhoods(padded: np.ndarray) -> np.ndarray:
    """What the filter sees around each pixel: (pixels, weights)."""
    return sliding_window_view(padded, (_WIDTH, _WIDTH)).reshape(-1, _WIDTH**2)


class Segmenter:
    """Divides light from dark by Otsu's threshold, and light into connected cells."""

    def __init__(self, smallest: int = 20) -> None:
        self._smallest = smallest

    @ether_sub(topic="cells/denoised")
    @ether_pub(topic="cells/objects")
    def segment(self, number: int, image: np.ndarray) -> dict[str, Any]:
        labels = connected(image > otsu(image))
        rows, columns = np.indices(image.shape)
        objects = []
        for label in np.unique(labels[labels > 0]):
            inside = labels == label
            if (area := int(inside.sum())) >= self._smallest:
                light = np.where(inside, image, 0).astype(float)
                row, column = (rows * light).sum() / light.sum(), (columns * light).sum() / light.sum()
                objects.append({"row": float(row), "column": float(column), "area": area})
        return {"number": number, "objects": objects}


def otsu(image: np.ndarray) -> float:
    """The threshold that leaves the least variance within the two classes (Otsu 1979)."""
    counts, edges = np.histogram(image, bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    light = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (light / below - (light[-1] - light) / above) ** 2
    return float(middles[np.nanargmax(between)])


def connected(mask: np.ndarray) -> np.ndarray:
    """A label for each connected area of a mask, 0 outside: every pixel takes the largest label next to it until all of
    an area have the same."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        grown = labels.copy()
        np.maximum(grown[1:], labels[:-1], out=grown[1:])
        np.maximum(grown[:-1], labels[1:], out=grown[:-1])
        np.maximum(grown[:, 1:], labels[:, :-1], out=grown[:, 1:])
        np.maximum(grown[:, :-1], labels[:, 1:], out=grown[:, :-1])
        grown[~mask] = 0
        if (grown == labels).all():
            return labels
        labels = grown


class Tracker:
    """A Kalman filter of constant velocity for each cell; the nearest object belongs to it."""

    _motion = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    _process = np.diag([0.01, 0.01, 0.02, 0.02])
    _sight = np.eye(2, 4)

    def __init__(self, gate: float = 8.0, patience: int = 10) -> None:
        """`gate`: the farthest that a cell may be from where it is expected, in pixels; `patience`: for how many frames
        it may be out of sight."""
        self._gate, self._patience = gate, patience
        self._tracks: dict[int, _Track] = {}
        self._last = 0

    @ether_sub(topic="cells/objects")
    @ether_pub(topic="cells/tracks")
    def track(self, number: int, objects: list[dict[str, float]]) -> dict[str, Any]:
        for track in self._tracks.values():
            track.state = self._motion @ track.state
            track.spread = self._motion @ track.spread @ self._motion.T + self._process
            track.unseen += 1
        unmatched = [np.array([each["row"], each["column"]]) for each in objects]
        for track, index in self._pairs(unmatched):
            self._correct(track, unmatched[index])
            unmatched[index] = None
        for place in unmatched:
            if place is not None:
                self._last += 1
                self._tracks[self._last] = _Track(place)
        self._tracks = {name: each for name, each in self._tracks.items() if each.unseen <= self._patience}
        return {"number": number, "tracks": [each.described(name) for name, each in self._tracks.items()]}

    def _pairs(self, places: list[np.ndarray]) -> list[tuple[_Track, int]]:
        """Tracks and indices of objects, the nearest ones first, each at most once."""
        distances = sorted(
            (float(np.hypot(*(place - each.state[:2]))), name, index)
            for name, each in self._tracks.items()
            for index, place in enumerate(places)
        )
        names: dict[int, int] = {}
        for distance, name, index in distances:
            if distance <= self._gate and name not in names and index not in names.values():
                names[name] = index
        return [(self._tracks[name], index) for name, index in names.items()]

    def _correct(self, track: _Track, place: np.ndarray) -> None:
        error = self._sight @ track.spread @ self._sight.T + 0.3 * np.eye(2)
        gain = track.spread @ self._sight.T @ np.linalg.inv(error)
        track.state = track.state + gain @ (place - self._sight @ track.state)
        track.spread = (np.eye(4) - gain @ self._sight) @ track.spread
        track.unseen, track.seen = 0, track.seen + 1


class _Track:
    """Place and velocity of one cell, and how sure they are."""

    def __init__(self, place: np.ndarray) -> None:
        self.state = np.concatenate([place, [0.0, 0.0]])
        self.spread = np.diag([1.0, 1.0, 2.0, 2.0])
        self.seen, self.unseen = 1, 0

    def described(self, name: int) -> dict[str, Any]:
        row, column, down, right = self.state.tolist()
        return {"cell": name, "row": row, "column": column, "velocity": [down, right], "seen": self.seen}
