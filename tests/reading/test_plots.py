"""Plots as text: what is drawn is where the values are, and stays within the lines that were asked for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ether.reading.plots.svg import Line, Plot
from ether.reading.plots.text import text_plot

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=64)


def plot(*lines: list[tuple[float, float]]) -> Plot:
    return Plot("temperature", [Line(f"line {n}", points) for n, points in enumerate(lines)])


def test_a_ramp_goes_from_the_lower_left_to_the_upper_right() -> None:
    assert text_plot(plot([(-10.0, 0.0), (0.0, 100.0)]), 40, 10, unicode=False).splitlines() == [
        "temperature",
        "      100 |                          ***",
        "          |                      ****",
        "          |                 *****",
        "       50 |            *****",
        "          |       *****",
        "          |   ****",
        "        0 |***",
        "          +-10 s                     0 s",
    ]


def test_several_lines_have_marks_and_a_legend() -> None:
    drawn = text_plot(plot([(0.0, 0.0), (9.0, 0.0)], [(0.0, 1.0), (9.0, 1.0)]), 40, 8).splitlines()
    assert set(drawn[1]) == set("1 |+")
    assert set(drawn[5]) == set("0 |•")
    assert drawn[-1] == "• line 0   + line 1"


def test_one_line_is_drawn_finer() -> None:
    drawn = text_plot(plot([(t / 10, math.sin(t / 10)) for t in range(100)]), 60, 12)
    assert any(0x2800 < ord(char) <= 0x28FF for char in drawn)
    assert drawn.isascii() is False
    assert text_plot(plot([(t / 10, math.sin(t / 10)) for t in range(100)]), 60, 12, unicode=False).isascii()


def test_without_numbers_it_says_so() -> None:
    assert text_plot(plot(), 40, 10) == "temperature\n(no numbers yet)"


@given(
    st.lists(st.lists(st.tuples(FINITE, FINITE), max_size=8), min_size=1, max_size=3),
    st.integers(min_value=1, max_value=120),
    st.integers(min_value=1, max_value=40),
    st.booleans(),
)
def test_whatever_the_values_it_keeps_to_its_size(
    lines: list[list[tuple[float, float]]], width: int, height: int, unicode: bool
) -> None:
    drawn = text_plot(plot(*lines), width, height, unicode=unicode).splitlines()
    assert len(drawn) <= max(height, 4)
    assert all(len(line) <= max(width, 24) for line in drawn)
