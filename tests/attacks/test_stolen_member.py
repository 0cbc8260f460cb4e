"""A stolen member: its identity is in the attacker's hands, and it may do what it needs. On both engines nothing that
it publishes beyond its own instances' topics reaches anybody."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from attack_parts import PREFIX, SESSION, Attacker, Target, target
from engine_params import EMBEDDED
from patience import patience
from running_brokers import soon

from ether.ledger.reader import LedgerReader, RecordFilter
from ether.security.rights import DeviceInstance, DeviceRights, covers, rights_of_guest, rights_of_host, rules_of
from ether.wire.entries import Entry, pack_batch, pack_entries

CAM = DeviceInstance("cam", "lab.yaml:3: instances.cam", ("picture",), ("wanted",), ("sensor.read",))
PI3 = rights_of_host(SESSION, "pi3", [CAM])
USERS = {"pi3": "of-the-pi", "phone": "of-the-phone"}
CALLED = {"pi3": "sensor", "phone": "main"}
"""Under which client ids they enter: those are the attacker's choice, and here the names of others."""
TABLE = {"pi3": PI3, "phone": rights_of_guest(SESSION, "phone", "read")}


@pytest.fixture(scope="module", params=EMBEDDED)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = {"users": USERS, "rights": rules_of(TABLE)}
    folder = tmp_path_factory.mktemp("stolen")
    with target(request.param, folder, settings, security={"guests": "read"}) as session:
        with Attacker(session.broker) as owner:  # the thread for requests to `main` begins with the first one
            owner.send("control/keep/owner", {"instances": ["main"], "do": "clock"})
        assert soon(lambda: any(thread.name == "ether-control" for thread in threading.enumerate()), 10)
        yield session


def stolen(attacked: Target, user: str = "pi3", protocol: int = 5) -> Attacker:
    login = {"user": user, "password": USERS[user], "client_id": CALLED[user]}
    return Attacker(attacked.broker, protocol=protocol, hears=f"{PREFIX}state/#", **login)


VERBS = (
    "stop", "cleanup", "save_all", "drain", "sync", "keep", "run", "fence", "trial", "keeper", "log-level",
)  # fmt: skip
FORGED_TOPICS = [
    # every plane in another's name, and every command
    "state/sensor", "state/sensor/pulse", "state/main", "state/recorder", "log/sensor", "log/main", "session", "run",
    "reply/main/sensor", "reply/main/main", "reply/main", "record/recorder", "record/recorder/sensor", "record/x/main",
    "record/recorder/about", "ack/0123456789abcdef", "ack/0123456789abcdef/recorder", "data/temperature", "data/x/y",
    *(
        f"control/{verb}{by}"
        for verb in VERBS
        for by in ("", "/main", "/sensor", "/@pc")
    ),
    f"control/missed/0123456789ab/{PREFIX}data/temperature", f"control/missed/0123456789ab/{PREFIX}state/sensor",
    "call/sensor/store", "call/sensor/shell", "call/recorder/proof", "call/cam/read", "state/pi4", "log/pi4",
]  # fmt: skip


@pytest.mark.attack("M12", "a forged retained session's entry", "`session`, with another leader")
@pytest.mark.attack("M17", "log levels of all", "`control/log-level` by a member that does not lead")
@pytest.mark.attack(
    "R1", "a stolen member in others' names", f"{len(FORGED_TOPICS)} topics of every plane, retained and not"
)
@pytest.mark.parametrize("protocol", [5, 3])
def test_nothing_in_anothers_name_reaches_anybody(attacked: Target, protocol: int) -> None:
    assert not [topic for topic in FORGED_TOPICS if PI3.may("publish", PREFIX + topic)]
    with Attacker(attacked.broker) as owner, stolen(attacked, protocol=protocol) as evil:
        mark = f"forged-{protocol}"
        for topic in FORGED_TOPICS:
            evil.send(topic, {"name": mark, "instances": ["sensor"], "x": 1})
            evil.send(topic, {"name": mark}, retain=True)
        evil.publish(f"ether/1/other/{mark}", {"name": mark})
        evil.publish("plant/valve", {"name": mark})
        evil.send("log/cam", {"name": f"own-{mark}"})
        heard: list[str] = []

        def own_came(message: Any) -> bool:
            if mark.encode() in message.payload and b"own-" not in message.payload:
                heard.append(message.topic)
            return f"own-{mark}".encode() in message.payload

        assert owner.wait_for(own_came), "its own topic is allowed"
        assert heard == []
        assert attacked.lives()


