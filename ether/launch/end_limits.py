"""How long an end may take. The agent of another machine gets this with the request to end instances: the configuration
of the program that asks counts there, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

SHARE_OF_HANDLERS = 0.6
"""Of `EndLimits.work_s`: for handlers to come back."""

_LEAST_S, _MOST_S = 0.5, 86_400.0


@dataclass(frozen=True, slots=True)
class EndLimits:
    """How long an end may take. `work_s` is for handlers, threads and `atexit` functions together; each of save_all,
    cleanup and stop has `save_s` of its own, because what they do must not be cut short."""

    work_s: float
    save_s: float

    @property
    def drain_s(self) -> float:
        """For handlers to come back. In what is left of `work_s` they are left by an exception, and the processes
        end."""
        return SHARE_OF_HANDLERS * self.work_s

    def of(self, step: str) -> float:
        """For one step."""
        return self.drain_s if step == "drain" else self.save_s

    def to_value(self) -> dict[str, float]:
        """As it travels."""
        return asdict(self)

    @classmethod
    def from_value(cls, value: object) -> EndLimits | None:
        """The inverse; None for anything else, and for times that no configuration can name."""
        match value:
            case {"work_s": int() | float() as work_s, "save_s": int() | float() as save_s}:
                if _LEAST_S <= work_s <= _MOST_S and _LEAST_S <= save_s <= _MOST_S:
                    return cls(float(work_s), float(save_s))
        return None
