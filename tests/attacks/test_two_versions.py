"""The code of before, out of the repository's history, and this one, in one lab: each leads once, and the other one is
served; and each reads what the other one has written to the disk.

A repository without that history (a shallow clone, a source archive) skips these tests and says so. Where the history
is whole and the commit is not in it, they fail: then they have shown nothing for a long time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience
from programs import write
from running_brokers import RunningBroker, running_broker

from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.recording.outbox_file import OutboxFile, adopt
from ether.session.leader_rules import RETURN_S
from ether.wire.entries import pack_entry
from tests.parts.ledger_parts import OUTBOX, entry, gap, run_of

REPOSITORY = Path(__file__).resolve().parents[2]
BEFORE = "ae8ad9d"
"""The last published commit whose members say version 1 of the wire."""
LONG = os.environ.get("ETHER_LONG") == "1"

_LEADER_CHECKED_S = 2 * RETURN_S + 5.0
"""After an outage a leader is asked 4 s later, and twice `RETURN_S` after that would be called dead."""

PUMP = """
from ether import ether, ether_get, ether_pub, ether_save, ether_sub, ether_sync

class Pump:
    doses = 0
    @ether_get
    def add(self, a: int, b: int): return a + b
    @ether_get
    def fail(self): raise ValueError("no water")
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
    @ether_get
    def save(self, service: str): return ether.save(service, "dose", {"ul": 4})["status"]
"""

LEADS = """
import json, sys
import ether as package
from ether import ether
from pump import Pump
configuration = json.loads(sys.argv[1])
ether.tap({"session": "bench", **configuration, "instances": {"pump": {"class_path": "pump.Pump"}}})
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
from ether.errors import RemoteError
from pump import Pump
configuration = json.loads(sys.argv[1])
ether.tap({"session": "bench", **configuration, "instances": {"second": {"class_path": "pump.Pump"}}})
print("joined", package.__file__, flush=True)

def serves(theirs):
    assert ether.get(theirs, "add", {"a": 1, "b": 2}) == 3
    assert ether.save(theirs, "dose", {"ul": 4})["status"] == "success"
    try:
        ether.get(theirs, "fail")
    except RemoteError as error:
        assert "no water" in str(error)
    else:
        raise AssertionError("the error did not come")

serves("pump")
assert ether.sync("prime") == {"pump": "primed", "second": "primed"}
with ether.subscribe("out") as out:
    ether.pub({"value": 21}, topic="in")
    assert [out.get(timeout_s=20).value for _ in range(2)] == [42, 42]
ether.host(Pump(), "guest")
for ours in ("guest", "second"):
    assert ether.get("pump", "call", {"service": ours}) == 5
    assert ether.get("pump", "save", {"service": ours}) == "success"
assert ether.get("second", "call", {"service": "pump"}) == 5
large = [ether.record(bytes(300_000), "large") for _ in range(3)]
for value in (77, 78):
    ether.record(value, "by the guest").wait(20)
for saved in large:
    saved.wait(20)
for n in (5, 6):
    assert ether.get("pump", "record", {"value": n})
    assert ether.get("second", "record", {"value": 10 * n})
print("served", flush=True)
for line in sys.stdin:
    if line.strip() == "again":
        serves("pump")
        ether.record(79, "by the guest").wait(20)
        print("served again", flush=True)
    else:
        break
ether.shutdown()
"""

SAVED = (
    ("by the guest", 77), ("by the guest", 78), ("recorded", 5), ("recorded", 6), ("recorded", 50), ("recorded", 60),
    ("out", 42), ("large", bytes(300_000)),
)  # fmt: skip

DISK = """
import json, sys
import ether as package
from pathlib import Path
from ether.errors import EtherError
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.recording.outbox_file import OutboxFile, adopt
from ether.wire.entries import Batch, Entry, pack_entry

def entry(n):
    id = f"0192f0c1-0000-7000-8000-{n:012x}"
    return Entry(n, "data", "camera/frame", id, n, 1_700_000_000.0 + n, (), "", "application/json", b"%d" % n, {})

