"""Totals come from the sources, not from what a recorder happened to hear: B3 of the users' faults. While a recorder's
disk takes nothing, `proof` and `ether status` count what was given, and say what waits, where and why."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from engine_params import EMBEDDED
from patience import patience
from programs import running, write
from ready_pids import pid_of
from running_brokers import soon

from ether import Ether
from ether.ledger.reader import LedgerReader, RecordFilter
from ether.recording.completeness_rules import SourceFacts, prove
from ether.recording.sources import Source, facts_for, sources_of, waiting_sessions
from ether.wire.entries import OutboxFacts

GIVEN = 3000
SIZE = 1000


@pytest.fixture
def ether() -> Iterator[Ether]:
    own = Ether()
    yield own
    own.shutdown()


def command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "ether.cli.main", *arguments],
        capture_output=True, text=True, check=False, timeout=patience(60),
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here (needs root): {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def on_disk(folder: Path) -> int:
    with LedgerReader.open(folder) as reader:
        return sum(1 for _ in reader.records(RecordFilter(topic="v")))


def test_what_a_recorder_says_of_itself_is_the_reason_before_its_source_has_heard_of_it(tmp_path: Path) -> None:
    """Half a second lies between the recorder's page and the next one of a source, on a busy machine more."""
    given: dict[str, Any] = {"outbox": "o", "source": "main", "count": 5, "path": "p", "alive": True, "given": 9}
    unaware, aware = Source(**given), Source(**given, why="it has a reason of its own")
    assert [facts_for([it], tmp_path, ["o"], "full")[0].why for it in (unaware, aware)] == ["full", aware.why]
    assert facts_for([unaware], tmp_path, ["o"])[0].why == ""


