"""The origin of a message: the trial that caused it, and whether it descends from a replay; as one short text.

A message has its origin from its cause, through any number of hops, so it is passed on as it is, and read only where
something is recorded. Forms: `scan/1/12/1` (run `scan/1`, trial 12, attempt 1), `$replay`,
`$replay/scan/1/12/1`; `$replay!` in place of `$replay` where devices may be moved.

Promises: `text_of` and `read` are inverse; `read` takes any text, and gives nothing for one that says nothing. The
trap: a run's id has a slash in it, and a session's names may begin with anything but `$`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ether.wire.run_ids import is_run_id

REPLAYED = "$replay"
"""The origin of what descends from a replay outside of any trial."""

ONTO_DEVICES = "$replay!"
"""The same, of a replay that may move devices, because whoever plays it has said so."""

_MARKS = (REPLAYED, ONTO_DEVICES)
_REMEMBERED = 256
_DIGITS = 18


class TrialOrigin(NamedTuple):
    """What an origin says. `run` is None where no trial is the cause; then `trial` and `attempt` mean nothing."""

    run: str | None = None
    trial: int = 0
    attempt: int = 1
    replayed: bool = False
    onto_devices: bool = False


_NO_ORIGIN = TrialOrigin()


def text_of(origin: TrialOrigin) -> str | None:
    """As messages carry it; None for an origin that says nothing."""
    parts = [ONTO_DEVICES if origin.onto_devices else REPLAYED] if origin.replayed else []
    if origin.run is not None:
        parts.append(f"{origin.run}/{origin.trial}/{origin.attempt}")
    return "/".join(parts) or None


@lru_cache(_REMEMBERED)
def read(text: str | None) -> TrialOrigin:
    """What a text says. One that is damaged, or of a later version, says as much as can be read."""
    if text is None:
        return _NO_ORIGIN
    first, _, rest = text.partition("/")
    replayed, onto_devices = first in _MARKS, first == ONTO_DEVICES
    run, trial, attempt = ([*(rest if replayed else text).rsplit("/", 2), "", ""])[:3]
    if is_run_id(run) and _is_number(trial) and _is_number(attempt):
        return TrialOrigin(run, int(trial), int(attempt), replayed, onto_devices)
    return TrialOrigin(replayed=replayed, onto_devices=onto_devices)


def descends_from_replay(text: str | None) -> bool:
    """Whether an origin says that a replay is among its causes."""
    return mark_of(text) is not None


def mark_of(text: str | None) -> str | None:
    """The mark of a replay, without the trial; None where a replay is not among the causes."""
    if text is None or not text.startswith(REPLAYED):
        return None
    first = text.partition("/")[0]
    return first if first in _MARKS else None


def may_not_move_devices(text: str | None) -> bool:
    """Whether an origin says that a replay is among its causes that is not meant for devices."""
    return mark_of(text) == REPLAYED


def replayed(text: str | None, *, onto_devices: bool = False) -> str:
    """The same origin, for a message that repeats a recorded one. What a replay has caused itself keeps its mark."""
    mark = ONTO_DEVICES if onto_devices else REPLAYED
    if text is None:
        return mark
    return text if descends_from_replay(text) else f"{mark}/{text}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS
