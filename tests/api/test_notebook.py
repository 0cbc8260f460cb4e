"""What a notebook shows and offers of the one object, its lists and subscriptions (first-hour.md H7)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mistake_parts import Camera
from patience import patience

from ether import Ether


@pytest.fixture(scope="module")
def lab() -> Iterator[Ether]:
    with Ether() as own:
        own.tap({"session": "nb"})
        own.host(Camera(), "cam<1>")
        yield own


def test_h7g_the_session_and_its_instances_are_a_table(lab: Ether) -> None:
    for shown in (lab._repr_html_(), lab.instances()._repr_html_()):  # type: ignore[attr-defined]
        assert shown is not None
        assert "<th>name</th><th>state</th><th>class</th>" in shown
        assert "<td>cam&lt;1&gt;</td><td>ready</td><td>Camera</td>" in shown
    assert "session nb" in (lab._repr_html_() or "")
    assert type(lab.instances()[0]) is dict
    assert Ether()._repr_html_() is None


def test_h7g_a_subscription_says_to_what_and_how_much_waits(lab: Ether) -> None:
    with lab.subscribe("room/+") as room:
        assert repr(room) == "<Subscription to 'room/+': 0 waiting>"
        lab.pub(1, topic="room/1")
        assert room.get(timeout_s=patience(5)).value == 1
    assert repr(room) == "<Subscription to 'room/+': closed>"


def test_h7h_completion_offers_no_insiders(lab: Ether) -> None:
    offered = dir(lab)
    assert {"tap", "pub", "get", "instance", "shutdown"} <= set(offered)
    assert not {"adopt", "watch_start", "on_shutdown_asked"} & set(offered)
    assert not [name for name in offered if not hasattr(lab, name)]
