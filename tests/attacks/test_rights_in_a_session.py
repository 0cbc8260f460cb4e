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
from running_brokers import ONLY_3_1_1, running_broker, soon

from ether import Ether
from ether.config import load_config
from ether.errors import NotAllowed, RemoteError
from ether.runs.plan.device_rights import device_table, source_topics
from ether.security.rights import rules_of
from ether.session.own_rights import OwnRights

REMOTE = """
import asyncio
from ether import ether, ether_get, ether_pub, ether_sub

class Remote:
    def __init__(self):
        self.heard = []

    @ether_pub(topic="decorated")
    def decorated(self): return 1

    @ether_sub(topic="to/decorated")
    def take(self, x: int): self.heard.append(x)

    @ether_get
    def all_heard(self): return self.heard

    @ether_get
    def do(self, way: str, what: str):
        service, _, method = what.partition(".")
        call = service, method, {"x": 1}
        ways = {
            "pub": lambda: ether.pub({"x": 1}, topic=what),
            "pub saved": lambda: ether.pub({"x": 1}, topic=what, save=True).wait(20),
            "start": ether.start,
            "decorator": self.decorated,
            "subscribe": lambda: ether.subscribe(what).close(),
            "get": lambda: ether.get(*call),
            "aget": lambda: asyncio.run(ether.aget(*call)),
            "get_later": lambda: ether.collect(ether.get_later(*call), 20),
            "save": lambda: ether.save(*call),
            "asave": lambda: asyncio.run(ether.asave(*call)),
            "save_later": lambda: ether.collect(ether.save_later(*call), 20),
            "instance": lambda: getattr(ether.instance(service), method)(1),
            "service": lambda: getattr(ether.service(service), method)(1),
            "lease": lambda: ether.lease(service).__enter__().__exit__(None, None, None),
            "sync": lambda: ether.sync(what),
            "record": lambda: ether.record(7, what).wait(20),
        }
        done = ways[way]()
        return done if isinstance(done, (int, dict)) else "done"
"""
INSTANCES: dict[str, Any] = {
    "sensor": {"class_path": "attack_parts.Sensor"},
    "pump": {"class_path": "attack_parts.Sensor"},
    "remote": {
        "class_path": "remote.Remote",
        "host": "pi3",
        "publishes": ["decorated", "allowed/+"],
        "hears": ["to/decorated", "hears/#"],
        "calls": ["sensor.read", "sensor.store", "pump"],
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


SAVED = {"status": "success", "result": 1}
ALLOWED: list[tuple[str, str, Any]] = [
    ("pub", "allowed/x", "done"), ("pub saved", "allowed/y", "done"), ("decorator", "", 1),
    ("subscribe", "hears/+", "done"), ("subscribe", "hears/a/#", "done"), ("record", "from the pi", "done"),
    *((way, "sensor.read", 2) for way in ("get", "aget", "get_later", "instance")),
    *((way, "pump.read", 2) for way in ("get", "instance")), ("lease", "pump", "done"),
    *((way, "sensor.store", SAVED) for way in ("save", "asave", "save_later")),
]  # fmt: skip
CALLS = ("get", "aget", "get_later", "save", "asave", "save_later")
REFUSED = [
    *(("pub", topic, f"publishes: [{topic}]") for topic in ("other", "allowed/x/y", "to/decorated")),
    ("pub saved", "other", "publishes: [other]"), ("start", "", "publishes: [start]"),
    *(("subscribe", topic, f"hears: [{topic}]") for topic in ("temperature", "#", "decorated")),
    *((way, call, f"calls: [{call}]") for way in CALLS for call in ("sensor.slow", "Sensor.read", "recorder.proof")),
    ("instance", "sensor.slow", "calls: [sensor.slow]"), ("service", "Sensor.read", "calls: [Sensor.read]"),
    ("lease", "sensor", "calls: [sensor]"), ("sync", "anything", "ether.sync()"),
]  # fmt: skip


def done(own: Ether, way: str, what: str) -> Any:
    return own.get("remote", "do", {"way": way, "what": what}, timeout_s=patience(30))


def test_what_is_allowed_works(own: Ether) -> None:
    with own.subscribe("allowed/x") as allowed, own.subscribe("decorated") as decorated:
        for way, what, expected in ALLOWED:
            given = done(own, way, what)
            if isinstance(expected, dict):
                given = {key: given.get(key) for key in expected}
            assert given == expected, (way, what)
        assert allowed.get(timeout_s=patience(10)).value == {"x": 1}
        assert decorated.get(timeout_s=patience(10)).value == 1
    own.pub({"x": 5}, topic="to/decorated")
    assert soon(lambda: own.get("remote", "all_heard") == [5], 10)
    assert own.get("recorder", "proof")["gaps"] == []


@pytest.mark.attack(
    "R6", "code on a device does what its rights do not say",
    f"{len(REFUSED)} ways to publish, hear, call, save and lease: each raises there",
)  # fmt: skip
def test_what_is_not_allowed_raises_where_it_is_done(own: Ether) -> None:
    for way, what, line in REFUSED:
        with pytest.raises(RemoteError) as told:
            done(own, way, what)
        assert told.value.remote_class == "NotAllowed", (way, what)
        said = told.value.remote_message
        assert line in said, (way, what, said)
        assert "may not" in said


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
