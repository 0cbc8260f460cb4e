"""Exponential back-off: pauses between attempts, each twice as long as the one before, up to a longest one.

The rule is tenacity's `wait_exponential`. Why a library, and why it is loaded late: docs/decisions/0030-back-off.md.

The trap: tenacity takes 35 ms to load. It is loaded where a second pause in a row is asked for, so that a process whose
attempts succeed never pays for it. Do not import it at the top of a module.
"""

from __future__ import annotations

import random

_CAPPED_FROM = 64
"""From this attempt on every pause is the longest one: no first pause that anybody uses is doubled so often."""


def pause_before(attempt: int, first_s: float, longest_s: float) -> float:
    """The pause in seconds before a repeated attempt: `first_s` before the first repetition (1), then twice as long
    each time, never longer than `longest_s`."""
    if attempt <= 1:
        return first_s
    from tenacity import RetryCallState, Retrying, wait_exponential  # 35 ms, at the second failure in a row

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = min(attempt, _CAPPED_FROM)
    return wait_exponential(multiplier=first_s, max=longest_s)(state)


class Backoff:
    """The pauses of one thing that is tried again and again. Not locked."""

    __slots__ = ("_attempt", "_first_s", "_jitter", "_longest_s")

    def __init__(self, first_s: float, longest_s: float, *, jitter: float = 0.0) -> None:
        """`jitter` is the largest part of a pause that is left out at random, from 0 to 1: it keeps many processes
        that failed at the same time from trying again at the same time, also when all of them pause the longest."""
        self._first_s, self._longest_s, self._jitter = first_s, longest_s, jitter
        self._attempt = 0

    def next_s(self) -> float:
        """The next pause in seconds."""
        self._attempt = min(self._attempt + 1, _CAPPED_FROM)
        pause_s = pause_before(self._attempt, self._first_s, self._longest_s)
        return pause_s * random.uniform(1.0 - self._jitter, 1.0) if self._jitter else pause_s

    def reset(self) -> None:
        """An attempt succeeded: the next pause is the first one again."""
        self._attempt = 0

    def skip_to_longest(self) -> None:
        """Every further pause is the longest one, until `reset()`."""
        self._attempt = _CAPPED_FROM
