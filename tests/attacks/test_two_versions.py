"""The code of before senders stood in topics, and this one, in one lab: each leads once, and the other one is served.

The old code comes out of the repository's history; where that is not there (a shallow clone, a source archive), these
tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience
from programs import write
from running_brokers import RunningBroker, running_broker, soon

from ether.ledger.reader import LedgerReader, RecordFilter

REPOSITORY = Path(__file__).resolve().parents[2]
BEFORE = "74b6f139"
"""The last commit whose members say version 1 of the wire."""

PUMP = """
from ether import ether, ether_get, ether_pub, ether_save, ether_sub, ether_sync

class Pump:
    doses = 0
    @ether_get
    def add(self, a: int, b: int): return a + b
    @ether_save
    def dose(self, ul: int):
        self.doses += ul
        return self.doses
    @ether_sync(topic="prime")
    def prime(self): return "primed"
    @ether_sub(topic="in")
    @ether_pub(topic="out", save=True)
    def double(self, value: int): return 2 * value
    @ether_get
    def record(self, value: int):
        saved = ether.record(value, "recorded")
        saved.wait(20)
        return saved.id
    @ether_get
    def call(self, service: str): return ether.get(service, "add", {"a": 2, "b": 3})
"""

LEADS = """
import json, sys, threading
import ether as package
from ether import ether
from pump import Pump
broker, folder, name = sys.argv[1:]
record = {"topics": "all", "folder": folder}
ether.tap({"session": "bench", "broker": broker, "record": record, "instances": {name: {"class_path": "pump.Pump"}}})
print("leads", package.__file__, flush=True)
for line in sys.stdin:
    if line.strip() == "stop":
        break
ether.shutdown()
print("ended", flush=True)
"""

JOINS = """
import json, sys
import ether as package
from ether import ether
from pump import Pump
broker, theirs = sys.argv[1:]
ether.tap(session="bench", broker=broker)
print("joined", package.__file__, flush=True)
assert ether.get(theirs, "add", {"a": 1, "b": 2}) == 3
assert ether.save(theirs, "dose", {"ul": 4})["status"] == "success"
assert ether.sync("prime")[theirs] == "primed"
with ether.subscribe("out") as out:
    ether.pub({"value": 21}, topic="in")
    assert out.get(timeout_s=20).value == 42
ether.host(Pump(), "guest")
assert ether.get(theirs, "call", {"service": "guest"}) == 5
saved = ether.record(77, "by the guest")
saved.wait(20)
assert ether.get(theirs, "record", {"value": 5})
print("served", flush=True)
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        done = subprocess.run(
            ["git", "archive", BEFORE, "ether", "broker"], cwd=REPOSITORY, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"the history of this repository does not hold {BEFORE}: clone it whole (git fetch --unshallow)")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=EMBEDDED)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


def program(folder: Path, code: Path, script: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, str(folder / script), *arguments], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.parametrize("old_leads", [True, False], ids=["the old one leads", "the new one leads"])
def test_members_of_both_versions_serve_each_other(
    old: Path, broker: RunningBroker, tmp_path: Path, *, old_leads: bool
) -> None:
    for name, source in (("pump.py", PUMP), ("leads.py", LEADS), ("joins.py", JOINS)):
        write(tmp_path, name, source)
    leader_code, guest_code = (old, REPOSITORY) if old_leads else (REPOSITORY, old)
    ledger = tmp_path / "ledger"
    leader = program(tmp_path, leader_code, "leads.py", broker.url_tcp, str(ledger), "pump")
    assert leader.stdin is not None
    assert leader.stdout is not None
    said = []
    try:
        while not (line := leader.stdout.readline()).startswith("leads"):
            assert line, said
            said.append(line)
        assert str(leader_code) in line
        guest = program(tmp_path, guest_code, "joins.py", broker.url_tcp, "pump")
        told, _ = guest.communicate(timeout=patience(60))
        assert f"joined {guest_code}" in told, told
        assert "served" in told, told
    finally:
        try:
            rest, _ = leader.communicate("stop\n", timeout=patience(30))
        except subprocess.TimeoutExpired:
            leader.kill()
            rest, _ = leader.communicate()
    assert "ended" in rest, rest
    assert soon(lambda: (ledger / "ledger.db").exists(), 5)
    with LedgerReader.open(ledger) as reader:
        kept = [(record.topic, record.value) for record in reader.records(RecordFilter())]
        assert reader.conflicts() == []
    assert all(each in kept for each in (("by the guest", 77), ("recorded", 5), ("out", 42)))
