"""`ether.message()` and `ether.made_of()` inside of methods: in a lab, whose messages show their parents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ether import ether, ether_get, ether_pub, ether_sub
from ether.connection.inputs import NAMED
from ether.testing import Lab


class Votes:
    """Takes what it hears on several topics, and makes something of it in every way."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @ether_sub(topic="pump/+/state")
    def hear(self, root: Any = None) -> None:
        self.seen.append(ether.message())

    @ether_get
    def asked(self) -> list[Any]:
        message = ether.message()
        assert message is not None
        return [message.topic, message.value, message.source, self.mine(), self.mine() + 1]

    def mine(self) -> int:
        """A helper of its own, which gets a plain number back."""
        return ether.made_of(3, [message.id for message in self.seen])

    @ether_get
    @ether_pub(topic="sum")
    def sum(self) -> int:
        return ether.made_of(sum(message.value for message in self.seen), self.seen)

    @ether_get
    @ether_pub(topic="each")
    def each(self) -> Iterator[int]:
        for message in self.seen:
            yield ether.made_of(message.value, message)
        yield -1

    @ether_sub(topic="go")
    @ether_pub(topic="later")
    async def later(self) -> AsyncIterator[dict[str, int]]:
        for message in reversed(self.seen):
            yield ether.made_of({"v": message.value}, [message])

    @ether_get
    @ether_pub(topic="changes", on="change")
    def changes(self, n: int) -> int:
        return ether.made_of(5, [self.seen[n]])

    @ether_get
    @ether_pub(topic="silent")
    def silent(self) -> Any:
        return ether.made_of(ether.NOTHING, self.seen)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(objects={"votes": Votes()}) as lab:
        for number in range(3):
            lab.pub(number, topic=f"pump/{number}/state")
        yield lab
    assert not NAMED


def test_a_method_knows_the_message_that_it_handles(lab: Lab) -> None:
    sent = lab.messages("pump/0/state") + lab.messages("pump/1/state") + lab.messages("pump/2/state")
    assert lab["votes"].seen == sent
    assert [message.topic for message in sent] == [f"pump/{number}/state" for number in range(3)]
    assert [message.seq for message in sent] == [1, 1, 1]
    assert ether.message() is None


def test_a_call_is_known_and_a_value_is_plain_wherever_the_code_uses_it(lab: Lab) -> None:
    assert ether.get("votes", "asked") == ["votes.asked", None, None, 3, 4]


def published(lab: Lab, topic: str) -> list[Any]:
    lab.settle()
    return lab.messages(topic)


def test_the_parents_of_a_message_are_those_that_were_named(lab: Lab) -> None:
    ids = [message.id for message in lab["votes"].seen]
    assert ether.get("votes", "sum") == 3
    assert [message.parents for message in published(lab, "sum")] == [tuple(ids)]
    assert lab["votes"].sum() == 3, "by hand"


def test_each_value_that_is_yielded_has_its_own(lab: Lab) -> None:
    ids = [message.id for message in lab["votes"].seen]
    assert ether.get("votes", "each") == [0, 1, 2, -1]
    *named, last = published(lab, "each")
    assert [message.parents for message in named] == [(each,) for each in ids]
    assert last.parents not in [(each,) for each in ids]
    lab.pub(None, topic="go")
    assert [message.parents for message in published(lab, "later")] == [(each,) for each in reversed(ids)]


def test_what_is_not_published_is_named_in_vain(lab: Lab) -> None:
    ids = [message.id for message in lab["votes"].seen]
    for number in (1, 2):
        assert ether.get("votes", "changes", {"n": number}) == 5
    assert [message.parents for message in published(lab, "changes")] == [(ids[1],)]
    assert ether.get("votes", "silent") is None
    assert published(lab, "silent") == []
