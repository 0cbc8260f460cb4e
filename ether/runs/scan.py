"""A scan: trials whose condition is set, and read back, before the body of each.

The trap: what is set may be refused by a status (`ether_save` methods answer with one), which must not pass for done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ether.errors import ReadbackDiffers
from ether.runs.trials import Trial, Trials


class Scan(Iterator[Trial]):
    """What is left of a scan. Made by `run.scan()`."""

    def __init__(
        self, row: Trials, setter: Callable[..., Any], read: Callable[[], Any] | None, within: float | None, *,
        several: bool,
    ) -> None:  # fmt: skip
        """`several`: conditions are parameters by name."""
        self.row = row
        self._setter, self._read, self._within, self._several = setter, read, within, several

    def __len__(self) -> int:
        """How many are still to come."""
        return len(self.row)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Trial:
        trial = next(self.row)
        asked = trial.condition
        answer = self._setter(**asked) if self._several else self._setter(asked)
        refuse_failure(trial, answer)
        if self._read is not None:
            trial.readback = self._read()
            refuse_failure(trial, trial.readback)
        self.row.note_setting(trial)
        self._check(trial, asked)
        return trial

    def _check(self, trial: Trial, asked: Any) -> None:
        if self._within is None or self._read is None:
            return
        found = trial.readback
        wanted = asked.values() if isinstance(asked, Mapping) else [asked]
        given = found.values() if isinstance(found, Mapping) else found if isinstance(found, (list, tuple)) else [found]
        pairs = list(zip(wanted, given, strict=False))
        near = len(pairs) == len(list(wanted)) and all(abs(one - other) <= self._within for one, other in pairs)
        if not near:
            raise ReadbackDiffers(str(trial), asked, found, self._within)


def refuse_failure(trial: Trial, answer: object) -> None:
    """A status that says `error` is one: `RuntimeError`."""
    if isinstance(answer, Mapping) and answer.get("status") == "error" and "error" in answer:
        raise RuntimeError(f"{trial}: {answer.get('message') or answer['error']}")
