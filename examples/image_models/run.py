"""Follow cells through a stream of images with three models in three processes, and measure the latency of each stage.

python run.py [amqtt | mosquitto] [--frames 150]

Each message carries the time at which it was sent and the id of its parent message. The latencies are computed from
these.
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from image_models import RATE_HZ, SIZE, Camera, Denoiser, Segmenter, Tracker

from ether import ether

STAGES = {"cells/denoised": "denoise", "cells/objects": "segment", "cells/tracks": "track"}


class Sent(NamedTuple):
    """The facts that a message carries about itself."""

    topic: str
    time: float
    parents: tuple[str, ...]


class Latencies:
    """Milliseconds from the message that went into a stage to the one that came out, and from image to tracks."""

    def __init__(self) -> None:
        self._sent: dict[str, Sent] = {}
        self._tracks: list[Sent] = []

    def note(self, id: str, sent: Sent) -> None:
        """A message of the pipeline."""
        self._sent[id] = sent
        if sent.topic == "cells/tracks":
            self._tracks.append(sent)

    def chains(self, last: int = 0) -> list[list[Sent]]:
        """For each of the tracks, or the `last` ones, its messages from the image on, by their parents."""
        return [self._chain(sent) for sent in self._tracks[-last:]]

    def _chain(self, sent: Sent) -> list[Sent]:
        before = self._chain(self._sent[sent.parents[0]]) if sent.parents else []
        return [*before, sent]

    def stages(self) -> dict[str, list[float]]:
        """The latencies of each stage, by topic, in milliseconds."""
        found: dict[str, list[float]] = {topic: [] for topic in STAGES}
        for chain in self.chains():
            for before, after in pairwise(chain):
                found[after.topic].append((after.time - before.time) * 1e3)
        return found

    def totals(self, last: int = 0) -> list[float]:
        """The latencies from image to tracks, in milliseconds."""
        return [(chain[-1].time - chain[0].time) * 1e3 for chain in self.chains(last)]

    def images_per_second(self) -> float:
        """The messages in the order in which the camera sent the images."""
        times = [chain[0].time for chain in self.chains()]
        return (len(times) - 1) / (times[-1] - times[0])


def watch(frames: int) -> tuple[Latencies, dict[int, list[dict]], np.ndarray]:
    """Run the pipeline for so many frames; returns the latencies, the tracks by frame, and the last clean image."""
    latencies, tracks, clean = Latencies(), {}, np.zeros((SIZE, SIZE))
    with ether.subscribe("cells/+") as messages:
        ether.start()
        while not tracks or max(tracks) < frames - 1:
            message = messages.get(timeout_s=10)
            number = message.value["number"]
            latencies.note(message.id, Sent(message.topic, message.time, message.parents))
            if message.topic == "cells/denoised":
                clean = message.value["image"]
            if message.topic == "cells/tracks":
                tracks[number] = message.value["tracks"]
                if number % RATE_HZ == RATE_HZ - 1:
                    seconds, followed = (number + 1) // RATE_HZ, len(tracks[number])
                    newest = latencies.totals(RATE_HZ)
                    took = f"{np.median(newest):5.1f} ms (p50) {max(newest):5.1f} ms (longest)"
                    print(f"{seconds:3} s  {followed} cells  image to tracks {took}", flush=True)
    return latencies, tracks, clean


def by_hand(frames: int) -> tuple[dict[str, list[float]], dict[int, list[dict]]]:
    """The same classes in one loop of this process: milliseconds of each model, and the tracks by frame."""
    camera, tracks, took = Camera(), {}, {topic: [] for topic in STAGES}
    models = (Denoiser().denoise, Segmenter().segment, Tracker().track)
    for _ in range(frames):
        value = camera.expose()
        for topic, model in zip(STAGES, models, strict=True):
            began = time.perf_counter()
            value = model(**value)
            took[topic].append((time.perf_counter() - began) * 1e3)
        tracks[value["number"]] = value["tracks"]
    return took, tracks


def picture(clean: np.ndarray, tracks: list[dict]) -> str:
    """The clean image in letters, the darker the lighter, with the number of each cell."""
    rows, columns = SIZE // 4, SIZE // 2
    light = clean.reshape(rows, 4, columns, 2).mean(axis=(1, 3))
    grades = np.clip(light / max(light.max(), 1e-9) * 7, 0, 7).astype(int)
    letters = [[" .:-=+*#"[grade] for grade in row] for row in grades]
    for track in tracks:
        row, column = int(track["row"] / 4), int(track["column"] / 2)
        for place, digit in enumerate(str(track["cell"])):
            if 0 <= row < rows and 0 <= column + place < columns:
                letters[row][column + place] = digit
    edge = "+" + "-" * columns + "+"
    return "\n".join([edge, *("|" + "".join(row) + "|" for row in letters), edge])


def table(latencies: Latencies, alone: dict[str, list[float]]) -> str:
    """p50 and p99 of each stage in milliseconds, beside the model's own computing time."""
    lines = [f"{'':12}{'p50':>9}{'p99':>9}{'by hand':>12}"]
    stages = latencies.stages()
    for topic, name in STAGES.items():
        p50, p99 = np.percentile(stages[topic], [50, 99])
        lines.append(f"{name:12}{p50:6.1f} ms{p99:6.1f} ms{np.median(alone[topic]):9.1f} ms")
    p50, p99 = np.percentile(latencies.totals(), [50, 99])
    together = np.median(np.sum(list(alone.values()), axis=0))
    lines.append(f"{'end to end':12}{p50:6.1f} ms{p99:6.1f} ms{together:9.1f} ms")
    return "\n".join(lines)


def misplaced(truth: list[list[float]], tracks: list[dict]) -> float:
    """How far the nearest track is from where a cell really is: the median, in pixels."""
    found = [(track["row"], track["column"]) for track in tracks]
    return float(np.median([min(math.dist(place, each) for each in found) for place in truth]))


def main() -> None:
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("engine", nargs="?", choices=["amqtt", "mosquitto"], help="left out: the best that is there")
    options.add_argument("--frames", type=int, default=5 * RATE_HZ)
    chosen = options.parse_args()
    broker = {"engine": chosen.engine} if chosen.engine else None

    with ether.tap(Path(__file__).parent / "pipeline.yaml", broker=broker):
        latencies, tracks, clean = watch(chosen.frames)
        last = max(tracks)
        off = misplaced(ether.get("camera", "truth", last), tracks[last])
    alone, tracks_by_hand = by_hand(chosen.frames)

    print(picture(clean, tracks[last]))
    dropped = chosen.frames - sum(number < chosen.frames for number in tracks)
    same = all(tracks.get(number) == found for number, found in tracks_by_hand.items())
    rate = latencies.images_per_second()
    print(f"{chosen.frames} frames of {SIZE} x {SIZE} pixels at {rate:.1f} a second, {dropped} dropped")
    print(f"{len(tracks[last])} cells followed, {off:.1f} pixels from where they are")
    print(table(latencies, alone))
    print(f"By hand, in one loop, the tracks are {'the same' if same else 'DIFFERENT'}.")


if __name__ == "__main__":
    main()
