"""A replay never moves a device (P5): a recorded fault is played beside a live, simulated plant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_params import EVERY, On
from ledgers import Source, make_ledger
from patience import patience
from running_brokers import soon

from ether import Ether
from ether.calls.durable_records import SavedCall
from ether.connection.causes import Cause, handling
from ether.errors import ReplayRefused
from ether.wire.origin import ONTO_DEVICES, REPLAYED, TrialOrigin, may_not_move_devices, read, replayed, text_of
from hardware_adapters.replays import is_question
from hardware_adapters.simulate import SimulatedLab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")

FAULT = [21.0, 60.0, 95.0]
BENCH = {
    "seed": 3,
    "instruments": {
        "psu": {"idn": "ACME,PSU,1,1", "properties": {"power": {"get": "POW?", "set": "POW {}", "min": 0, "max": 100}}}
    },
}


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


@pytest.fixture
def bench() -> Iterator[SimulatedLab]:
    with SimulatedLab(BENCH) as lab:
        yield lab


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Last night's recording: temperatures on `temp`, and a foreign device's order."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    source = Source("probe")
    for celsius in FAULT:
        source.add("temp", {"celsius": celsius})
    source.add("mqtt:plant/fan", 5)
    return make_ledger(tmp_path / "fault", [source])


def plant(port: str) -> dict[str, Any]:
    """What may be moved: a heater with limits, a valve with a safe state, a power supply on a serial port."""
    get = {"ether_get": {}}
    heater = {"methods": {"set_power": {**get, "arguments": {"watts": {"limits": [0, 100]}}}, "log": get}}
    valve = {
        "methods": {"move": {"ether_sub": {"topic": "valve"}}, "log": get},
        "safe_state": {"after": "5s", "calls": ["close"], "allow": ["log"]},
    }
    return {
        "session": "plant",
        "instances": {
            "heater": {"class_path": "plant_parts.Heater"},
            "valve": {"class_path": "plant_parts.Valve"},
            "filter": {"class_path": "plant_parts.Filter"},
            "controller": {"class_path": "plant_parts.Controller", "kwargs": {"port": port}},
        },
        "registry": {"plant_parts.Heater": heater, "plant_parts.Valve": valve},
    }


def seen(ether: Ether, heard: int) -> dict[str, Any]:
    """What the controller has seen, once it has heard so many temperatures."""
    found: dict[str, Any] = {}
    assert soon(lambda: found.update(ether.get("controller", "seen")) or found["heard"] >= heard, patience(20)), found
    return found


@pytest.mark.parametrize("engine", EVERY if os.environ.get("ETHER_LONG") == "1" else EVERY[1:2])
def test_a_recorded_fault_beside_a_live_plant_writes_nothing(
    ether: Ether, bench: SimulatedLab, fault: Path, engine: str, on: On
) -> None:
    ether.tap(plant(bench.port("psu")), broker=on(engine))
    fans = ether.subscribe("mqtt:plant/fan")
    played = ether.play(fault, speed="max")
    assert (played.messages, sum(played.skipped.values())) == (3, 1)
    refusals = seen(ether, 3)["refusals"]
    assert ether.get("heater", "log") == []
    assert ether.get("valve", "log") == []
    assert bench.value("psu.power") == 0.0
    # In each of three messages: a call from a thread and one from the handler, a foreign topic, the port. The question
    # was answered; the valve has refused its message itself, and says so in the log.
    ways = [refusal.partition(":")[0] for refusal in refusals]
    assert sorted(ways) == sorted(["by_call", "by_call", "elsewhere", "by_port"] * 3), refusals
    assert all("its cause is a replay of a recording" in refusal for refusal in refusals)
    # The live plant goes on beside it.
    ether.pub({"celsius": 33.0}, topic="temp")
    assert len(seen(ether, 4)["refusals"]) == len(refusals)
    assert ether.get("heater", "log") == [33.0, 33.0]
    assert soon(lambda: ether.get("valve", "log") == [33.0], patience(5))
    assert bench.value("psu.power") == 33.0
    with fans:
        assert fans.get(timeout_s=patience(5)).value == 33.0


def test_onto_devices_it_moves_them(ether: Ether, bench: SimulatedLab, fault: Path) -> None:
    ether.tap(plant(bench.port("psu")))
    played = ether.play(fault, speed="max", onto_devices=True)
    assert (played.messages, sum(played.skipped.values())) == (4, 0)
    assert seen(ether, 3)["refusals"] == []
    assert ether.get("heater", "log") == [celsius for celsius in FAULT for _ in (1, 2)]
    assert soon(lambda: ether.get("valve", "log") == FAULT, patience(5))
    assert bench.value("psu.power") == FAULT[-1]


def test_the_permission_goes_with_the_origin() -> None:
    assert replayed(None) == REPLAYED
    assert replayed("scan/1/2/1", onto_devices=True) == f"{ONTO_DEVICES}/scan/1/2/1"
    assert replayed(replayed(None, onto_devices=True)) == ONTO_DEVICES
    for text in (REPLAYED, ONTO_DEVICES, f"{REPLAYED}/scan/1/2/1", f"{ONTO_DEVICES}/scan/1/2/1", "scan/1/2/1"):
        assert text_of(read(text)) == text
    assert read(f"{ONTO_DEVICES}/scan/1/2/1") == TrialOrigin("scan/1", 2, 1, True, True)
    forbids = [REPLAYED, f"{REPLAYED}/scan/1/2/1"]
    allows = [None, ONTO_DEVICES, f"{ONTO_DEVICES}/scan/1/2/1", "scan/1/2/1", "$replays", "$other"]
    assert [may_not_move_devices(text) for text in (*forbids, *allows)] == [True] * 2 + [False] * 6


def test_a_driver_of_ones_own_asks_before_it_moves() -> None:
    Ether.check_device("stage")
    refused = pytest.raises(ReplayRefused, match=r"a move on stage was refused: .*--onto-devices")
    with handling(Cause("id", None, origin=REPLAYED)), refused:
        Ether.check_device("stage", "a move")
    with handling(Cause("id", None, origin=ONTO_DEVICES)):
        Ether.check_device("stage")


def test_which_commands_only_ask() -> None:
    assert all(map(is_question, [b"POW?", b"*IDN?;SYST:ERR?", b"MEAS:VOLT? (@1)", b" POW? \n"]))
    assert not any(map(is_question, [b"POW 5", b"POW 5;*OPC?", b"SAY what?", b"", b";", b"\x01\x06\x00?"]))


def test_a_save_that_is_sent_again_by_another_process_keeps_the_mark() -> None:
    """It waits on disk while its instance is away, and nothing else of its cause does."""
    for caller, mark in (
        ("main", None),
        ("a b", None),
        (f"main {REPLAYED}", REPLAYED),
        (f"a b {ONTO_DEVICES}", ONTO_DEVICES),
    ):
        assert SavedCall("00" * 16, "pump", "dose", "pump", "", 0.0, caller).mark == mark
