"""A go/no-go task as a Gymnasium environment: wait in the dark, then answer the go tone, and not the other one.

It does not import Ether: train an agent on it with any library, or let an animal do it (see `behavioural_task.py`).
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium import spaces

STEP_S = 0.01
"""The duration of one step."""

QUIET, GO, NO_GO = 0, 1, 2
WAIT, LICK = 0, 1
CUES = {"go": GO, "no-go": NO_GO}

ANSWER_S = 0.6
"""How long after the beginning of the tone a lick counts."""


class CueTask(gym.Env[int, int]):
    """Observation: the tone that is heard. Reward: 1 for a lick at the go tone, -1 at the other one or before any."""

    metadata = {"render_modes": []}  # noqa: RUF012  as gymnasium declares it

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(3)
        self.action_space = spaces.Discrete(2)
        self._cue, self._begins, self._step = GO, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """`options`: `{"cue": "go"}` or `{"cue": "no-go"}`; by default, one of them by chance."""
        super().reset(seed=seed)
        wanted = (options or {}).get("cue")
        self._cue = CUES[wanted] if wanted is not None else int(self.np_random.integers(GO, NO_GO + 1))
        self._begins = int(self.np_random.integers(20, 41))  # 0.2 to 0.4 s of quiet, so that it cannot be foreseen
        self._step = 0
        return QUIET, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Go on by 10 ms. The episode ends with a lick, or when the time for one is over."""
        heard_s = (self._step - self._begins) * STEP_S
        self._step += 1
        heard = self._cue if self._step >= self._begins else QUIET
        if action == LICK:
            right = heard_s >= 0 and self._cue == GO
            return heard, 1.0 if right else -1.0, True, False, {"reaction_s": heard_s if heard_s >= 0 else None}
        return heard, 0.0, heard_s >= ANSWER_S, False, {}
