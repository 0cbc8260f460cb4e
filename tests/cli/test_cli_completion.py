"""What the shell offers where no session runs: from ledgers and files, quickly, and never an error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands_here import offers
from ledgers import BEGAN, Source, make_ledger
from patience import patience

from ether.cli import completion
from ether.ledger.places import default_folder
from ether.session.discovery.local_sessions import SessionRecord, write_record


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ledgers of two sessions, `bench` and `beam`; no session runs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("ETHER_MDNS", "0")
    for session, topic in (("bench", "temperature"), ("beam", "current")):
        source = Source("probe")
        source.add(topic, 20.5, BEGAN)
        make_ledger(default_folder(session, os.environ), [source], session)
    return tmp_path


def test_ledgers_topics_and_sources_of_what_was_recorded(recorded: Path) -> None:
    assert offers(recorded, "ether data be") == ["beam", "bench"]
    assert offers(recorded, "ether verify ben") == ["bench"]
    assert offers(recorded, "ether why -s bea") == ["beam"]
    assert offers(recorded, "ether data bench -T t") == ["temperature"]
    assert offers(recorded, "ether data beam -T t") == []
    assert offers(recorded, "ether data beam -i p") == ["probe"]


@pytest.mark.parametrize(
    "line",
    [
        "ether call x",
        "ether topic echo x",
        "ether data nowhere -T t",
        "ether report x",
        "ether instance missing.yaml x",
        "ether nosuch x",
        "ether call 'x",
        "ether ps -b mqtt://nowhere.invalid -s x",
    ],
)
def test_what_cannot_be_looked_up_prints_nothing(recorded: Path, line: str) -> None:
    assert offers(recorded, line) == []


def test_a_line_that_cannot_be_read_prints_nothing(recorded: Path) -> None:
    environment = {**os.environ, "_ETHER_COMPLETE": "complete_bash", "COMP_WORDS": "ether call x", "COMP_CWORD": "x"}
    command = [sys.executable, "-m", "ether.cli.main"]
    done = subprocess.run(command, env=environment, cwd=recorded, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_broker_that_does_not_answer_is_not_waited_for(recorded: Path) -> None:
    """It takes connections, as a stopped one does, and says nothing for a minute."""
    folder = recorded / "ether-hung"
    folder.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_record(folder, SessionRecord.of_this_process("hung", f"mqtt://127.0.0.1:{silent.getsockname()[1]}"))
        began = time.monotonic()
        assert offers(recorded, "ether call c") == []
        assert time.monotonic() - began < patience(2.4)
    for thread in threading.enumerate():
        if thread.name == "ether-offers":
            thread.join(patience(20))
    assert completion.LOOK_S < 1
