"""Alarms of an instance in a process of its own: in `ether alarms` and `ether ps`, as a topic, and in the record with
who and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands_here import ether_here
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.errors import EtherError

PATIENCE_S = patience(20.0)
GAUGE = "foreign_shapes.Gauge"
REGISTRY = {
    GAUGE: {
        "properties": {
            "level": {
                "get": {"topic": "level", "every": "50ms"},
                "set": True,
                "alarm": {"warn": 60, "alarm": 80, "latch": True},
                "on_alarm": {"call": "vent"},
            },
            "vented": {},
        },
        "methods": {"vent": {"ether_get": {}}},
    }
}


def test_alarms_from_outside(tmp_path: Path) -> None:
    with Ether() as ether:
        ether.tap(
            {
                "session": "alarmed",
                "instances": {"tank": {"class_path": GAUGE}},
                "registry": REGISTRY,
                "record": {"folder": str(tmp_path / "ledger"), "topics": ["nothing/else"]},
            }
        )
        changes = ether.subscribe("alarm/#")

        def until(state: str) -> dict[str, Any]:
            while True:
                event = changes.get(PATIENCE_S).value
                if event["state"] == state:
                    return dict(event)

        tank = ether.instance("tank")
        listed = ether_here(tmp_path, "alarms", "-s", "alarmed", "--json")
        assert [(row["name"], row["state"]) for row in listed.json] == [("tank.level", "ok")]
        assert listed.code == 0

        tank.set_level(90)
        until("alarm")
        assert soon(lambda: ether.alarms()["tank.level"]["level"] == "alarm")
        assert soon(lambda: ether.get("tank", "vented") == 1)
        shown = ether_here(tmp_path, "ps", "-s", "alarmed").out
        assert "ALARMS" in shown
        assert "level: alarm" in shown
        assert ether_here(tmp_path, "alarms", "-s", "alarmed").code == 1

        done = ether_here(tmp_path, "alarms", "ack", "tank.level", "-s", "alarmed", "--by", "ada", "--note", "seen")
        assert (done.code, done.out) == (0, "tank.level is acknowledged by ada\n")
        assert until("acknowledged")["by"] == "ada"
        done = ether_here(tmp_path, "alarms", "shelve", "tank.level", "--for", "10m", "-s", "alarmed", "--json")
        assert done.json["state"] == "shelved"
        shelved = until("shelved")
        assert "@" in shelved["by"]  # the user of this machine
        assert shelved["shelved"]["until"] - shelved["shelved"]["at"] == pytest.approx(600)
        with pytest.raises(EtherError, match=r"no such alarm\. Did you mean 'tank.level'"):
            ether.acknowledge("tank.levl")
        tank.set_level(20)
        assert soon(lambda: ether.alarms()["tank.level"]["level"] == "ok")
        ether.unshelve("tank.level", by="eve")
        assert until("ok")["by"] == "eve"
        ether_here(tmp_path, "alarms", "-s", "x", "ack", "tank.level").assert_mistake(2, "behind ack")
        ether_here(tmp_path, "alarms", "ack", "tank.level", "-s", "alarmed").assert_mistake(1, "it is ok")
        ether.shutdown()
        records = [record.value for record in ether.data(folder=tmp_path / "ledger", topic="alarm/#")]
    people = [(each["did"], each["by"], each["state"]) for each in records if each.get("by")]
    assert people[0] == ("acknowledge", "ada", "acknowledged")
    assert people[-1] == ("unshelve", "eve", "ok")
    assert [each["did"] for each in records if each.get("by")] == ["acknowledge", "shelve", "unshelve"]
    assert all(each["at"] > 1e9 for each in records if each.get("by"))
    assert [each["state"] for each in records][:2] == ["alarm", "acknowledged"]