@pytest.mark.parametrize("how", ["disk", "limit"])
@pytest.mark.parametrize("engine", EMBEDDED)
def test_b3_with_a_full_disk_the_totals_are_what_was_given(ether: Ether, tmp_path: Path, engine: str, how: str) -> None:
    """`limit`: where no disk can be mounted, a limit of the recorder's files."""
    with small_disk(tmp_path / "disk") if how == "disk" else nullcontext(tmp_path) as disk:
        folder, session = disk / "led", f"full-{engine}-{how}"
        record = {"topics": "all", "folder": str(folder), "logs": False}
        ether.tap({"session": session, "broker": {"engine": engine}, "record": record})
        ether.record(0, "first").wait(timeout_s=patience(20))
        if how == "limit":
            resource.prlimit(pid_of(ether, "recorder"), resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
        for n in range(GIVEN):
            ether.record({"n": n, "pad": "x" * SIZE}, "v")
            if n == GIVEN // 10:
                assert ether.flush(patience(10)) == 0  # so that some are there
        assert soon(lambda: "cannot record" in ether.get("recorder", "proof")["problem"], 20)

        def told() -> dict[str, Any]:
            code, out = command("status", str(folder), "--json")
            return {"code": code, **json.loads(out)}

        assert soon(lambda: told()["total"] >= GIVEN, 10)
        looks: list[tuple[dict[str, Any], dict[str, Any], tuple[int, str], str, int]] = []

        def at_rest() -> bool:
            """The recorder goes on trying, and finds room for some more behind a limit, and is in no trouble for that
            moment: no look is at one moment."""
            before = on_disk(folder)
            data = ("data", str(folder), "--topic", "v", "-n", "1")
            looks.append(
                (told(), ether.get("recorder", "proof"), command("status", str(folder)), command(*data)[1], before)
            )
            status, proof, *_ = looks[-1]
            missing = {it["total"] - it["durable"] for it in (status, proof)}
            return missing == {GIVEN - before, GIVEN - on_disk(folder)} and all(it["problem"] for it in (status, proof))

        assert soon(at_rest, 30), looks[-1]
        status, proof, shown, data, kept = looks[-1]
        assert 0 < kept < GIVEN
        waiting = GIVEN - kept
        for said in (status, proof):
            assert said["total"] - said["durable"] == waiting
            [span] = [it for it in said["waiting"] if it["source"] == "main"]
            assert (span["count"], span["last"] - span["first"] + 1) == (waiting, waiting)
            assert "recorder cannot record" in span["why"]
            assert Path(span["path"]).exists()
            assert "recorder cannot record" in said["problem"]
            assert list(said["gaps"]) == []
        assert status["code"] == 1
        assert f"{waiting:,} waiting" in proof["summary"]
        code, out = shown
        assert code == 1
        assert f"{status['durable']:,} of {status['total']:,} durable, {waiting:,} waiting, 0 gaps" in out
        assert f"waiting {waiting:,} entries of 'main'" in out
        if how == "disk":
            assert "is full" in out
        assert f"{waiting:,} entries of 'main'" in data
        os.kill(pid_of(ether, "recorder"), signal.SIGKILL)  # the session goes on with a recorder that can write
        if how == "disk":
            subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        assert ether.flush(patience(30)) == 0
        # What the new recorder has said of the full disk, if it met that, stands until it says something else.
        assert soon(lambda: command("status", str(folder))[0] == 0, 10)
        code, out = command("status", str(folder))
        assert (code, on_disk(folder)) == (0, GIVEN)
        assert "waiting" not in out
        ether.shutdown()


UNNAMED = """
    import sys
    from ether import ether

    ether.tap({"broker": {"engine": "amqtt"}})
    print(ether.session_info()["session"], flush=True)
    for n in range(20):
        ether.record(n, "v")
    ether.flush(0.5)
    print("given", flush=True)
    sys.stdin.read()
    import threading
    threading.Event().wait()
"""


def test_outboxes_of_living_and_dead_sessions_without_a_name_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their recorder cannot begin: a file stands where the folder of all ledgers should be."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "data").write_text("in the way")
    write(tmp_path, "unnamed.py", UNNAMED)
    with running(tmp_path, "unnamed.py") as program:
        program.wait_for("given")
        session = program.lines["out"][0].strip()
        assert soon(lambda: any(it.alive and it.count >= 20 for it in sources_of(session)), 10)
        assert session in waiting_sessions()
        assert soon(lambda: "nobody records" in command("status", session)[1], 10)
        code, out = command("status", session)
        assert code == 1
        assert f"session {session}: " in out
        assert f"entries of 'main' (pid {program.process.pid}) wait: nobody records in this session" in out
        program.kill()
        program.finish()
    code, out = command("status", session)
    assert code == 1
    assert f"entries of ended programs wait on this machine; ether rescue {session}" in out
    code, out = command("data", session)
    assert f"ether rescue {session}" in out
    (tmp_path / "data").unlink()
    code, out = command("rescue", session)
    assert code == 0, out
    assert session not in waiting_sessions()


# -- the rules


def outbox(highest: int, head: int = 0) -> OutboxFacts:
    return OutboxFacts("ab" * 8, "camera", highest, head, (), 100.0)


def test_what_waits_is_told_apart_from_what_is_missing() -> None:
    proof = prove([outbox(5, 9)], 0, [SourceFacts("ab" * 8, "camera", 12, 3, 5, "the disk is full", 50.0, "/o")])
    assert (proof.durable, proof.total, proof.gaps) == (5, 12, ())
    [span] = proof.waiting
    assert (span.first, span.last, span.count, span.why) == (6, 12, 7, "the disk is full")
    assert str(proof).startswith("5 of 12 durable, 7 waiting, 0 gaps, 0 duplicates\n  waiting 7 entries of 'camera'")
    assert not proof.in_order


def test_what_is_on_its_way_is_in_order_and_not_complete() -> None:
    proof = prove([outbox(5)], 0, [SourceFacts("ab" * 8, "camera", 6, 3, 5)])
    assert (proof.in_order, proof.complete) == (True, False)


def test_what_was_acknowledged_and_is_not_here_is_missing_before_anything_is_sent() -> None:
    """A folder that was put back from a copy, as long as its source lives."""
    proof = prove([outbox(105)], 0, [SourceFacts("ab" * 8, "camera", 205, 205, 205)])
    assert [(gap.first, gap.last) for gap in proof.gaps] == [(106, 205)]
    assert "acknowledged before" in proof.gaps[0].why
    assert (proof.durable, proof.total) == (105, 205)


def test_a_source_that_the_ledger_has_never_heard_of_counts() -> None:
    proof = prove([], 0, [SourceFacts("ab" * 8, "camera", 4, why="nobody records")])
    assert (proof.durable, proof.total, proof.waiting[0].count) == (0, 4, 4)


def test_what_a_dead_source_has_not_got_any_more_is_missing() -> None:
    proof = prove([outbox(5, 9)], 0, [SourceFacts("ab" * 8, "camera", 7, 5, 5, alive=False)])
    assert [(gap.first, gap.last) for gap in proof.gaps] == [(8, 9)]
    assert [(span.first, span.last) for span in proof.waiting] == [(6, 7)]
