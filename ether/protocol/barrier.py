"""One question to many, and who has answered: decides when all have, who failed, who is missing.

The question goes to a fixed set of participants, those that were ready when it was asked. A participant that dies
is not waited for: its death is its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One participant's answer: the names of the methods that ran, the failed ones with why, counters, and what
    methods returned."""

    ran: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    def to_value(self, participant: str) -> dict[str, Any]:
        """As it is sent."""
        said = {"name": participant, "ran": list(self.ran), "failed": dict(self.failed), "facts": dict(self.facts)}
        return {**said, "results": dict(self.results)} if self.results else said

    @classmethod
    def from_value(cls, value: object) -> tuple[str, Answer] | None:
        """The participant and its answer; None for what is not one."""
        match value:
            case {"name": str(name), "ran": list(ran), "failed": dict(failed), "facts": dict(facts), **rest}:
                results = rest.get("results", {})
                failures = {str(method): str(why) for method, why in failed.items()}
                return name, cls(tuple(map(str, ran)), failures, facts, results if isinstance(results, dict) else {})
        return None


class Barrier:
    """The answers to one question. Not locked."""

    def __init__(self, participants: Iterable[str]) -> None:
        self._waiting = dict.fromkeys(participants)
        self.answers: dict[str, Answer] = {}
        self.lost: dict[str, str] = {}

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has not answered."""
        return tuple(self._waiting)

    @property
    def complete(self) -> bool:
        """True when nobody is waited for any more."""
        return not self._waiting

    def answer(self, participant: str, answer: Answer) -> bool:
        """Take an answer; False for a stranger's or a second one."""
        if participant not in self._waiting:
            return False
        del self._waiting[participant]
        self.answers[participant] = answer
        return True

    def lose(self, participant: str, why: str) -> None:
        """A participant died; nothing where it had answered before."""
        if participant in self._waiting:
            del self._waiting[participant]
            self.lost[participant] = why

    def reasons(self, waited_s: float) -> dict[str, str]:
        """Who failed, died or did not answer, and why; empty where all went well. `waited_s` in seconds."""
        failed = {
            name: "; ".join(f"{method}: {why}" for method, why in answer.failed.items())
            for name, answer in self.answers.items()
            if answer.failed
        }
        silent = dict.fromkeys(self.missing, f"did not answer within {waited_s:g} s")
        return {**failed, **self.lost, **silent}


class Quiescence:
    """Compares waves. Feed it each wave's answers; it says when the system is at rest."""

    def __init__(self) -> None:
        self._previous: dict[str, Mapping[str, int]] | None = None

    def at_rest(self, answers: Mapping[str, Answer]) -> bool:
        """True when this wave counted what the wave before counted."""
        wave = {name: answer.facts for name, answer in answers.items()}
        same = wave == self._previous
        self._previous = wave
        return same
