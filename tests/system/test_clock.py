"""The clocks: the hook by which tests set the time of day. That nothing in `ether` reads it in another way is a rule of
the house (`foreign_clocks`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from patience import patience

from ether.system import clock

READS = """
import json, sys, time
from ether.system import clock
print(json.dumps([clock.wall_time is time.time, clock.wall_time() - time.time()]), flush=True)
for line in sys.stdin:
    print(json.dumps(clock.wall_time() - time.time()), flush=True)
"""


def test_without_the_hook_the_wall_clock_is_the_functions_own() -> None:
    environment = {name: value for name, value in os.environ.items() if name != clock.TEST_CLOCK}
    done = subprocess.run(
        [sys.executable, "-c", READS], env=environment, input="", capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)[0] is True, done.stderr


def test_a_test_sets_the_clock_of_a_process_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    with subprocess.Popen(
        [sys.executable, "-c", READS], env={**os.environ, clock.TEST_CLOCK: str(file)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        is_plain, off_s = json.loads(process.stdout.readline())
        assert is_plain is False
        assert abs(off_s) < 1.0  # the file is not there yet
        for wanted in (691_200.0, -691_200.0, -1.7e9, 0.0):
            file.write_text(repr(wanted))
            process.stdin.write("now\n")
            process.stdin.flush()
            assert abs(json.loads(process.stdout.readline()) - wanted) < 1.0
        process.stdin.close()
        assert process.wait(patience(10)) == 0


def test_the_uptime_goes_on_and_belongs_to_a_boot() -> None:
    before = clock.uptime()
    assert clock.uptime() >= before > 0
    assert clock.boot_id() == clock.boot_id()
