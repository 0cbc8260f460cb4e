"""Barriers: one question to many participants, and what their answers mean together.

`Answer` is one participant's answer on the wire. `Barrier` collects the answers to one question and decides when it is
complete, which participants failed, and which are missing. The question goes to a fixed set: the instances that were
ready when it was asked. A participant that dies is not waited for; its death counts as its answer.

`Quiescence` compares the answers of one question with those of the next. A system drains by asking in waves how many
messages each instance has handled and published; it is at rest when two waves in a row count the same. One wave alone
says nothing: a message may be on its way between two instances that both look idle. Where a broker keeps no order
across topics, two waves may overtake a message, too. So each wave carries the last numbers that the answers of the wave
before have told, and an instance that lacks something up to these numbers says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

QUESTION_BYTES = 8
"""The length of the correlation of a question, which no other message's has."""
DRAIN = "drain"
"""The question to an instance how many messages it has handled and published: `{"heads": …}` (`heads_of`)."""

BEHIND = "behind"
"""The counter in its answer that says on how many topics something is on its way to it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One participant's answer."""

    ran: tuple[str, ...] = ()
    """The names of the methods that ran."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """The names of the methods that failed, each with the reason."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """Counters, of messages handled and published for example."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """What methods returned, by name."""

    def to_value(self, participant: str) -> dict[str, Any]:
        """The JSON form, in which it is sent."""
        said = {"name": participant, "ran": list(self.ran), "failed": dict(self.failed), "facts": dict(self.facts)}
        return {**said, "results": dict(self.results)} if self.results else said

    @classmethod
    def from_value(cls, value: object) -> tuple[str, Answer] | None:
        """Read a received value: the participant and its answer; None where it is no answer."""
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
        self._dying: set[str] = set()
        """Participants that have died, and whose answer may still be on its way."""
        self.error: Exception | None = None
        """Why the question reaches nobody."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The participants that have not answered."""
        return tuple(self._waiting)

    @property
    def complete(self) -> bool:
        """True when every participant has answered or died, or none will."""
        return not (self._waiting or self._dying) or self.error is not None

    def answer(self, participant: str, answer: Answer) -> bool:
        """Take an answer; False for one of a non-participant, or a second one."""
        if participant in self._dying:
            self._dying.discard(participant)
            del self.lost[participant]
        elif participant in self._waiting:
            del self._waiting[participant]
        else:
            return False
        self.answers[participant] = answer
        return True

    def lose(self, participant: str, why: str) -> bool:
        """A participant died; an answer of it may still come, until `bury`. False where it had answered before."""
        if participant not in self._waiting:
            return False
        del self._waiting[participant]
        self._dying.add(participant)
        self.lost[participant] = why
        return True

    def bury(self, participant: str) -> None:
        """What a dead participant had sent before its death has come."""
        self._dying.discard(participant)

    def reasons(self, waited_s: float) -> dict[str, str]:
        """The participants that failed, died or did not answer, each with the reason; empty where all went well.
        `waited_s` in seconds."""
        failed = {
            name: "; ".join(f"{method}: {why}" for method, why in answer.failed.items())
            for name, answer in self.answers.items()
            if answer.failed
        }
        silent = dict.fromkeys(self.missing, f"did not answer within {waited_s:g} s")
        return {**failed, **self.lost, **silent}


OUTSTANDING = "outstanding"
"""Of the facts of an answer: how many messages are known to exist that the participant has not handled."""


UNHANDLED = "unhandled"
"""Of the results of an answer to the last step: for each topic how many messages were not handled."""

_NAMED_TOPICS = 5


def said_of_unhandled(left: Mapping[str, int]) -> str:
    """A sentence about the messages that an end has left, by topic."""
    total = sum(left.values())
    most = sorted(left, key=lambda topic: (-left[topic], topic))
    named = ", ".join(f"{left[topic]:,} on {topic!r}" for topic in most[:_NAMED_TOPICS])
    if more := most[_NAMED_TOPICS:]:
        named += f", {sum(left[topic] for topic in more):,} on {len(more)} other topics"
    return f"{total:,} message{' was' if total == 1 else 's were'} not handled: {named}"


class Quiescence:
    """Decides from one wave of answers after the other when the system is at rest. Not locked."""

    def __init__(self) -> None:
        self._previous: dict[str, Mapping[str, int]] | None = None

    def at_rest(self, answers: Mapping[str, Answer]) -> bool:
        """True when this wave has the same participants and counters as the one before, and no message is still to
        come to one of them."""
        wave = {name: answer.facts for name, answer in answers.items()}
        same = wave == self._previous
        self._previous = wave
        return same and not any(facts.get(OUTSTANDING) or facts.get(BEHIND) for facts in wave.values())


def heads_of(answers: Mapping[str, Answer]) -> dict[str, Any]:
    """The last numbers of all participants, by node and topic, for the next question."""
    heads: dict[str, Any] = {}
    for answer in answers.values():
        told = answer.results.get("heads")
        heads |= told if isinstance(told, dict) else {}
    return heads
