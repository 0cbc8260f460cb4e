"""A class with an instrument, in a session: what the instrument says by itself is published, also after a replug."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from patience import patience

from ether import Ether
from hardware_adapters.simulate import SimulatedLab

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ptys are there on POSIX only")

BENCH = {
    "instruments": {
        "balance": {
            "idn": "ACME,Balance,1,1",
            "properties": {"weight": {"get": "W?", "value": 12.5}},
            "stream": {"every_s": 0.02, "property": "weight", "form": "W={}"},
        }
    }
}


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def test_unsolicited_input_is_published(ether: Ether) -> None:
    with SimulatedLab(BENCH) as lab:
        kwargs = {"port": lab.port("balance"), "identity": "ACME,Balance,1,1"}
        instances = {"balance": {"class_path": "adapter_parts.Balance", "kwargs": kwargs}}
        ether.tap({"instances": instances}, broker={"engine": "amqtt"})
        with ether.subscribe("weight") as heard:
            assert heard.get(timeout_s=patience(10)).value == 12.5
            assert ether.get("balance", "ask", {"command": "W?"}) == "12.5"
            lab.unplug("balance")
            lab.plug("balance")
            lab.world.set("balance.weight", 99.0, lab.clock.now())
            deadline = time.monotonic() + patience(10)
            while heard.get(timeout_s=patience(10)).value != 99.0:
                assert time.monotonic() < deadline
        ether.shutdown()
