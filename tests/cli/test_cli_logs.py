"""`ether logs`: past, coming, and levels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import ENGINES, LAB, Bench, bench, make_lab

pytestmark = pytest.mark.in_turn("lab")


@pytest.fixture(scope="module", params=ENGINES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("lab")
    make_lab(folder, request.param, LAB.replace("bench", "logs-{engine}"))  # a log of its own
    with bench(folder) as made:
        yield made


def test_what_comes_and_what_was(lab: Bench) -> None:
    with lab.watching("logs", "-f", "-n", "0", "--json", "-i", "sink") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        lab.ether("call", "sink.say")
        assert "a warning of the sink" in process.stdout.readline()
    lab.shows("WARNING - a warning of the sink", "logs", "--since", "10m", "-i", "sink")
    assert lab.ether("logs", "--since", "10m", "-l", "error").out == ""
    assert lab.ether("logs", "-i", "source", "-l", "warning").out == ""
    lines = lab.ether("logs", "-n", "1", "--json", "-l", "warning").lines
    assert [line["instance"] for line in lines] == ["sink"]


def test_levels_change_while_it_runs(lab: Bench) -> None:
    assert lab.ether("logs", "--set", "sink=debug").out.startswith("sink: INFO -> DEBUG\n")
    lab.ether("call", "sink.say")
    lab.shows("a detail of the sink", "logs", "--since", "10m")
    assert lab.ether("logs", "--set", "sink:sink=error", "--json").json["sink:sink"]["level"] == "ERROR"
    lab.ether("logs", "--set", "sink=loud").assert_mistake(1, "loud")
    lab.ether("logs", "--set", "nobody=debug").assert_mistake(2, "nobody", "sink")
