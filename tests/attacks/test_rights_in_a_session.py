"""Each public way to publish, hear, call and record, from another device: what is allowed works, what is not raises
where it is done; over both engines, and over both versions of MQTT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from agent_parts import Machine
from attack_parts import SESSION
from engine_params import EMBEDDED, engine_params
from patience import patience
from programs import write
from running_brokers import ONLY_3_1_1, running_broker

from ether import Ether
from ether.config import load_config
from ether.errors import NotAllowed, RemoteError
from ether.runs.plan.device_rights import device_table, source_topics
from ether.security.rights import rules_of
from ether.session.own_rights import OwnRights

REMOTE = """
from ether import ether, ether_get, ether_pub, ether_save, ether_sub

class Remote:
    def __init__(self):
        self.heard = []

    @ether_pub(topic="decorated")
    def decorated(self): return 1

    @ether_sub(topic="to/decorated")
    def take(self, x: int): self.heard.append(x)

    @ether_get
    def publish(self, topic: str):
        ether.pub({"x": 1}, topic=topic)
        return "done"

    @ether_get
    def tick(self):
        self.decorated()
        return "done"

    @ether_get
    def subscribe(self, topic: str):
        with ether.subscribe(topic):
            return "done"

    @ether_get
    def call(self, service: str, method: str):
        return ether.get(service, method, {"x": 1})

    @ether_get
    def later(self, service: str, method: str):
        return ether.save_later(service, method, {"x": 1})

    @ether_save
    def save(self, service: str, method: str):
        return ether.save(service, method, {"x": 1})

    @ether_get
    def record(self):
        saved = ether.record(7, "from the pi")
        saved.wait(20)
        return "done"

    @ether_get
    def all_heard(self): return self.heard
"""
INSTANCES: dict[str, Any] = {
    "sensor": {"class_path": "attack_parts.Sensor"},
    "remote": {
        "class_path": "remote.Remote",
        "host": "pi3",
        "publishes": ["decorated", "allowed/+"],
        "hears": ["to/decorated", "hears/#"],
        "calls": ["sensor.read"],
    },
}


@pytest.fixture(scope="module", params=[*EMBEDDED, *engine_params([ONLY_3_1_1])])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ether]:
    folder = tmp_path_factory.mktemp("rights")
    described = {"session": SESSION, "security": {}, "instances": INSTANCES}
    table = device_table(config := load_config(described), SESSION, source_topics(config)).rights
    settings = {"users": {"pi3": "of-the-pi"}, "rights": rules_of(table)}
    with running_broker(request.param, **settings) as broker:
        machine = Machine(folder, "pi3", f"mqtt://pi3:of-the-pi@{broker.host}:{broker.port}")
        write(machine.instruments, "remote.py", REMOTE)
        record = {"topics": "all", "folder": str(folder / "ledger")}
        own = Ether()
        with machine.agent(session=SESSION, joins=False):
            own.tap({**described, "broker": broker.url_tcp, "record": record}, timeout_s=patience(40))
            try:
                own.save("sensor", "store", {"x": 1})  # this program's journal of saves is open from now on
                yield own
            finally:
                own.shutdown()


def test_what_is_allowed_works(own: Ether) -> None:
    with own.subscribe("allowed/x") as allowed, own.subscribe("decorated") as decorated:
        assert own.get("remote", "publish", {"topic": "allowed/x"}) == "done"
        assert allowed.get(timeout_s=patience(10)).value == {"x": 1}
        assert own.get("remote", "tick") == "done"
        assert decorated.get(timeout_s=patience(10)).value == 1
    assert own.get("remote", "subscribe", {"topic": "hears/+"}) == "done"
    assert own.get("remote", "call", {"service": "sensor", "method": "read"}) == 2
    own.pub({"x": 5}, topic="to/decorated")
    assert own.get("remote", "record", timeout_s=patience(30)) == "done"
    assert own.get("remote", "all_heard") == [5]
    assert own.get("recorder", "proof")["gaps"] == []


@pytest.mark.attack("R6", "code on a device does what its rights do not say", "publish, hear, call, save: raises there")
@pytest.mark.parametrize(
    ("method", "arguments", "line"),
    [
        ("later", {"service": "sensor", "method": "slow"}, "calls: [sensor.slow]"),
        ("publish", {"topic": "other"}, "publishes: [other]"),
        ("publish", {"topic": "allowed/x/y"}, "publishes: [allowed/x/y]"),
        ("subscribe", {"topic": "temperature"}, "hears: [temperature]"),
        ("subscribe", {"topic": "#"}, "hears: [#]"),
        ("call", {"service": "sensor", "method": "slow"}, "calls: [sensor.slow]"),
        ("call", {"service": "Sensor", "method": "read"}, "calls: [Sensor.read]"),
        ("call", {"service": "recorder", "method": "proof"}, "calls: [recorder.proof]"),
    ],
)
def test_what_is_not_allowed_raises_where_it_is_done(
    own: Ether, method: str, arguments: dict[str, Any], line: str
) -> None:
    with pytest.raises(RemoteError) as told:
        own.get("remote", method, arguments, timeout_s=patience(10))
    assert told.value.remote_class == "NotAllowed"
    assert f"Add to instances.remote, beside class_path: `{line}`" in told.value.remote_message
    saved = own.save("remote", "save", {"service": "sensor", "method": "store"})
    assert saved["status"] == "error"
    assert "calls: [sensor.store]" in saved["error"]


def test_what_may_be_done_by_ones_own_rights() -> None:
    rights = OwnRights.of(
        "cam", {"publishes": ["a/+"], "hears": None, "calls": ["pump.run", "Sensor"]}, ["own"], ["in/#"]
    )
    for topic in ("a/b", "own"):
        rights.check_publish(topic)
    for topic_filter in ("in", "in/a", "in/+/b", "in/#"):
        rights.check_hear(topic_filter)
    for call in (("pump", "run"), ("Sensor", "read"), ("cam", "anything")):
        rights.check_call(*call)
    refused: list[tuple[Any, ...]] = [
        (rights.check_publish, "a"), (rights.check_publish, "a/b/c"), (rights.check_hear, "#"),
        (rights.check_hear, "+"),
        (rights.check_hear, "own"), (rights.check_call, "pump", "stop"), (rights.check_call, "main", "x"),
    ]  # fmt: skip
    for check, *what in refused:
        with pytest.raises(NotAllowed):
            check(*what)
