"""The rights of devices at a session's own broker: given while it runs, and to the next broker where that one dies."""

from __future__ import annotations

import os
import signal

import pytest
from attack_parts import SESSION, Attacker
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.config import load_config
from ether.config.broker import EmbeddedBroker
from ether.launch.launcher import Launch
from ether.security.rights import DeviceInstance, rights_of_host, rules_of


class Address:
    """A session's broker as the attacker takes it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.username, self.password = host, port, "", ""


@pytest.mark.parametrize("engine", EMBEDDED)
def test_rights_hold_in_the_next_broker_too(engine: str) -> None:
    own = Ether()
    own.tap({"session": SESSION, "broker": {"engine": engine}}, timeout_s=patience(20))
    try:
        launch = own._launch
        assert launch is not None
        broker = launch._broker  # type: ignore[union-attr]
        assert broker is not None
        table = {"pi3": rights_of_host(SESSION, "pi3", [DeviceInstance("cam", "here", ("picture",))])}
        broker.set_rights({"pi3": "of-the-pi"}, rules_of(table))

        def may_publish_its_own() -> bool:
            facts = broker.wait_ready(patience(10))
            at = Address(facts.host, facts.port)
            try:
                with Attacker(at, user="pi3", password="of-the-pi", hears=f"ether/1/{SESSION}/state/#") as pi3:  # type: ignore[arg-type]
                    pi3.send("data/other", {"x": -1})
                    pi3.send("data/picture", {"x": 1})
            except (AssertionError, OSError, RuntimeError):
                return False
            return True

        def holds() -> bool:
            with own.subscribe("#") as heard:
                assert soon(may_publish_its_own, 15)
                return heard.get(timeout_s=patience(10)).value == {"x": 1}

        assert holds()
        before = broker._times_ready
        os.kill(broker._child.pid, signal.SIGKILL)
        assert soon(lambda: broker._times_ready > before, 20)
        assert soon(lambda: bool(launch.session.link.transport.connected), 20)  # type: ignore[union-attr]
        assert holds()
    finally:
        own.shutdown()


def test_a_device_under_an_instances_name_may_do_nothing(caplog: pytest.LogCaptureFixture) -> None:
    config = load_config({
        "session": SESSION, "broker": {"listen": "lan"}, "security": {"guests": "all"},
        "instances": {"cam": {"class_path": "attack_parts.Sensor"}},
    })  # fmt: skip
    assert isinstance(config.broker, EmbeddedBroker)
    launch = Launch(config, SESSION)
    try:
        rules = launch._rules(config.broker)
        assert rules is not None
        with caplog.at_level("ERROR", "Ether"):
            given = rules(["cam", "recorder", "phone"], [])
    finally:
        launch.abandon()
    assert [name for name in ("cam", "recorder", "phone") if given[name]["publish"]] == ["phone"]
    assert "the device cam has the name of an instance of this machine" in caplog.text
    assert "phone" not in caplog.text