def append(folder, outbox, count):
    writer = LedgerWriter.open(folder, "bench")
    first = writer.highest(outbox) + 1
    writer.append([Batch(outbox, "camera", first + count, tuple(map(entry, range(first, first + count))))], 1.7e9)
    writer.close()
    return first

def read(folder):
    report = verify(folder)
    with LedgerReader.open(folder) as reader:
        return [report.ok, report.sealed, report.records, len(list(reader.records(RecordFilter())))]

def leave(folder, count):
    file = OutboxFile.create(folder, "camera")
    file.append([(n, pack_entry(entry(n))) for n in range(1, count + 1)])
    file.sync()
    file.close()

def take(folder):
    found = []
    for file in adopt(folder):
        found.append([file.source, file.count, file.last])
        file.close()
    return found

done = []
for name, folder, *arguments in json.loads(sys.argv[1]):
    try:
        done.append({"append": append, "read": read, "leave": leave, "take": take}[name](Path(folder), *arguments))
    except EtherError as error:
        done.append(f"{type(error).__name__}: {error}")
print(json.dumps([package.__file__, done]))
"""


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        done = subprocess.run(["git", "archive", BEFORE, "ether", "broker"], cwd=REPOSITORY, capture_output=True)
        asked = ["git", "rev-parse", "--is-shallow-repository"]
        whole = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip() == "false"
    except OSError:
        pytest.skip("there is no git that could show the code of before")
    if done.returncode and not whole:
        pytest.skip(f"the history of this repository does not hold {BEFORE}: clone it whole (git fetch --unshallow)")
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(params=EMBEDDED)
def broker(request: pytest.FixtureRequest) -> Iterator[RunningBroker]:
    with running_broker(request.param) as running:
        yield running


class Program:
    """A program of one of the two versions."""

    def __init__(self, folder: Path, code: Path, script: str, configuration: dict[str, object]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(folder / script), json.dumps(configuration)], cwd=folder, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._said: list[str] = []

    def hear(self, beginning: str) -> str:
        """Wait until it says a line that begins so."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            self._said.append(line)
            if line.startswith(beginning):
                return line
        raise AssertionError("".join(self._said))

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """All that it has said, when it has ended."""
        try:
            rest, _ = self._process.communicate("stop\n", timeout=patience(30))
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            rest, _ = self._process.communicate()
        self._said.append(rest)
        return "".join(self._said)


def serve_each_other(
    folder: Path, codes: tuple[Path, Path], leads: dict[str, object], joins: dict[str, object],
    outage: RunningBroker | None = None,
) -> None:  # fmt: skip
    """A session that the first code leads and the second one joins. `outage`: its broker, which dies once."""
    for name, source in (("pump.py", PUMP), ("leads.py", LEADS), ("joins.py", JOINS)):
        write(folder, name, source)
    ledger = folder / "ledger"
    leader = Program(folder, codes[0], "leads.py", {**leads, "record": {"topics": "all", "folder": str(ledger)}})
    try:
        assert str(codes[0]) in leader.hear("leads")
        guest = Program(folder, codes[1], "joins.py", joins)
        try:
            assert str(codes[1]) in guest.hear("joined")
            guest.hear("served")
            if outage is not None:
                outage.kill()
                outage.restart()
                for wait_s in (0.0, _LEADER_CHECKED_S):
                    threading.Event().wait(wait_s)  # bare: by then whoever is taken for dead has been cleared
                    guest.tell("again")
                    guest.hear("served again")
        finally:
            guest_said = guest.end()
    finally:
        leader_said = leader.end()
    assert "\nended" in leader_said, leader_said
    assert "is dead" not in leader_said + guest_said
    if outage is None:
        assert " - ERROR - " not in leader_said + guest_said
    with LedgerReader.open(ledger) as reader:
        kept = [(record.topic, record.value) for record in reader.records(RecordFilter())]
        assert reader.conflicts() == []
    assert [each for each in SAVED if each not in kept] == []
    assert verify(ledger).ok


LONG_FORM = pytest.mark.skipif(not LONG, reason="the long form: ETHER_LONG=1")
OLD, NEW = pytest.param(True, id="the old one leads"), pytest.param(False, id="the new one leads")


