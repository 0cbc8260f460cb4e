"""`ether.plot`: the numbers on topics, live, where the program has its eyes."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.api.plotting import draw_in_terminal, view_of
from ether.errors import ConfigError, NotJoined


@pytest.fixture
def lab() -> Iterator[Ether]:
    with Ether() as own:
        own.tap({"session": "plots"})
        yield own


def test_the_numbers_of_a_topic_are_drawn_as_they_come(lab: Ether) -> None:
    plot = lab.plot("room/+", window="10s", where="nowhere")
    assert repr(plot) == "<plot of room/+: live>"
    for number in range(5):
        lab.pub({"t": 20.0 + number, "on": True, "name": "left"}, topic="room/1")
        lab.pub(number, topic="room/2")

    def names() -> list[str]:
        return [line.name for line in plot.drawn().lines]

    assert soon(lambda: sorted(names()) == ["room/1 on", "room/1 t", "room/2"], timeout_s=5)
    assert soon(lambda: 24.0 in [value for _, value in plot.drawn().lines[0].points], timeout_s=5)
    assert "room/2" in plot.text()
    shown = plot._repr_html_()
    assert "<polyline" in shown
    assert "room/1 t" in shown
    plot.stop()
    plot.stop()
    assert repr(plot) == "<plot of room/+: stopped>"
    assert "room/2" in str(plot)  # what was drawn stays


def test_names_from_the_network_are_text_in_a_notebook(lab: Ether) -> None:
    plot = lab.plot("loud", where="nowhere")
    lab.pub({"<script>x</script>": 1}, topic="loud")
    assert soon(lambda: bool(plot.drawn().lines), timeout_s=5)
    assert "<script>" not in plot._repr_html_()


def test_more_lines_than_can_be_told_apart_are_said(lab: Ether) -> None:
    with lab.plot("many", where="nowhere") as plot:
        lab.pub({f"n{number}": number for number in range(20)}, topic="many")
        assert soon(lambda: len(plot.drawn().lines) == 8, timeout_s=5)
        assert "at most 8 lines are drawn" in plot.text()


def test_the_end_of_the_session_stops_it(lab: Ether) -> None:
    plot = lab.plot("temperature", where="nowhere")
    lab.shutdown()
    assert plot.stopped


def test_a_terminal_is_drawn_over_until_the_plot_ends(lab: Ether) -> None:
    plot = lab.plot("temperature", where="nowhere")
    lab.pub(21.5, topic="temperature")
    out = io.StringIO()
    drawing = threading.Thread(target=draw_in_terminal, args=(plot, out))
    drawing.start()
    assert soon(lambda: out.getvalue().count("\x1b[") >= 4 and "temperature" in out.getvalue(), timeout_s=10)
    plot.stop()
    drawing.join(patience(5))
    assert not drawing.is_alive()
    assert out.getvalue().isascii()  # an output that names no encoding gets plain characters


class Kernel:
    """What IPython gives in a notebook, for `display`."""

    def __init__(self) -> None:
        self.shown: list[object] = []
        self.updated = threading.Event()

    def display(self, item: object, display_id: bool = False) -> Kernel:
        assert display_id
        self.shown.append(item)
        return self

    def update(self, item: object) -> None:
        assert item is self.shown[-1]
        self.updated.set()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    shell = SimpleNamespace(kernel=found)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=found.display))  # type: ignore[arg-type]
    return found


def test_a_notebook_shows_it_and_a_cell_that_runs_again_replaces_it(lab: Ether, kernel: Kernel) -> None:
    first = lab.plot("temperature")
    assert kernel.shown == [first]
    assert kernel.updated.wait(patience(5))
    other, second = lab.plot("pressure"), lab.plot("temperature")
    assert first.stopped
    assert not other.stopped
    assert not second.stopped


def test_what_is_asked_for_wrongly_is_said(lab: Ether) -> None:
    with pytest.raises(ConfigError, match="found 'a minute'"):
        lab.plot("temperature", window="a minute")
    with pytest.raises(TypeError, match=r'ether\.plot\("temperature"\)'):
        lab.plot()
    with pytest.raises(ValueError, match="found where='screen'; expected one of 'notebook', 'terminal', 'page'"):
        lab.plot("temperature", where="screen")  # type: ignore[arg-type]
    with pytest.raises(NotJoined):
        Ether().plot("temperature")


def test_the_page_is_asked_for_the_topics() -> None:
    assert view_of(("plant/t 1", "b")) == "values?p=plant%2Ft%201%1Eb"
