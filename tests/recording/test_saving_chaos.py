"""Kills at random moments while several programs save at full rate, and volumes are closed: what was called saved is
on disk, once.

Broker, recorder and the programs that save are killed with -9. The short form makes a few kills; with ETHER_LONG=1 it
goes on to 300,000 acknowledged saves and 100 kills. The seed is printed; CHAOS_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import Program, running, write
from running_brokers import RunningBroker, engines, mosquitto_missing, running_broker, soon

from ether import Ether
from ether.ledger.reader import LedgerReader, RecordFilter, StoredRecord
from ether.ledger.verify import verify
from ether.ledger.volumes import closed_volumes
from ether.session.discovery.directory import sessions_at
from ether.system.folders import outbox_folder
from ether.transport.endpoint import Endpoint

LONG = os.environ.get("ETHER_LONG") == "1"
KILLS = 100 if LONG else 3
SAVES = 300_000 if LONG else 1_000
PUBLISHERS = 3
MOST_S = 1500.0 if LONG else 60.0
QUIET_S = 120.0 if LONG else 30.0

needs_mosquitto = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))
ENGINES = [pytest.param(engine, marks=needs_mosquitto if engine == "mosquitto" else ()) for engine in engines]
pytestmark = pytest.mark.timeout(1800 if LONG else 120)

PUBLISHER = """
    import os, random, signal, sys, threading
    from ether import Ether
    from ether.errors import EtherError, NotSaved

    name, url, group = sys.argv[1], sys.argv[2], int(sys.argv[3])
    enough = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: enough.set())
    acknowledged = os.open(f"acknowledged-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ether, tries = Ether(), 0
    while True:
        try:
            ether.tap(session="bench", broker=url)
            break
        except EtherError:  # the broker was killed just now
            tries += 1
            if tries == 100:
                raise
            enough.wait(0.2)
    with ether:
        print("ready", flush=True)
        n = 0
        while not enough.is_set():
            kept = []
            try:
                for _ in range(group):
                    n += 1
                    value = {"n": n, "by": name, "pad": "x" * (100_000 if n % 500 == 0 else 20)}
                    kept.append(ether.record(value, "results") if n % 2 else ether.pub(value, f"by/{name}", save=True))
                for saved in kept:
                    saved.wait(60)
            except NotSaved as error:
                assert not error.lost, error
            told = "".join(f"{saved.id}\\n" for saved in kept if saved.done)
            os.write(acknowledged, told.encode())
        print("left unsaved:", ether.flush(60), flush=True)
"""


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
    print(f"{request.node.name}: CHAOS_SEED={seed}")
    return random.Random(seed)


class Bench:
    """A session that is recorded, its broker, and programs that save."""

    def __init__(self, broker: RunningBroker, ether: Ether, folder: Path, stack: ExitStack, group: int) -> None:
        self.broker, self.ether, self._folder, self._stack, self._group = broker, ether, folder, stack, group
        self.publishers = {f"p{n}": self._publisher(f"p{n}") for n in range(PUBLISHERS)}

    def _publisher(self, name: str) -> Program:
        """Not before the session is there: who finds none on a broker that was just started begins one of that name."""
        at = Endpoint.from_url(self.broker.url_tcp)
        assert soon(lambda: any(info.session == "bench" for info in sessions_at(at, 5)), QUIET_S)
        arguments = (name, self.broker.url_tcp, str(self._group))
        return self._stack.enter_context(running(self._folder, "publisher.py", *arguments))

    def kill(self, what: str, chance: random.Random) -> None:
        """One of them, with -9, and have it back."""
        if what == "broker":
            for publisher in self.publishers.values():
                publisher.wait_for("ready", 60)
            self.broker.kill()
            self.broker = self.broker.restart()
        elif what == "recorder":
            ready = [it for it in self.ether.instances() if (it["name"], it["state"]) == ("recorder", "ready")]
            for it in ready:
                kill(it["pid"])
        else:
            name = chance.choice(sorted(self.publishers))
            self.publishers[name].kill()
            self.publishers[name].finish()
            self.publishers[name] = self._publisher(name)

    def acknowledged(self) -> list[str]:
        return [line for path in self._folder.glob("acknowledged-*") for line in whole_lines(path)]

    def end(self) -> None:
        """No more saves; returns when all that waited is on disk."""
        for publisher in self.publishers.values():
            publisher.wait_for("ready", 60)
            publisher.process.send_signal(signal.SIGUSR1)
        for publisher in self.publishers.values():
            finished = publisher.finish(180)
            assert finished.code == 0, publisher.said()[-6000:]
            assert "left unsaved: 0" in finished.out
        folder = outbox_folder("bench")
        assert soon(lambda: len(list(folder.glob("*.outbox"))) <= 1, QUIET_S), list(folder.iterdir())
        assert self.ether.flush(QUIET_S) == 0


def whole_lines(path: Path) -> list[str]:
    """All but the last one, if its writer was killed before its end."""
    return path.read_text().rpartition("\n")[0].splitlines()


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture(params=ENGINES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    write(tmp_path, "publisher.py", PUBLISHER)
    own = Ether()
    with running_broker(request.param) as broker, ExitStack() as stack:
        rotate = "20MB" if LONG else "250kB"
        record = {"topics": "all", "folder": str(tmp_path / "ledger"), "rotate": rotate}
        own.tap({"session": "bench", "broker": broker.url_tcp, "record": record})
        stack.callback(own.shutdown)
        yield Bench(broker, own, tmp_path, stack, group=200 if LONG else 50)


def records_of(folder: Path) -> list[StoredRecord]:
    with LedgerReader.open(folder) as reader:
        return list(reader.records(RecordFilter(kinds=())))


def test_what_was_called_saved_is_on_disk_once(bench: Bench, chance: random.Random, tmp_path: Path) -> None:
    began, kills = time.monotonic(), Counter[str]()
    for publisher in bench.publishers.values():
        publisher.wait_for("ready", 60)
    victims = ["broker", "recorder", "publisher"] * (KILLS // 3 + 1)
    chance.shuffle(victims)
    for what in victims[:KILLS]:
        threading.Event().wait(chance.uniform(0.1, 1.0))  # until a random moment: there is nothing to wait for
        bench.kill(what, chance)
        kills[what] += 1
    ledger = tmp_path / "ledger"
    enough = soon(lambda: len(bench.acknowledged()) >= SAVES and len(closed_volumes(ledger)) > 2, MOST_S)
    assert enough, f"{len(bench.acknowledged())} saves, {len(closed_volumes(ledger))} closed volumes"
    bench.end()
    proof = bench.ether.get("recorder", "proof", timeout_s=patience(120))
    bench.ether.shutdown()
    check(proof, bench.acknowledged(), ledger)
    print(f"{sum(kills.values())} kills {dict(kills)}, {proof['summary']}, {len(bench.acknowledged())} acknowledged,"
          f" {time.monotonic() - began:.0f} s")  # fmt: skip


def check(proof: dict[str, Any], acknowledged: list[str], folder: Path) -> None:
    """The ledger against what was told to those who saved, and the proof against the ledger."""
    records = records_of(folder)
    ids = Counter(record.id for record in records if record.kind in ("data", "record"))
    assert len(acknowledged) == len(set(acknowledged))
    assert [it for it in acknowledged if ids[it] == 0] == [], "acknowledged, and lost"
    assert [it for it, count in ids.items() if count > 1] == [], "twice"
    numbers: dict[str, list[int]] = {}
    for record in records:
        if record.outbox:
            numbers.setdefault(record.outbox, []).append(record.number)
    assert all(each == list(range(1, len(each) + 1)) for each in numbers.values()), "a hole, or out of order"
    assert (list(proof["gaps"]), proof["duplicates"]) == ([], 0), proof["summary"]
    own = sum(record.outbox != "" for record in records)
    assert proof["durable"] == proof["total"], proof["summary"]
    assert own - 2 <= proof["total"] <= own, "but for what was saved after the proof: the end of the run"
    report = verify(folder)
    assert (report.ok, report.sealed, report.findings) == (True, True, ()), str(report)
    assert len(closed_volumes(folder)) > 2
