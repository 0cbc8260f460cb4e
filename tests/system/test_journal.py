"""Lines for journald: levels in front, times left to the journal, tracebacks with the level of their record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ether.system.journald import JournalLines, write_for_journal

ROOT = Path(__file__).resolve().parents[2]
STAMP = "2025-01-16 11:28:42.765"

PROGRAM = """
import os, sys
from ether.log import get_ether_logger, install_console
from ether.system.journald import write_for_journal
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
assert write_for_journal(os.environ) and write_for_journal(os.environ)
install_console("cam")
logger = get_ether_logger("Ether")
logger.info("light")
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("dark")
print("printed")
sys.stderr.write("no end")
"""


@pytest.mark.parametrize(
    ("line", "turned"),
    [
        (f"{STAMP} - cam:51475 - WARNING - no light", "<4>cam:51475: no light"),
        (f"{STAMP} - cam:51475 - DEBUG - a - b - ERROR - c", "<7>cam:51475: a - b - ERROR - c"),
        (f"{STAMP} - a - b:7 - CRITICAL - ", "<2>a - b:7: "),
        (f"{STAMP} - cam:51475 - LOUD - no light", f"<5>{STAMP} - cam:51475 - LOUD - no light"),
        ("42", "<5>42"),
        ("", "<5>"),
    ],
)
def test_a_line(line: str, turned: str) -> None:
    assert JournalLines(5).converted(line) == turned


def test_what_follows_a_record_has_its_level() -> None:
    lines = JournalLines(5)
    said = [f"{STAMP} - cam:1 - ERROR - it failed", "Traceback", "  File", f"{STAMP} - cam:1 - INFO - on", "and on"]
    assert [lines.converted(line)[:3] for line in said] == ["<3>", "<3>", "<3>", "<6>", "<6>"]


def test_streams_that_lead_elsewhere_stay_as_they_are() -> None:
    before = sys.stdout, sys.stderr
    assert not write_for_journal({})
    assert not write_for_journal({"JOURNAL_STREAM": "1:1"})
    assert (sys.stdout, sys.stderr) == before


def test_a_program_whose_output_leads_to_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal:
        subprocess.run([sys.executable, "-c", PROGRAM], stdout=journal, stderr=journal, cwd=ROOT, check=True, env={
            **os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    said = (tmp_path / "journal").read_text().splitlines()
    errors = [line for line in said if line.startswith("<3>")]
    assert [line for line in said if line.startswith("<6>cam:") and line.endswith(": light")]
    assert errors[0].endswith(": dark")
    assert errors[1] == "<3>Traceback (most recent call last):"
    assert "<3>ZeroDivisionError: division by zero" in errors
    assert "<6>printed" in said
    assert said[-1] == "<3>no end"
    assert not [line for line in said if not line.startswith("<")]
