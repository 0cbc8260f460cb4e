"""Of two rivals one yields, and the right one, whatever their wall clocks say and whatever is lost or late."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from ether.session.seniority_rules import Seniority

YEARS_S = 50 * 365 * 86_400.0


class Side:
    """One rival, and what it has announced."""

    def __init__(self, own_id: str, since: float, began: float) -> None:
        self.id, self.rule = own_id, Seniority(own_id, since, began)
        self.yielded = False

    def says(self, now: float) -> dict[str, Any]:
        return {"id": self.id, **self.rule.facts(now)}

    def hears(self, said: dict[str, Any], now: float) -> bool:
        """Whether it announces itself again."""
        if self.yielded or said["id"] == self.id:
            return False
        self.yielded = self.rule.yields_to(said["id"], said, now)
        return not self.yielded


def settle(sides: list[Side], said: list[dict[str, Any]], now: float, chance: random.Random) -> None:
    """Deliver in turn what was said, to all; some of it is lost, and said again after a reconnect."""
    for _ in range(200):
        if not said:
            said = [side.says(now) for side in sides if not side.yielded]
            if len(said) <= 1:
                return
        each = said.pop(0)
        for side in sides:
            if chance.random() < 0.8 and side.hears(each, now):
                now += 0.01
                said.append(side.says(now))
    raise AssertionError("they do not agree")


@pytest.mark.parametrize(("older", "younger"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("wrong_s", [0.0, 3600.0, 8 * 86_400.0, YEARS_S, -8 * 86_400.0])
def test_the_one_that_has_been_there_for_longer_goes_on(older: str, younger: str, wrong_s: float) -> None:
    """Each has a steady clock of its own, and the younger one a wrong wall clock."""
    for seed, delay_s in itertools.product(range(20), (0.0, 100.0)):
        old, young = Side(older, 1e9, 100.0), Side(younger, 1e9 + 500 - wrong_s, 600.0)
        stale = [old.says(110.0), young.says(601.0)]  # retained, from long before they met
        settle([old, young], stale, 700.0 + delay_s, random.Random(seed))
        assert (old.yielded, young.yielded) == (False, True)


def test_of_two_that_began_together_one_goes_on() -> None:
    for seed in range(50):
        sides = [Side("a", 1e9, 100.0), Side("b", 1e9, 100.0)]
        settle(sides, [side.says(100.0) for side in sides], 200.0, random.Random(seed))
        assert [side.yielded for side in sides].count(True) == 1


def test_of_three_one_goes_on() -> None:
    for seed in range(50):
        sides = [Side(name, 1e9, began) for name, began in (("a", 300.0), ("b", 100.0), ("c", 200.0))]
        settle(sides, [side.says(300.0) for side in sides], 400.0, random.Random(seed))
        assert [side.yielded for side in sides] == [True, False, True]


def test_a_rival_of_an_earlier_version_is_compared_as_it_compares() -> None:
    rule = Seniority("b", 10.0, 500.0)
    assert rule.yields_to("z", {"since": 9}, 600.0)
    assert rule.yields_to("a", {"since": 10.0}, 600.0)
    assert not rule.yields_to("a", {"since": 11.0}, 600.0)
    assert not rule.yields_to("a", {}, 600.0)
