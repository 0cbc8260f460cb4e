"""An animal at a task, and its neural activity. Both are simulated; a lab would have the same classes.

`Task` runs a Gymnasium environment in real time, `Physiology` samples 8 channels 1,000 times a second. What connects
them in a lab is the animal: its brain hears the tone when it sounds. Here the tone's time travels by a message, and the
simulated brain answers `NEURAL_LATENCY_S` after that time. The analysis does not know this number: it has to find it in
the recording. The trap: samples that were taken before the message came cannot be changed any more, so a message that
is more than 70 ms late makes the answer late, too.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from ether import ether, ether_get, ether_pub, ether_sub, ether_sync
from ether.errors import MissingExtra

CHANNELS, RATE_HZ = 8, 1000
NEURAL_LATENCY_S = 0.120


class Animal:
    """A trained animal: it licks at most go tones, and sometimes at the other tone."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._licks_after: float | None = None

    def hears(self, observation: int, heard_s: float) -> int:
        """The action: 1 is a lick. `heard_s` is how long the tone has sounded, in seconds."""
        if observation == 0:
            self._licks_after = None
            return 0
        if self._licks_after is None:
            wants = self._random.random() < (0.95 if observation == 1 else 0.2)
            self._licks_after = float(self._random.normal(0.30, 0.04)) if wants else 9.0
        return int(heard_s >= self._licks_after)


class Task:
    """One trial after the other, in real time: 10 ms are 10 ms."""

    def __init__(self, seed: int = 1) -> None:
        try:
            from cue_task import STEP_S, CueTask
        except ModuleNotFoundError as error:
            if error.name != "gymnasium":
                raise
            raise MissingExtra("the behavioural task", "gymnasium", "gym") from error
        self._env, self._animal, self._step_s = CueTask(), Animal(seed), STEP_S
        self._never = threading.Event()

    @ether_sync(topic="prepare_trial")
    def prepare(self, trial: int, cue: str) -> None:
        """The tone is the trial's condition; the environment chooses when it sounds."""
        self._observation, _ = self._env.reset(seed=trial, options={"cue": cue})

    @ether_get
    def play(self) -> dict[str, Any]:
        """One trial, from the silence to the answer. Times are unix seconds; the reaction is in seconds after the
        tone."""
        began, steps, cue_time, over = time.time(), 0, 0.0, False
        reward, info = 0.0, {}
        while not over:
            heard_s = time.time() - cue_time if cue_time else 0.0
            action = self._animal.hears(self._observation, heard_s)
            before = self._observation
            self._observation, reward, over, _, info = self._env.step(action)
            if self._observation and not before:
                cue_time = time.time()
                self.sound(self._observation, cue_time)
            steps += 1
            self._never.wait(max(0.0, began + steps * self._step_s - time.time()))
        return {"cue_time": cue_time, "reward": float(reward), "reaction_s": info.get("reaction_s")}

    def sound(self, tone: int, cue_time: float) -> None:
        """Start the tone: a loudspeaker would be driven here. Its time is recorded."""
        ether.pub({"tone": tone, "time": cue_time}, topic="task/cue")


class Physiology:
    """8 channels of microvolts at 1 kHz, in pieces of about 50 ms, without a gap from one to the next.

    Sample number `i` was taken at `began + i / 1000`, by this machine's clock.
    """

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._gains = self._random.uniform(40, 120, CHANNELS)
        self._began, self._steady, self._sampled = time.time(), time.monotonic(), 0
        self._responses: list[int] = []
        """The samples at which responses begin."""

    @ether_sub(topic="task/cue")
    def hear(self, time: float) -> None:
        """The brain hears the tone; its response begins a little later."""
        begins = round((time + NEURAL_LATENCY_S - self._began) * RATE_HZ)
        self._responses = [*self._responses[-3:], max(begins, self._sampled)]

    @ether_pub(topic="physiology", every="50ms")
    def acquire(self) -> dict[str, Any]:
        """All samples since the last call: (samples, 8) float32 microvolts; `first` is the number of the first sample,
        `until` the time of the last one."""
        first, due = self._sampled, int((time.monotonic() - self._steady) * RATE_HZ)
        self._sampled = due
        samples = self._random.normal(0, 12, (due - first, CHANNELS))
        for begins in self._responses:
            samples += np.outer(_evoked(np.arange(first, due) - begins), self._gains)
        until = self._began + (due - 1) / RATE_HZ
        return {"first": first, "began": self._began, "until": until, "samples": samples.astype(np.float32)}


def _evoked(after: np.ndarray) -> np.ndarray:
    """The shape of a response: it rises within 20 ms and is gone after 150. `after` in samples."""
    at = np.maximum(after, 0) / (0.020 * RATE_HZ)
    return at * np.exp(1 - at)