@pytest.mark.parametrize("old_leads", [OLD, pytest.param(False, id="the new one leads", marks=LONG_FORM)])
@pytest.mark.in_turn("broker")
def test_members_of_both_versions_serve_each_other(
    before: Path, broker: RunningBroker, tmp_path: Path, *, old_leads: bool
) -> None:
    at = {"broker": broker.url_tcp}
    serve_each_other(tmp_path, (before, REPOSITORY) if old_leads else (REPOSITORY, before), at, at)


def test_on_one_machine_the_old_one_is_served_in_an_encrypted_session_with_rights(before: Path, tmp_path: Path) -> None:
    """It finds the session by the record on this machine, and comes over loopback, where nobody needs a certificate."""
    leads = {"broker": {"listen": "lan", "port": 0}, "security": {"guests": "read"}}
    serve_each_other(tmp_path, (REPOSITORY, before), leads, {})


@LONG_FORM
def test_on_one_machine_the_new_one_finds_the_old_ones_session(before: Path, tmp_path: Path) -> None:
    serve_each_other(tmp_path, (before, REPOSITORY), {}, {})


@LONG_FORM
@pytest.mark.parametrize("old_leads", [OLD, NEW])
def test_after_an_outage_the_leader_is_believed(
    before: Path, broker: RunningBroker, tmp_path: Path, *, old_leads: bool
) -> None:
    codes, at = (before, REPOSITORY) if old_leads else (REPOSITORY, before), {"broker": broker.url_tcp}
    serve_each_other(tmp_path, codes, at, at, outage=broker)


def test_each_version_reads_and_continues_what_the_other_one_has_written(before: Path, tmp_path: Path) -> None:
    shared, volumes, left, theirs = (str(tmp_path / name) for name in ("shared", "volumes", "left", "theirs"))

    def old(*steps: tuple[object, ...]) -> list[object]:
        environment = {**os.environ, "PYTHONPATH": str(before), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(tmp_path / write(tmp_path, "disk.py", DISK)), json.dumps(steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        code, told = json.loads(done.stdout)
        assert Path(code).parents[1] == before
        assert isinstance(told, list)
        return told

    assert old(("append", shared, OUTBOX, 5), ("leave", left, 3)) == [1, None]
    with LedgerReader.open(Path(shared)) as reader:
        assert [record.value for record in reader.records(RecordFilter())] == [1, 2, 3, 4, 5]
    writer = LedgerWriter.open(Path(shared), "bench")
    writer.append([run_of(6, 8)], 1.0)
    writer.append([run_of(9, 9)._replace(entries=(gap(10, 9, 10, "the disk was full"),), head=10)], 2.0)
    writer.append([run_of(6, 6)._replace(entries=(entry(6, payload=b"another"),))], 3.0)  # a conflict
    writer.close()
    writer = LedgerWriter.open(Path(volumes), "bench")
    writer.append([run_of(1, 5)], 1.0)
    assert writer.rotate(2.0) is None
    writer.append([run_of(6, 7)], 3.0)
    writer.close()
    (adopted,) = adopt(Path(left))
    assert (adopted.source, adopted.count, adopted.last) == ("camera", 3, 3)
    adopted.close()
    file = OutboxFile.create(Path(theirs), "pump", ledger=shared)
    file.append([(n, pack_entry(entry(n))) for n in (1, 2)])
    file.close()

    read, first, again, refused, taken = old(
        ("read", shared), ("append", shared, OUTBOX, 2), ("read", shared), ("append", volumes, OUTBOX, 1),
        ("take", theirs),
    )  # fmt: skip
    assert (read, first, again) == ([True, True, 10, 8], 11, [True, True, 12, 10])
    assert str(refused).startswith("SchemaTooNew: the ledger ")
    assert str(refused).endswith("Use the version of Ether that has written it, or a later one.")
    assert taken == [["pump", 2, 2]]
    for folder, count in ((shared, 12), (volumes, 7)):
        report = verify(Path(folder))
        assert (report.ok, report.records) == (True, count), report.findings
