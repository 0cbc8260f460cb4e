"""Where an answer may go, and whose answer counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_parts import PREFIX, Attacker, Target, target
from engine_params import EMBEDDED
from paho.mqtt.client import MQTTMessage
from patience import patience
from running_brokers import soon

from ether.logs.session_file import log_path
from ether.wire.topics import may_be_answered


@pytest.fixture(scope="module", params=EMBEDDED)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(request.param, tmp_path_factory.mktemp("answers")) as session:
        yield session


def refused() -> int:
    """How many calls were refused so far; the log is that of both engines' sessions."""
    log = log_path("bench")
    return log.read_text().count("is refused: its answer would go to") if log.exists() else 0


@pytest.mark.attack("M4", "the confused deputy", "a call whose answer is a command to the control plane")
def test_an_answer_goes_to_no_other_plane(attacked: Target) -> None:
    before = refused()
    with Attacker(attacked.broker) as evil:
        for to in ("control/stop", "state/zz", "log/zz", "reply/a/b", "call/sensor/store"):
            evil.send("call/sensor/read", {"x": 41}, reply_to=PREFIX + to, correlation="00" * 16)
            evil.send("call/sensor/read", {"x": 41}, response=PREFIX + to)
        evil.send("call/sensor/read", {"x": 41}, reply_to="ether/1/other/reply/me", correlation="01" * 16)
        evil.send("call/sensor/read", {"x": 41}, response=PREFIX + "reply/evil", data=b"own")
        assert soon(lambda: refused() >= before + 12, 10)
        assert attacked.lives()
        while not evil.heard.empty():
            assert evil.heard.get().payload[:2] != b"42"


@pytest.mark.parametrize("protocol", [5, 3])
def test_whoever_asks_for_an_answer_of_its_own_gets_it(attacked: Target, protocol: int) -> None:
    with Attacker(attacked.broker, protocol=protocol) as honest:
        honest.send("call/sensor/read", {"x": 41}, reply_to=PREFIX + "reply/honest", correlation="02" * 16)
        assert honest.wait_for(lambda message: message.topic.startswith(PREFIX + "reply/honest"))


def test_a_stranger_gets_its_answer_outside(attacked: Target) -> None:
    with Attacker(attacked.broker, hears="lab/answers") as honest:
        honest.send("call/sensor/read", {"x": 41}, response="lab/answers", data=b"own")
        assert honest.wait_for(lambda message: message.payload == b"42")


def test_what_may_be_answered() -> None:
    asked = "ether/1/bench/call/sensor/read"
    good = ["ether/1/bench/reply/main-7"]
    bad = [
        "ether/1/bench/reply/", "ether/1/bench/reply", "ether/1/bench/reply/a/b", "ether/1/bench2/reply/a",
        "ether/1/bench/control/stop", "ether/2/bench/reply/a", "plant/x", "", "$SYS/x",
    ]  # fmt: skip
    assert all(may_be_answered(asked, each, stranger=False) for each in good)
    assert not any(may_be_answered(asked, each, stranger=False) for each in bad)
    assert may_be_answered(asked, "plant/x", stranger=True)
    assert not any(may_be_answered(asked, each, stranger=True) for each in [*good, "ether/x", "$SYS/x"])


@pytest.mark.attack("M9", "first answer wins", "an answer with the right correlation before the callee's")
def test_an_answer_of_somebody_else_than_the_callee_does_not_count(attacked: Target, tmp_path: Path) -> None:
    launch = attacked.own._launch
    assert launch is not None
    counts, before = launch.session.calls.requests.counts, launch.session.calls.requests.counts.forged
    with Attacker(attacked.broker) as evil:
        pending = attacked.own.get_later("sensor", "hold", {"path": str(tmp_path / "answered")})

        def request(message: MQTTMessage) -> tuple[str, bytes] | None:
            if message.topic != f"{PREFIX}call/sensor/hold":
                return None
            given = message.properties
            assert given is not None
            return given.ResponseTopic, given.CorrelationData

        reply_to, correlation = evil.wait_for(request)
        for topic in (reply_to, f"{reply_to}/evil", f"{reply_to}/sensor2", f"{reply_to}/sensor/x"):
            for source in ("evil", "recorder"):
                evil.publish(topic, {"forged": -666}, source=source, correlation=correlation.hex())
        assert soon(lambda: counts.forged >= before + 8, 10)
        (tmp_path / "answered").touch()
        assert attacked.own.collect(pending, timeout_s=patience(10)) == "true"
