"""What was recorded while a clock was wrong: the jump is in log and record, and times are put right by it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from programs import running, write
from set_clock import DAY_S, HOUR_S, SetClock

from ether import ether
from ether.cli.data.status import status

OFF = [-HOUR_S, 2 * HOUR_S, -8 * DAY_S][: None if os.environ.get("ETHER_LONG") == "1" else 1]

PROGRAM = """
    import json, os, sys, threading
    from ether import ether

    ether.tap(json.loads(sys.argv[1]))
    print("ready", flush=True)
    n, pause = 0, threading.Event()
    while not os.path.exists("end"):
        n += 1
        ether.record({"n": n}, "dose")
        if n % 20 == 0:
            print(f"at {n}", flush=True)
        pause.wait(0.02)
    ether.shutdown()
    print("over", flush=True)
"""


@pytest.mark.parametrize("off_s", OFF)
def test_values_of_a_clock_that_was_wrong_are_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], off_s: float
) -> None:
    """The clock is off when the session starts, and is set right after a while. Afterwards everything was made in the
    last ten minutes, in its order."""
    clock = SetClock(tmp_path, monkeypatch)
    clock.set(off_s)
    write(tmp_path, "bench.py", PROGRAM)
    write(tmp_path, "first_parts.py", (Path(__file__).parents[1] / "parts" / "first_parts.py").read_text())
    config = {"session": "set", "record": {"topics": ["image"], "folder": str(tmp_path / "ledger")},
              "instances": {"camera": {"class_path": "first_parts.Camera"}}}  # fmt: skip
    with running(tmp_path, "bench.py", json.dumps(config)) as program:
        program.wait_for("ready", 30)
        program.wait_for("at 40")
        clock.set(0.0)
        program.wait_for("the clock of ")
        program.wait_for("at 120")
        (tmp_path / "end").touch()
        program.wait_for("over", 30)
        program.finish()
    told = next(line for line in program.lines["err"] if "the clock of " in line)
    assert f"was set {'forward' if off_s < 0 else 'back'} by {abs(off_s):,.0f} s" in told
    now = time.time()
    for topic in ("dose", "image"):
        everything = list(ether.data(tmp_path / "ledger", topic))
        numbers = [record.value["n"] for record in everything]
        assert numbers == list(range(1, len(numbers) + 1))
        off = [record for record in everything if record.clock_set_s is not None]
        assert 0 < len(off) < len(everything)
        assert {round(record.clock_set_s or 0.0) for record in off} == {-off_s}
        assert everything[: len(off)] == off  # exactly those that were made before
        times = [record.corrected_time for record in everything]
        assert times == sorted(times)
        assert all(now - 120 < corrected <= now for corrected in times)
        assert list(ether.data(tmp_path / "ledger", topic, since="-10 min")) == everything
        assert list(ether.data(tmp_path / "ledger", topic, until="-10 min")) == []
    capsys.readouterr()
    assert status(str(tmp_path / "ledger")) == 0
    assert capsys.readouterr().out.count("the clock of ") == 1  # though each process has noted it
