"""Programs that end within three seconds of their first saved value, killed and in order: what they saved is in its
ledger, after one `ether rescue` at most, and once. Six of them; 50 with ETHER_LONG=1."""

from __future__ import annotations

import json
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, repeat
from pathlib import Path
from time import monotonic

import pytest
from patience import patience
from programs import running, write
from running_brokers import engines, mosquitto_missing, soon

from ether import Ether
from ether.cli.data.rescue import rescue
from ether.launch.heartbeats import HeartbeatListener
from ether.ledger.places import find_ledger
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.recording.sources import sources_of, waiting_sessions

LONG = bool(os.environ.get("ETHER_LONG"))
COUNT = 50 if LONG else 6
LONGEST_S = 3.0 if LONG else 1.6
LATE_S = 1.0
"""What was given so long before a kill is in the outbox: docs/saving.md says that it takes some milliseconds, and
several programs that begin at once keep the cores from the thread that writes it for longer than that."""

PROGRAM = """
    import json, sys, time
    from ether import ether, ether_get, ether_pub

    class Probe:
        @ether_pub(topic="v", save=True)
        def measure(self, n: int):
            return {"n": n}

        @ether_get
        def take(self, n: int):
            self.measure(n)

    if __name__ == "__main__":
        way, for_s, options = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
        if way == "instance":
            options["instances"] = {"probe": {"class_path": Probe}}
        if way == "all":
            options["record"] = "all"
        ether.tap(options)
        print("session", ether.session_info()["session"], flush=True)
        n, begin, waited = 0, None, None
        while begin is None or time.monotonic() < begin + for_s:
            if way == "record":
                waited = ether.record({"n": n}, "v")
            elif way == "instance":
                ether.get("probe", "take", {"n": n})
            else:
                waited = ether.pub({"n": n}, topic="v", save=way == "save")
            begin = begin or time.monotonic()
            print("given", n, time.monotonic(), flush=True)
            if waited is not None and waited.done:
                print("done", n, flush=True)
            n += 1
            time.sleep(0.02)
        print("over", flush=True)
        if sys.argv[4] == "killed":
            sys.stdin.read()
            time.sleep(60)
        ether.shutdown()
"""


@dataclass
class Case:
    """A program, and what became of it."""

    way: str
    named: bool
    killed: bool
    for_s: float
    session: str = ""
    must: frozenset[int] = frozenset()
    """What has to be in its ledger."""
    may: frozenset[int] = frozenset()
    said: str = ""
    code: int | None = None


def cases(seed: int, name: str) -> list[Case]:
    """All combinations in turns, each for a time that is drawn."""
    chance = random.Random(seed)
    found = [
        Case(way, named, killed, chance.uniform(0.0, LONGEST_S), f"{name}-{way}" if named else "")
        for way in ("record", "save", "all", "instance")
        for killed in (True, False)
        for named in (True, False)
    ]
    chance.shuffle(found)
    chosen = [found[at % len(found)] for at in range(COUNT)]
    return [Case(it.way, it.named, it.killed, chance.uniform(0.0, LONGEST_S), f"{it.session}-{at}" if it.named else "")
            for at, it in enumerate(chosen)]  # fmt: skip


def carried_out(case: Case, folder: Path, engine: str) -> None:
    """Run the program to its end."""
    options: dict[str, object] = {"broker": {"engine": engine}}
    if case.named:
        options["session"] = case.session
    how = "killed" if case.killed else "in order"
    with running(folder, "ends.py", case.way, str(case.for_s), json.dumps(options), how) as program:
        program.wait_for("over")
        killed = monotonic()
        if case.killed:
            program.kill()
        case.code = program.finish().code
        assert soon(lambda: not program.descendants(), 10)
        lines = [line.split() for line in program.lines["out"]]
        case.said = program.said()
    case.session = next(line[1] for line in lines if line[0] == "session")
    given = {int(line[1]): float(line[2]) for line in lines if line[0] == "given"}
    done = {int(line[1]) for line in lines if line[0] == "done"}
    safe = {n for n, at in given.items() if not case.killed or at <= killed - LATE_S}
    case.must, case.may = frozenset(safe | done), frozenset(given)


def kept(session: str) -> list[int]:
    """The values in a session's ledger."""
    with LedgerReader.open(find_ledger(session, os.environ)) as reader:
        return sorted(record.value["n"] for record in reader.records(RecordFilter(topic="v")))  # type: ignore[index]


def test_an_end_waits_for_the_supervisor_that_is_just_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first saved value has asked for a recorder, whose supervisor begins in the moment of the end."""
    begins, goes_on = threading.Event(), threading.Event()
    start = HeartbeatListener.start

    def late(self: HeartbeatListener) -> None:
        begins.set()
        assert goes_on.wait(patience(10))
        start(self)

    monkeypatch.setattr(HeartbeatListener, "start", late)
    own = Ether()
    own.tap({"session": "just-starting", "broker": {"engine": "amqtt"}})
    own.record({"n": 1}, "v")
    assert begins.wait(patience(10))
    timer = threading.Timer(0.2, goes_on.set)
    timer.start()
    own.shutdown()
    timer.join()
    assert kept("just-starting") == [1]


@pytest.mark.timeout(900 if LONG else 120)
def test_nothing_is_lost_at_the_end_of_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over both engines in turns."""
    write(tmp_path, "ends.py", PROGRAM)
    all_cases = cases(17, "ends")
    usable = engines if mosquitto_missing is None else ["amqtt"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(carried_out, all_cases, repeat(tmp_path), cycle(usable)))
    for case in all_cases:
        where = [source.path for source in sources_of(case.session) if source.count]
        if not case.killed:  # it has brought everything home, or says where it lies
            assert case.code == 0 or all(path in case.said for path in where), case.said
            assert case.code != 0 or not where, case.said
    sessions = [case.session for case in all_cases]
    rescue(sessions)
    assert not set(sessions) & waiting_sessions().keys()
    found = {case.session: kept(case.session) if case.may else [] for case in all_cases}
    for case in all_cases:
        values = found[case.session]
        assert len(values) == len(set(values)), "each once"
        assert case.must <= set(values) <= case.may, (case, sorted(case.must - set(values)))
    capsys.readouterr()
    assert rescue(sessions) == 0
    assert "nothing waits" in capsys.readouterr().out
    assert {session: kept(session) for session in found} == found, "twice is once"
