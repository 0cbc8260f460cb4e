"""The times that a program's configuration gives an end hold for its instances on other machines, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from patience import patience

from ether.config import EtherConfig, EtherInstanceConfig
from ether.connection.link import Link
from ether.launch.control_server import ControlServer, ProgramControl
from ether.launch.end_limits import EndLimits
from ether.launch.remote_instances import RemoteInstances
from ether.protocol.barrier import Answer, Barrier
from ether.protocol.presence import State
from ether.transport.loopback import LoopbackBroker, LoopbackTransport
from ether.wire.topics import SessionTopics

TOPICS = SessionTopics("ends")


class Agent:
    """What carries the requests of other programs out, as far as ends need it."""

    def __init__(self) -> None:
        self.ended: list[tuple[Sequence[str], Sequence[str] | None, EndLimits | None]] = []

    def remove_all(
        self, names: Sequence[str], steps: Sequence[str] | None, limits: EndLimits | None = None
    ) -> dict[str, str]:
        self.ended.append((names, steps, limits))
        return {}


@pytest.fixture
def link() -> Iterator[Link]:
    made = Link(LoopbackTransport(LoopbackBroker(), "pi"), "pi", TOPICS)
    made.open(patience(5))
    yield made
    made.close(0.0)


@pytest.mark.parametrize("limits", [EndLimits(0.5, 600.0), None])
def test_an_agent_gives_an_end_the_time_that_the_asking_program_gives_it(
    link: Link, monkeypatch: pytest.MonkeyPatch, limits: EndLimits | None
) -> None:
    agent = Agent()
    server = ControlServer(link, TOPICS, "pi", cast("ProgramControl", agent))
    remote = RemoteInstances(EtherConfig())
    remote.add("cam", EtherInstanceConfig(class_path="cam.Camera", host="pi"))

    def ask(agents: Sequence[str], timeout_s: float, asked: Mapping[str, Any]) -> Barrier:
        barrier = Barrier(agents)
        for name in agents:
            barrier.answer(name, Answer(results=server._carry_out("remove", asked, "main")))
        return barrier

    monkeypatch.setattr(remote, "_ask", ask)
    monkeypatch.setattr(remote, "_agents", {remote._agent_of("cam"): State.READY})
    try:
        assert remote.remove(["cam"], patience(5), ("stop",), limits) == {}
    finally:
        server.close()
    assert agent.ended == [(["cam"], ["stop"], limits)]


@pytest.mark.parametrize(
    "value", [None, 5, {}, {"work_s": 5}, {"work_s": "5", "save_s": 60}, {"work_s": 0, "save_s": 60},
              {"work_s": 5, "save_s": float("nan")}, {"work_s": 5, "save_s": 1e9}],
)  # fmt: skip
def test_times_that_no_configuration_can_name_count_as_not_given(value: object) -> None:
    assert EndLimits.from_value(value) is None
