"""A link is cut while a sensor is recorded: nothing is missing afterwards, and memory stays bounded."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from journal import Journal
from namespaces import namespaces_missing, running_network
from paired import pair
from running_brokers import mosquitto_missing

from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.recording.completeness_rules import prove

pytestmark = [
    pytest.mark.skipif(namespaces_missing is not None, reason=str(namespaces_missing)),
    pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing)),
]
MEMBER = str(Path(__file__).with_name("member.py"))
SENSOR = str(Path(__file__).with_name("sensor.py"))
CUT_S = 60.0 if os.environ.get("ETHER_LONG") == "1" else 6.0
HERTZ = 100
MEMORY_KB = 200_000


def test_what_a_sensor_says_while_it_is_cut_off_is_recorded_in_order(tmp_path: Path) -> None:
    with running_network(tmp_path) as network:
        pc, pi = network.machine("pc"), network.machine("pi")
        pair(pc.environment, pi.environment, "pi")
        config = {"session": "bench", "record": {"topics": ["sensor"], "folder": str(tmp_path / "ledger")}}
        lan = {"config": {**config, "broker": {"engine": "mosquitto", "listen": "lan"}}}
        with pc.run(MEMBER, "anvil", "bell", json.dumps(lan)) as leader:
            leader.wait_for("hosting")
            with pi.run(SENSOR, f"mqtts://{pc.address}", str(HERTZ)) as program:
                sensor = Journal(program)
                sensor.first("sending")
                # The length of what is recorded before, during and after the cut is what is tested.
                threading.Event().wait(1.0)  # bare: before
                network.cut(pi)
                threading.Event().wait(CUT_S)
                network.heal(pi)
                threading.Event().wait(1.0)  # bare: after
                program.process.send_signal(signal.SIGUSR1)
                sensor.first("memory", timeout_s=90)
                assert program.finish().code == 0, program.said()[-6000:]
            leader.interrupt()
            assert leader.finish().code == 0, leader.said()[-6000:]
    [published], [unsaved], [memory_kb] = (sensor.numbers(what) for what in ("published", "unsaved", "memory"))
    assert unsaved == 0
    assert published > (CUT_S + 1) * HERTZ * 0.5, "it did not wait for the link"
    assert memory_kb < MEMORY_KB
    with LedgerReader.open(tmp_path / "ledger") as reader:
        values = [it.value["n"] for it in reader.records(RecordFilter(topic="sensor"))]  # type: ignore[index,call-overload]

        proof = prove(reader.outboxes(), reader.duplicates())
    assert values == list(range(1, published + 1))
    assert (proof.gaps, proof.duplicates, proof.durable) == ((), 0, proof.total), str(proof)
    assert verify(tmp_path / "ledger").findings == ()
    print(f"{published} values, {CUT_S:g} s cut, {proof}, {memory_kb:,} kB")
