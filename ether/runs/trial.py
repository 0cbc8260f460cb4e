"""One trial, as the body of the loop gets it.

    for trial in run.trials([0.1, 0.3], again=3):
        with trial:
            …

Promises: inside of `with trial:` an exception reaches the trial, so that it can be repeated where an instance has died;
a plain `for` cannot do that, because an exception leaves it without telling the iterator. The end of the block is the
end of the trial.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol


class BodyOwner(Protocol):
    """The row of trials that takes on the end of a body."""

    def body_ended(self, trial: Trial, error: BaseException | None) -> bool:
        """The body has returned, or raised `error`. Returns whether the trial is repeated instead of raising it."""


@dataclass(eq=False)
class Trial:
    """One trial. `number` is the place of its condition in the list, from 1, where no trials are inside of others; no
    other trial of the run has it. `attempt` is 1, and higher after attempts that were cut short; `place` counts the
    trials of the loop in the order in which they happen, from 1 to `of`, which is None where conditions are drawn one
    by one.
    """

    number: int
    condition: Any
    attempt: int
    run: str
    place: int = 0
    of: int | None = 0
    within: Trial | None = None
    """The trial that this one is inside of."""
    result: Any = None
    """Yours to set: recorded with the end of the trial, told to the strategy of `run.adapt`, and there again when the
    run is resumed."""
    state: dict[str, Any] = field(default_factory=dict)
    """Free for values that belong to this trial; recorded with its end."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """What each instance's preparation returned, by instance name."""
    readback: Any = None
    """The value that a scan read back after setting the condition."""
    owner: BodyOwner | None = field(default=None, repr=False)
    """Ether's own: the loop that it belongs to."""
    entered: bool = field(default=False, repr=False)
    """Whether its body is in a `with` block."""

    @property
    def repeated(self) -> bool:
        """Whether the trial was begun before."""
        return self.attempt > 1

    def __enter__(self) -> Trial:
        if self.entered:
            raise RuntimeError(f"{self} has one body: its `with` block was entered before")
        self.entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        return self.ended(error)

    def ended(self, error: BaseException | None) -> bool:
        """The end of the body, or of a step before it. Returns whether the trial is repeated instead of raising
        `error`."""
        return self.owner is not None and self.owner.body_ended(self, error)

    def __str__(self) -> str:
        again = f", attempt {self.attempt}" if self.repeated else ""
        inside = f" (inside of trial {self.within.number})" if self.within is not None else ""
        return f"trial {self.number}{again} of run {self.run!r}{inside}"
