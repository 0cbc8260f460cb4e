"""When a trial has come to rest: random systems of instances, messages and calls, asked at random moments."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from lanes import examples

from ether.protocol.barrier import Answer
from ether.protocol.trial_rest import SILENT, TrialRest

ORIGIN = "scan/1/1/1"


@dataclass
class Member:
    """An instance that hears some topics. A handler may publish on others, and ends some time after."""

    name: str
    hears: list[str]
    says: list[str]
    sent: dict[str, int] = field(default_factory=dict)
    arrived: dict[tuple[str, str], int] = field(default_factory=dict)
    in_work: list[str] = field(default_factory=list)

    def answer(self, heads: dict[str, dict[str, int]]) -> Answer:
        """As `ether.recording.tags.TrialWork` answers: first what is left, then what was sent."""
        behind = sum(
            self.arrived.get((node, topic), 0) < number
            for node, numbers in heads.items()
            for topic, number in numbers.items()
            if topic in self.hears
        )
        return Answer(facts={"left": len(self.in_work) + behind}, results={"sent": {self.name: dict(self.sent)}})


class System:
    """Messages on their way, and the members that they go to; no loops, so that it ends."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        topics = [f"t{n}" for n in range(5)]
        self.members = [
            Member(f"m{n}", [topics[h]], chance.sample(topics[h + 1 :], chance.randint(0, min(2, 4 - h))))
            for n in range(4)
            for h in [chance.randint(0, 3)]
        ]
        self.flying: list[tuple[Member, str, str, int]] = []
        self.program = Member("main", [], [])

    def publish(self, member: Member, topic: str) -> None:
        number = member.sent[topic] = member.sent.get(topic, 0) + 1
        self.flying += [(other, member.name, topic, number) for other in self.members if topic in other.hears]

    @property
    def is_over(self) -> bool:
        return not self.flying and not any(member.in_work for member in self.members)

    def step(self) -> None:
        """One message arrives, or one handler publishes and ends."""
        ready = [flight for flight in self.flying if self._is_next(*flight)]
        busy = [member for member in self.members if member.in_work]
        if ready and (not busy or self.chance.random() < 0.5):
            flight = self.chance.choice(ready)
            self.flying.remove(flight)
            member, node, topic, number = flight
            member.arrived[node, topic] = number
            member.in_work.append(topic)
        elif busy:
            member = self.chance.choice(busy)
            for topic in member.says:
                self.publish(member, topic)
            member.in_work.pop()

    def _is_next(self, member: Member, node: str, topic: str, number: int) -> bool:
        return member.arrived.get((node, topic), 0) == number - 1


@pytest.mark.parametrize("seed", range(examples(300)))
def test_rest_is_rest_whenever_the_members_answer(seed: int) -> None:
    chance = random.Random(seed)
    system, rest = System(chance), TrialRest(ORIGIN)
    for _ in range(chance.randint(1, 3)):
        system.publish(system.program, "t0")
    waves = 0
    while not rest.at_rest:
        waves += 1
        assert waves < 1000
        heads = rest.question("main", system.program.sent, {})["heads"]
        answers: dict[str, Answer] = {}
        for member in chance.sample(system.members, len(system.members)):
            for _ in range(chance.choice([0, 0, 1, 5])):
                system.step()
            answers[member.name] = member.answer(heads)
        for _ in range(chance.choice([0, 1])):
            system.step()
        rest.hear(answers, (), "main", system.program.sent)
    assert system.is_over


def test_a_call_that_was_made_and_answered_between_two_answers_is_noticed() -> None:
    rest = TrialRest(ORIGIN)
    rest.question("main", {"a": 1}, {})
    callee, caller = Answer(results={"sent": {"n2": {}}}), Answer(results={"sent": {"n1": {"call/callee/do": 1}}})
    rest.hear({"callee": callee, "caller": caller}, (), "main", {"a": 1})
    assert not rest.at_rest, "the callee may have published something after its answer"
    rest.question("main", {"a": 1}, {})
    rest.hear({"callee": Answer(results={"sent": {"n2": {"b": 1}}}), "caller": caller}, (), "main", {"a": 1})
    assert not rest.at_rest
    rest.question("main", {"a": 1}, {})
    rest.hear({"callee": Answer(results={"sent": {"n2": {"b": 1}}}), "caller": caller}, (), "main", {"a": 1})
    assert rest.at_rest


def test_stragglers_have_names() -> None:
    rest = TrialRest(ORIGIN)
    rest.question("main", {}, {"main": "the call of camera.snap, for 0.4 s"})
    work = {"longest": {"what": "Fit.fit of 'reading'", "for_s": 12.0}}
    rest.hear(
        {"fit": Answer(facts={"left": 3}, results=work), "far": Answer(facts={"left": 1}), "ok": Answer()},
        ["hung"], "main", {},
    )  # fmt: skip
    assert rest.unfinished == {
        "main": "the call of camera.snap, for 0.4 s",
        "fit": "Fit.fit of 'reading', for 12.0 s, and 2 more",
        "far": "messages on 1 topics are on their way to it",
        "hung": SILENT,
    }
    rest.question("main", {}, {})
    rest.hear({"fit": Answer(facts={"unsaved": 2})}, (), "main", {})
    assert (rest.at_rest, rest.unfinished, rest.unsaved) == (False, {}, {"fit": "2 of its entries are not on disk"})


def test_an_instance_of_an_earlier_version_that_says_nothing_holds_up_nobody() -> None:
    rest = TrialRest(ORIGIN)
    rest.question("main", {"a": 1}, {})
    rest.hear({"old": Answer(("trial",), facts={"unsaved": 0, "busy": 0})}, (), "main", {"a": 1})
    assert rest.at_rest
