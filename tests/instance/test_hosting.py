"""Publishing wrappers are put over one object, and come off again."""

from __future__ import annotations

from typing import Any

from ether.instance.binding import Overrides, publishing


class Plain:
    def m(self, x: int) -> int:
        """Doc."""
        return x + 1


class Slotted:
    __slots__ = ("x",)

    def m(self, x: int) -> int:
        self.x = x
        return x + 1


def host(obj: Any) -> tuple[Overrides, list[Any]]:
    published: list[Any] = []
    override = publishing("m", obj.m, lambda name, value: published.append((name, value)))
    return Overrides(obj, {"m": override}), published


def test_own_calls_publish_and_the_class_is_untouched() -> None:
    one, other = Plain(), Plain()
    overrides, published = host(one)
    assert (one.m(1), other.m(5), Plain().m(6)) == (2, 6, 7)
    assert published == [("m", 2)]
    overrides.remove()
    assert one.m(3) == 4
    assert published == [("m", 2)]
    assert vars(one) == {}


def test_objects_without_a_dict_work_too() -> None:
    one = Slotted()
    overrides, published = host(one)
    assert one.m(1) == 2
    assert one.x == 1
    assert type(one).__name__ == "Slotted"
    assert isinstance(one, Slotted)
    overrides.remove()
    assert type(one) is Slotted
    assert published == [("m", 2)]


def test_nothing_is_published_when_the_method_raises() -> None:
    class Failing:
        def m(self) -> None:
            raise KeyError("x")

    one = Failing()
    _, published = host(one)
    try:
        one.m()
    except KeyError:
        pass
    assert published == []