@pytest.mark.attack("M5", "a forged `control/stop`", "under every name that the stolen member has or claims")
@pytest.mark.attack("M10", "a forged death, a cleared announcement", "retained on the topic of another's announcement")
@pytest.mark.attack("M13", "`control/keeper`", "another supervisor for an instance that it does not run")
@pytest.mark.attack("M15", "restart, remove, shutdown of others' instances", "`control/keep` to the program that leads")
@pytest.mark.attack(
    "R2", "a stolen member takes another's name over", "fence, announcement, claim, pulse, will of the death"
)
def test_it_takes_no_name_over(attacked: Target) -> None:
    with stolen(attacked) as evil:
        about = evil.about("sensor")
        forged = {**about, "epoch": about["epoch"] + 1, "birth": "evil", "node": "0" * 12}
        evil.send("state/sensor", forged, retain=True)
        evil.send("state/sensor", None, retain=True)
        evil.send("state/sensor", {"claim": "evil"})
        for by in ("", "/sensor", "/cam", "/pi3", "/@pi3"):
            evil.send(f"control/fence{by}", {"name": "sensor", "epoch": about["epoch"] + 1, "nodes": [about["node"]]})
            evil.send(f"control/stop{by}", {"instances": ["sensor", "main", "recorder"]})
            evil.send(f"control/cleanup{by}", {"instances": ["sensor"]})
            evil.send(f"control/keeper{by}", {"births": [about["birth"]], "keeper": "evil"})
            evil.send(f"control/keep{by}", {"instances": ["main"], "do": "remove", "name": "sensor"})
            evil.send(f"control/keep{by}", {"instances": ["main"], "do": "shutdown"})
        assert attacked.lives()
        with attacked.own.subscribe("temperature") as heard:
            attacked.own.pub({"celsius": 20.5}, topic="wanted")
            assert heard.get(timeout_s=patience(10)).value == {"celsius": 20.5}
        told = {it["name"]: it for it in attacked.own.instances()}
        assert told["sensor"]["state"] == "ready"
        assert told["sensor"]["keeper"] != "evil"


@pytest.mark.attack("R7", "data in an answer to a roll call", "an `ether/announced` that holds another's topic")
def test_an_answer_carries_no_data_past_the_rights(attacked: Target) -> None:
    client = attacked.own._launch.session._reply_topic.removeprefix(PREFIX)  # type: ignore[union-attr]
    forged = {f"{PREFIX}data/temperature": {"celsius": -273}}
    answer = {"name": "pi3", "announced": forged, "roster": [], "mqtt": "5", "properties": True}
    with stolen(attacked) as evil, attacked.own.subscribe("temperature") as heard:
        evil.send(f"{client}/pi3", answer, source="pi3", schema="ether/announced")
        assert attacked.lives()
        attacked.own.pub({"celsius": 21.5}, topic="wanted")
        assert heard.get(timeout_s=patience(10)).value == {"celsius": 21.5}


@pytest.mark.attack(
    "R8", "others' announcements in an answer to a roll call",
    "deaths, epochs, another leader, another recorder, by a member that may announce itself",
)  # fmt: skip
def test_an_answer_announces_nobody_else(attacked: Target) -> None:
    session = attacked.own._launch.session  # type: ignore[union-attr]
    client = session._reply_topic.removeprefix(PREFIX)
    before = {it["name"]: (it["state"], it.get("epoch")) for it in attacked.own.instances()}
    known = session.announcement("sensor").to_value()
    forged = {
        f"{PREFIX}state/sensor": {**known, "state": "lost", "error": "forged"},
        f"{PREFIX}state/recorder": {"name": "recorder", "state": "ready", "birth": "f" * 16, "epoch": 900},
        f"{PREFIX}state/ghost": {"name": "ghost", "state": "ready", "birth": "f" * 16, "machine": "pi3"},
        f"{PREFIX}record/recorder/about": {"birth": "f" * 16, "topics": "all", "wire": 2},
        f"{PREFIX}session": {"program": "pi3", "run": "forged", "rights": "guests: all"},
        f"{PREFIX}state/pi3": {"name": "pi3", "state": "ready", "birth": "e" * 16, "kind": "agent"},
    }
    answer = {"name": "main", "announced": forged, "roster": ["ghost"], "mqtt": "5", "properties": True}
    with stolen(attacked) as evil:
        evil.send(f"{client}/pi3", answer, source="pi3", schema="ether/announced")
        assert soon(lambda: session.announcement("pi3") is not None, 10), "its own counts"
    assert attacked.lives()
    after = {it["name"]: (it["state"], it.get("epoch")) for it in attacked.own.instances()}
    assert {name: after.get(name) for name in before} == before
    assert session.announcement("ghost") is None
    assert session.info(patience(5))["run"] != "forged"
    said = ("session", "run", "state/pi3", "state/pi3/health", "record/pi3/about")
    assert [each for each in said if session._may_say("pi3", f"{PREFIX}{each}")] == list(said[2:])


