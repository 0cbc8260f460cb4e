"""Members with different configurations join and leave in every order, while some are killed: every acknowledged value
is in the folder that its program named. A seeded driver; 100,000 values with ETHER_LONG=1."""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from programs import Program, running, write
from running_brokers import soon

from ether.ledger.places import is_ledger, list_ledgers
from ether.ledger.reader import LedgerReader, RecordFilter

LONG = bool(os.environ.get("ETHER_LONG"))
WANTED = 100_000 if LONG else 800
"""So many values are to be acknowledged."""
LEAST_EVENTS = 60 if LONG else 7

MEMBER = """
    import json, sys, time
    from collections import deque
    from ether import ether

    session, who, first, options = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    ether.tap({"session": session, **options}, timeout_s=30)
    print("in", flush=True)
    waiting, n = deque(), first
    try:
        while True:
            try:
                waiting.append((n, ether.pub({"who": who, "n": n}, topic="v", save=True)))
                n += 1
            except Exception as error:
                print("refused", type(error).__name__, flush=True)
                time.sleep(0.1)
            time.sleep(0.002)
            said = None
            while waiting and waiting[0][1].done:
                said = waiting.popleft()[0]
            if said is not None:
                print("done", said, flush=True)
    except KeyboardInterrupt:
        pass
    ether.shutdown()
"""


@dataclass
class Member:
    """A program of a configuration, in all of its lives."""

    who: str
    record: object
    folder: Path | None
    """The ledger that it names."""
    program: Program | None = None
    acknowledged: set[int] = field(default_factory=set)
    next: int = 0
    since: int = 0
    heard: int = 0

    @property
    def runs(self) -> bool:
        return self.program is not None and self.program.process.poll() is None

    def listen(self) -> None:
        """Take in what it has said."""
        if self.program is None:
            return
        lines = self.program.lines["out"]
        for line in lines[self.heard :]:
            if line.startswith("done") and line.endswith("\n"):
                self.next = int(line.split()[1]) + 1
                self.acknowledged |= set(range(self.since, self.next))
        self.heard = len(lines)


class Driver:
    """Starts, stops and kills members, as the seed says."""

    def __init__(self, folder: Path, engine: str, seed: int, stack: ExitStack) -> None:
        self.chance, self._folder, self._stack = random.Random(seed), folder, stack
        self._options = {"broker": {"engine": engine}}
        self._session = f"members-{folder.name}"
        a, b = folder / "a", folder / "b"
        self.members = [
            Member("a", {"topics": "all", "folder": str(a)}, a), Member("b", {"topics": ["v"], "folder": str(b)}, b),
            Member("plain", None, None), Member("all", "all", None),
        ]  # fmt: skip

    @property
    def acknowledged(self) -> int:
        for member in self.members:
            member.listen()
        return sum(len(member.acknowledged) for member in self.members)

    def start(self, member: Member) -> None:
        options = {**self._options, **({} if member.record is None else {"record": member.record})}
        member.since = member.next = member.next + 1_000_000  # numbers of this life
        arguments = (self._session, member.who, str(member.since), json.dumps(options))
        member.program, member.heard = self._stack.enter_context(running(self._folder, "member.py", *arguments)), 0
        assert soon(lambda: not member.runs or "in\n" in member.program.lines["out"], 30)

    def kill(self, member: Member) -> None:
        """The program alone, or first one of the processes that it has started."""
        assert member.program is not None
        others = member.program.descendants()
        if others and self.chance.random() < 0.4:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.chance.choice(others), signal.SIGKILL)
            return
        member.program.kill()
        member.program.finish()
        member.listen()
        assert soon(lambda: not member.program.descendants(), 10)

    def stop(self, member: Member) -> None:
        """In order: Ctrl-C ends a program as `shutdown()` does."""
        assert member.program is not None
        member.program.interrupt()
        member.program.finish()
        member.listen()

    def event(self) -> None:
        member = self.chance.choice(self.members)
        if not member.runs:
            self.start(member)
        elif self.chance.random() < 0.6:
            self.kill(member)
        else:
            self.stop(member)


def kept(folder: Path) -> set[tuple[str, int]]:
    with LedgerReader.open(folder) as reader:
        return {(it.value["who"], it.value["n"]) for it in reader.records(RecordFilter(topic="v"))}  # type: ignore[index]


@pytest.mark.timeout(1200 if LONG else 120)
@pytest.mark.parametrize("engine", EMBEDDED if LONG else EMBEDDED[:1])
def test_every_acknowledged_value_is_in_the_folder_that_its_program_named(tmp_path: Path, engine: str) -> None:
    write(tmp_path, "member.py", MEMBER)
    with ExitStack() as stack:
        driver = Driver(tmp_path, engine, 5, stack)
        for member in driver.chance.sample(driver.members, len(driver.members)):
            driver.start(member)
        events = 0
        while events < LEAST_EVENTS or driver.acknowledged < WANTED:
            before = driver.acknowledged
            running_now = [member for member in driver.members if member.runs]
            if running_now:
                soon(lambda before=before: driver.acknowledged > before + 40, 2)  # some values between two events
            driver.event()
            events += 1
            assert events < 50 * LEAST_EVENTS, "nothing comes forward"
        for member in driver.members:
            if member.runs:
                driver.stop(member)
        assert driver.acknowledged >= WANTED
    everywhere: set[tuple[str, int]] = set()
    for folder in {place.folder for place in list_ledgers(os.environ)} | {tmp_path / "a", tmp_path / "b"}:
        everywhere |= kept(folder) if is_ledger(folder) else set()
    for member in driver.members:
        place = everywhere if member.folder is None else kept(member.folder)
        lost = {(member.who, n) for n in member.acknowledged} - place
        assert not lost, f"{len(lost)} of {len(member.acknowledged)} of {member.who}: {sorted(lost)[:5]} …"
