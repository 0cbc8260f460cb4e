"""When everything that a trial has caused is finished, everywhere.

A message and a call carry the trial that caused them, so each process knows what it has in work of a trial, and the
last numbers of what it has sent because of it. The program that leads the run asks all of them, in waves; each question
names the numbers that are known so far. A trial has come to rest when nobody has anything in work, or still to come up
to the numbers that were named, and nobody tells a number that was not.

Why that is enough, without a count of what was handled (a message has any number of readers, also none): an instance
that has nothing left of the named numbers can send something of this trial only because of a message or a call that was
not named, and whoever had sent that one tells its number in this wave. Sources that run by themselves do not count.

Promises: pure. The trap: an answer must say first what is in work, and then what was sent; a program that asks must
look at its own calls before it asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ether.protocol.barrier import Answer

LEFT, UNSAVED = "left", "unsaved"
"""Counters in an answer: what is in work or to come; entries that are not on disk."""
SENT, LONGEST = "sent", "longest"
"""Among the results of an answer: by node and topic the last numbers; what has been in work for longest."""

SILENT = "it did not answer"


class TrialRest:
    """Of one trial, by its origin. Not locked."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.at_rest = False
        self.unfinished: dict[str, str] = {}
        """By instance what it has not finished, as the last wave told."""
        self.unsaved: dict[str, str] = {}
        self._known: dict[str, dict[str, int]] = {}
        self._named: dict[str, dict[str, int]] = {}
        self._own: dict[str, str] = {}

    def question(
        self, node: str, sent: Mapping[str, int], own: Mapping[str, str], *, late: bool = False
    ) -> dict[str, Any]:
        """The fields of the next question. `sent`: what the asking program itself, the node `node`, has sent because of
        the trial; `own`: what it has in work, by name. `late`: what has not arrived by now is asked for; before that it
        is on its way, and a large message would come twice."""
        self._learn({node: sent})
        self._named, self._own = {each: dict(numbers) for each, numbers in self._known.items()}, dict(own)
        return {"of": self.origin, "heads": self._named, "late": late}

    def hear(self, answers: Mapping[str, Answer], missing: Iterable[str], node: str, sent: Mapping[str, int]) -> None:
        """The answers to the last question, the instances without one, and what the program has sent by now."""
        self.unfinished = {**self._own, **dict.fromkeys(missing, SILENT)}
        self.unsaved = {}
        for name, answer in answers.items():
            if answer.facts.get(LEFT):
                self.unfinished[name] = _in_work(answer)
            if count := answer.facts.get(UNSAVED):
                self.unsaved[name] = f"{count} of its entries are not on disk"
            told = answer.results.get(SENT)
            if isinstance(told, dict):
                self._learn(told)
        self._learn({node: sent})
        self.at_rest = not self.unfinished and not self.unsaved and self._known == self._named

    def _learn(self, told: Mapping[str, Mapping[str, int]]) -> None:
        for node, numbers in told.items():
            if numbers:
                known = self._known.setdefault(node, {})
                known.update({topic: max(number, known.get(topic, 0)) for topic, number in numbers.items()})


def _in_work(answer: Answer) -> str:
    match answer.results.get(LONGEST):
        case {"what": str(what), "for_s": int(for_s) | float(for_s)}:
            count = answer.facts.get(LEFT, 1)
            return f"{what}, for {for_s:.1f} s{f', and {count - 1} more' if count > 1 else ''}"
    return f"messages on {answer.facts.get(LEFT)} topics are on their way to it"