@pytest.mark.attack(
    "R3", "a stolen member writes into another's outbox", "batches and receipts under every form of topic"
)
def test_it_saves_nothing_in_anothers_name(attacked: Target) -> None:
    entry = Entry(1, "data", "temperature", str(uuid.uuid4()), 1, time.time(), (), "", "application/json", b"-273")
    with stolen(attacked) as evil:
        for box, source in (("f" * 16, "sensor"), ("e" * 16, "main"), ("d" * 16, "recorder"), ("c" * 16, "cam")):
            batch = pack_batch(box, source, 1, [pack_entries([entry])])
            for topic in ("record/recorder", "record/recorder/sensor", "record/recorder/pi3", "record/recorder/cam"):
                evil.send_batch(topic, batch)

    def kept() -> list[str]:
        with LedgerReader.open(attacked.ledger) as reader:
            return [it.source for it in reader.records(RecordFilter(topic="temperature")) if it.value == -273]

    assert soon(lambda: "cam" in kept(), 10), "its own is allowed"
    assert kept() == ["cam"]


@pytest.mark.attack("R4", "a guest that may read publishes", "data, calls, commands, announcements of others")
def test_a_guest_that_may_read_only_reads(attacked: Target) -> None:
    with Attacker(attacked.broker) as owner, stolen(attacked, "phone") as guest:
        for topic in [*FORGED_TOPICS, "call/sensor/read", "data/picture", "state/cam", "log/cam"]:
            guest.send(topic, {"name": "of the phone"})
        guest.send("control/announce", {"instances": ["of the phone"]})
        heard: list[str] = []

        def came(message: Any) -> bool:
            if b"of the phone" in message.payload:
                heard.append(message.topic)
            return message.topic.endswith("control/announce") and b"of the phone" in message.payload

        assert owner.wait_for(came)
        assert heard == [PREFIX + "control/announce"]


@pytest.mark.attack("R5", "a device hears what is not for it", "a subscription to everything")
def test_it_hears_only_what_it_may(attacked: Target) -> None:
    with Attacker(attacked.broker, user="pi3", password=USERS["pi3"], hears="ether/1/bench/data/#") as evil:
        with attacked.own.subscribe("temperature") as heard:
            attacked.own.pub({"celsius": 3.5}, topic="wanted")
            assert heard.get(timeout_s=patience(10)).value == {"celsius": 3.5}
        assert attacked.lives()
        said = []
        while not evil.heard.empty():
            said.append(evil.heard.get().topic)
        assert set(said) <= {PREFIX + "data/wanted"}


def test_the_table_says_why() -> None:
    right = PI3.grant_of("publish", PREFIX + "data/picture")
    assert right is not None
    assert right.why == "lab.yaml:3: instances.cam publishes picture"
    assert PI3.grant_of("publish", PREFIX + "data/other") is None
    assert PI3.may("publish", PREFIX + "call/sensor/read")
    assert not PI3.may("publish", PREFIX + "call/sensor/store")
    assert covers("a/#", "a")
    assert not covers("#", "$SYS/x")
    guest = rights_of_guest(SESSION, "phone", "call")
    assert guest.may("publish", PREFIX + "state/phone")
    assert not guest.may("publish", PREFIX + "state/sensor")
    everything = rights_of_guest(SESSION, "x", "all")
    assert everything.may("publish", "anything/at/all")
    assert rights_of_guest(SESSION, "x", "none") == DeviceRights("x", ())
    json.dumps(rules_of(TABLE))
