"""A pulled plug is seen by everybody: offline with its reason, ready again with its settings back."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from running_brokers import engines, mosquitto_missing
from twin_parts import Heater

from ether import Ether
from ether.errors import RemoteError, SyncError
from ether.instance.devices import found_below
from hardware_adapters import SerialPort
from hardware_adapters.simulate import SimulatedLab

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
BENCH = {
    "instruments": {
        "heater": {
            "idn": "ACME,Heater,0042,1.3",
            "properties": {"power": {"get": "POW?", "set": "POW {}", "min": 0, "max": 100}},
        }
    }
}
PATIENCE_S = patience(10.0)
pytestmark = pytest.mark.in_turn("engine")


class States:
    """What `ether.on_change` tells of one instance."""

    def __init__(self, ether: Ether, name: str) -> None:
        self._told: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        ether.on_change(lambda told: self._told.put(told) if told["name"] == name else None)

    def next(self) -> dict[str, Any]:
        return self._told.get(timeout=PATIENCE_S)

    def offline(self) -> dict[str, Any]:
        """The news that it is offline. That it is ready may still be told when this begins to listen."""
        while (told := self.next())["state"] == "ready":
            pass
        assert told["state"] == "offline", told
        return told

    def assert_no_more(self) -> None:
        assert self._told.empty(), self._told.get()


@pytest.fixture
def lab() -> Iterator[SimulatedLab]:
    with SimulatedLab(BENCH) as made:
        yield made


@pytest.fixture
def ether() -> Iterator[Ether]:
    with Ether() as own:
        yield own


def state_of(ether: Ether, name: str) -> tuple[str, str]:
    (row,) = [row for row in ether.instances() if row["name"] == name]
    return row["state"], row["error"]


@pytest.mark.parametrize("engine", ENGINES)
def test_pulled_and_plugged_in_again(ether: Ether, lab: SimulatedLab, engine: str) -> None:
    config = {"instances": {"heater": {"class_path": "twin_parts.Heater", "args": [lab.port("heater")]}}}
    ether.tap(config, broker={"engine": engine})
    states = States(ether, "heater")
    ether.get("heater", "set_power", 12.5)
    lab.unplug("heater")
    told = states.offline()
    assert "unplugged" in told["error"]
    assert lab.port("heater") in told["error"]
    assert told["offline"]["why"] == told["error"]
    assert state_of(ether, "heater") == ("offline", told["error"])
    with pytest.raises(RemoteError) as refused:  # it answers, and says so itself
        ether.get("heater", "read_power")
    assert refused.value.remote_class == "Disconnected"
    lab.plug("heater")
    back = states.next()
    assert (back["state"], back["error"]) == ("ready", "")
    assert "offline" not in back
    assert ether.get("heater", "read_power") == 12.5
    assert lab.value("heater.power") == 12.5
    assert state_of(ether, "heater") == ("ready", "")


def test_who_joins_meanwhile_sees_it_and_the_end_is_orderly(lab: SimulatedLab) -> None:
    with Ether() as ether, Ether() as other:
        config = {
            "session": "pulled",
            "instances": {"heater": {"class_path": "twin_parts.Heater", "args": [lab.port("heater")]}},
        }
        ether.tap(config)
        states = States(ether, "heater")
        lab.unplug("heater")
        states.offline()
        other.tap({"session": "pulled"})
        assert state_of(other, "heater")[0] == "offline"
        assert ether.save_all() == {"heater": []}  # it takes part
        ether.shutdown()  # within its bounds, without a complaint


def test_an_object_of_this_program(ether: Ether, lab: SimulatedLab) -> None:
    ether.tap()
    heater = Heater(lab.port("heater"))
    ether.host(heater, "heater")
    states = States(ether, "heater")
    lab.unplug("heater")
    states.offline()
    lab.plug("heater")
    assert states.next()["state"] == "ready"
    heater.port.close()  # on purpose: no news
    ether.unhost("heater")
    assert states.next()["state"] == "stopped"
    states.assert_no_more()


def test_a_sync_does_not_pass_over_who_is_offline(ether: Ether, lab: SimulatedLab) -> None:
    from ether import ether_sync

    class Synced(Heater):
        @ether_sync(topic="prepare")
        def prepare(self) -> float:
            return self.port.query_value("POW?", float)

    ether.tap()
    heater = Synced(lab.port("heater"))
    ether.host(heater, "heater")
    states = States(ether, "heater")
    assert ether.sync("prepare") == {"heater": 0.0}
    lab.unplug("heater")
    states.offline()
    with pytest.raises(SyncError, match="Disconnected"):
        ether.sync("prepare")
    heater.close()


def test_a_device_that_is_made_late_counts(ether: Ether, lab: SimulatedLab) -> None:
    class Late:
        port: SerialPort | None = None

    ether.tap()
    late = Late()
    ether.host(late, "late")
    states = States(ether, "late")
    late.port = SerialPort(lab.port("heater"), timeout_s=patience(2))
    lab.unplug("heater")
    states.offline()
    late.port.close()


def test_devices_are_found_where_users_keep_them(lab: SimulatedLab) -> None:
    class Keeps:
        def __init__(self, **parts: object) -> None:
            self.__dict__.update(parts)

    class Trap:
        @property
        def presence(self) -> object:
            raise AssertionError("a property of the user's was read")

    with SerialPort(lab.port("heater"), timeout_s=patience(2)) as port:
        assert found_below(port) == [port]
        assert found_below(Keeps(parts={"a": [Keeps(port=port)]}, again=port, trap=Trap())) == [port]
        circle = Keeps()
        circle.__dict__["me"] = circle
        assert found_below(circle) == []
        assert found_below(Keeps(cls=SerialPort, many=list(range(100_000)), number=7)) == []


def test_ps_shows_it(lab: SimulatedLab, tmp_path: Path) -> None:
    from ether.cli.lab.ps import member_rows

    with Ether() as ether:
        config = {"instances": {"heater": {"class_path": "twin_parts.Heater", "args": [lab.port("heater")]}}}
        ether.tap(config)
        states = States(ether, "heater")
        lab.unplug("heater")
        states.offline()
        rows = {row["name"]: row for row in member_rows(ether._joined("the test"))}
        assert rows["heater"]["state"] == "offline"
        assert "unplugged" in rows["heater"]["error"]
        assert rows["heater"]["queued"] == 0  # it still has a pulse
