"""Programs that know nothing of Ether drive a pipeline and read along: the real `mosquitto_pub` and `mosquitto_sub`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import patience
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker

from ether import Ether

clients_missing = (
    None if shutil.which("mosquitto_pub") else "mosquitto_pub is not installed: apt install mosquitto-clients"
)
pytestmark = pytest.mark.skipif(clients_missing is not None, reason=str(clients_missing))
needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dual_processors"


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ether, RunningBroker]]:
    """The example's pipeline in a session `bench` on a broker that runs already."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    own = Ether()
    with running_broker(request.param) as broker:
        own.tap(EXAMPLE / "pipeline.yaml", session="bench", broker=broker.url_tcp)
        try:
            yield own, broker
        finally:
            own.shutdown()


def options(broker: RunningBroker) -> list[str]:
    """What a stranger must know: the address and who may come in."""
    version = "5" if "5" in broker.protocols else "311"
    return ["-h", broker.host, "-p", str(broker.port), "-u", broker.username, "-P", broker.password, "-V", version]


def test_a_stranger_drives_the_pipeline(bench: tuple[Ether, RunningBroker]) -> None:
    ether, broker = bench
    with ether.subscribe("result") as results, ether.subscribe("data") as data:
        command = ["mosquitto_pub", *options(broker), "-t", "ether/1/bench/data/data", "-m", '{"data": 5}']
        subprocess.run(command, check=True, timeout=patience(20))
        values = sorted(results.get().value["value"] for _ in range(2))  # type: ignore[index]
        strange = data.get()
    assert values == [10, 20]
    assert (strange.value, strange.id, strange.source) == ({"data": 5}, None, None)


def test_a_stranger_reads_along(bench: tuple[Ether, RunningBroker]) -> None:
    ether, broker = bench
    command = ["mosquitto_sub", *options(broker), "-t", "ether/1/bench/#", "-v", "-W", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        seen: dict[str, str] = {}
        while len([topic for topic in seen if "/state/" in topic]) < 4:  # what is retained comes first
            topic, _, body = reader.stdout.readline().rstrip("\n").partition(" ")
            seen[topic] = body
        ether.pub({"data": 5}, topic="data")
        while "ether/1/bench/data/result" not in seen:
            topic, _, body = reader.stdout.readline().rstrip("\n").partition(" ")
            seen[topic] = body
        reader.terminate()
    info = json.loads(seen["ether/1/bench/session"])
    assert (info["session"], info["pid"]) == ("bench", os.getpid())
    state = json.loads(seen["ether/1/bench/state/processor1"])
    assert (state["state"], state["class"]) == ("ready", "DataProcessor")
    method = state["methods"]["process_data"]
    assert (method["subscribes"], method["publishes"]) == (["data"], ["result"])
    data = json.loads(seen["ether/1/bench/data/data"])
    assert data["data"] == 5
    assert set(json.loads(seen["ether/1/bench/data/result"])) >= {"result_name", "value"}
    for body in seen.values():
        assert broker.password not in body
