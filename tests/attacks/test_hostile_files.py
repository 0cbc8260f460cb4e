"""Files, lines and texts from elsewhere: nothing in them is run, and none takes longer than its length allows."""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import subprocess
import time
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from engine_params import EMBEDDED
from patience import patience
from running_brokers import running_broker

from broker.failures import SettingsRefused
from broker.settings import check
from ether.cli.arguments import shown_value
from ether.cli.output import print_json, print_line, print_table, remark
from ether.errors import LedgerError, QueryMistake
from ether.ledger.reader import LedgerReader
from ether.ledger.verify import verify
from ether.ledger.writer import LedgerWriter
from ether.logs.lines import LogLine, read_lines
from ether.protocol.presence import Announcement
from ether.provenance.git_state import GitState, difference, git_state
from ether.reading.columns import Form
from ether.reading.filter_rules import predicate_of
from ether.reading.tables.csv import would_run, write_csv
from ether.wire.entries import Batch, Entry


@pytest.mark.attack("F14", "a hostile project folder", "`.git/config` with `filter.x.clean`, also in a submodule")
def test_a_folders_own_filters_do_not_run(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a",
                       "GIT_COMMITTER_EMAIL": "a"}  # fmt: skip
        subprocess.run(["git", *words], cwd=tmp_path, check=True, env=environment, capture_output=True)

    git("init", "-q")
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / ".gitattributes").write_text("*.py filter=Evil.x\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    ran = tmp_path / "ran"
    for key in ("clean", "smudge", "process"):
        git("config", f"filter.Evil.x.{key}", f"touch {ran}; cat")
    git("config", "filter.Evil.x.required", "true")
    (tmp_path / "a.py").write_text("a = 2\n")
    state = git_state(str(tmp_path))
    assert isinstance(state, GitState)
    assert state.changed == ("a.py",)
    assert b"+a = 2" in difference(state).content
    assert not ran.exists()


@pytest.mark.attack(
    "F3", "formulas in exported CSV", "`=HYPERLINK(…)`, `@SUM(1)`, `-2+3`, `+cmd`, in cells and headings"
)
def test_no_cell_is_run_by_a_spreadsheet() -> None:
    hostile = ["=HYPERLINK(1)", "@SUM(1)", "-2+3", "+cmd|' /C calc'!A0", "\t=1", "\r=1", "＝1", "|calc", "'=1", " =1"]
    file = io.StringIO(newline="")
    write_csv(file, {"=col": Form("text"), "n": Form("float")}, [{"=col": each, "n": -1.5} for each in hostile])
    heading, *rows = file.getvalue().split("\r\n")[:1] + [f"'{each}" for each in hostile]
    assert heading == "'=col,n"
    for each in hostile:
        assert f"'{each}" in file.getvalue()
        assert would_run(each)
    assert file.getvalue().count(",-1.5") == len(rows), "a number stays one"
    assert not any(map(would_run, ["", "'", "it's", "a=1", "5", "O'Neil"]))


@pytest.mark.attack("F17", "`--where` that takes for ever", "a million blanks, operators, words")
@pytest.mark.parametrize("text", [" " * 1_000_000 + "x", "a" * 1_000_000, " in" * 300_000, "x" + "\t" * 1_000_000])
def test_a_condition_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()
    try:
        predicate_of(text)
    except QueryMistake:
        pass
    assert time.process_time() - began < 1.0  # 400 blanks took 0.4 s, 2,000 took 102 s


HEAD = "2025-01-16 11:28:42.765 - "


@pytest.mark.attack("F18", "log lines that take for ever", "a damaged line of 1 MB, times that are none")
@pytest.mark.parametrize(
    "line",
    [
        HEAD + "a:1 - " * 170_000,
        HEAD + "a:1 - b - [" + "x" * 1_000_000,
        HEAD + "cam:1 - INFO - " + "\t[a" * 300_000,
        HEAD + "x" * 1_000_000,
        HEAD + " - [a] " * 140_000,
        "2025-13-41 99:99:99.999 - cam:1 - INFO - no time",
    ],
)
def test_a_damaged_log_line_is_read_in_linear_time(line: str) -> None:
    began = time.process_time()
    good = f"{HEAD}cam:5 - INFO - [lens] focused\t[019470a2-7c1d]\n    more"
    found = list(read_lines([f"{line}\n", *good.splitlines(keepends=True)]))
    assert time.process_time() - began < 1.0  # 7 kB took more than 20 s
    assert isinstance(found[-1], LogLine)
    assert (found[-1].message, found[-1].logger, found[-1].message_id) == ("focused\nmore", "lens", "019470a2-7c1d")


@pytest.mark.attack("M19", "an announcement whose state is no text", 'retained `state/x` with `{"state": []}`')
@pytest.mark.parametrize("state", [[], {}, 5, None, ["ready"], True])
def test_an_announcement_without_a_state_is_none(state: object) -> None:
    assert Announcement.from_value({"name": "x", "state": state, "birth": "b"}) is None


# -- ledgers

ENDLESS = (
    "CREATE VIEW entries AS WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n)"
    " SELECT k AS row, '' AS outbox FROM n"
)
HARMS = {
    "a view that never ends": f"DROP VIEW entries; {ENDLESS};",
    "a view in a table's place": "ALTER TABLE records RENAME TO r2; CREATE VIEW records AS SELECT * FROM r2;",
    "a view under a name that volumes may have": "CREATE VIEW Deleted AS SELECT 1;",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END;",
    "no time of its making": "UPDATE meta SET value = 'x' WHERE key = 'created';",
    "a blob as its session": "UPDATE meta SET value = x'ff00ff' WHERE key = 'session';",
    "a checksum that is a text": "UPDATE records SET checksum = 'abc';",
    "a link that is a text": "UPDATE records SET link = 'abc';",
    "parents that are a blob": "UPDATE records SET parents = x'00ff';",
}


@pytest.mark.attack(
    "F8", "ledgers of a stranger", "a view that never ends, a trigger, `meta` and columns of other types"
)
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_hostile_ledger_is_named_and_not_run(harm: str, tmp_path: Path) -> None:
    entries = [
        Entry(n, "data", "t", str(uuid.UUID(int=n)), n, 1.0, (), "", "application/json", b"{}") for n in (1, 2, 3)
    ]
    writer = LedgerWriter.open(tmp_path / "ledger", "bench")
    writer.append([Batch("0" * 16, "cam", 3, tuple(entries))], received=1.0)
    writer.close()
    for path in tmp_path.glob("ledger/seal*"):
        path.unlink()  # as somebody who edits a ledger would
    with closing(sqlite3.connect(tmp_path / "ledger" / "ledger.db")) as database:
        database.executescript(harm)
    began = time.process_time()
    with pytest.raises(LedgerError), LedgerReader.open(tmp_path / "ledger") as reader:
        list(reader.records())
    try:
        assert not verify(tmp_path / "ledger").ok
    except LedgerError:
        pass
    assert time.process_time() - began < 5.0  # it hung for more than 15 s


# -- terminals


@pytest.mark.attack(
    "T2", "escape sequences through announcements", "`ESC[2J`, C1 and direction marks in class, error, topic"
)
@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x1b]0;t\x07", "\x9b2J", "\u202edir", "\u2066x", "\x7f", "\x08"])
def test_nothing_that_is_printed_controls_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_line(f"cam: {hostile}")
    print_table([{"a": f"{hostile}\n{hostile}"}], {"a": "A"}, nothing=hostile)
    print_table([], {"a": "A"}, nothing=hostile)
    print_json({"topic": hostile, "value": [hostile]}, lines=True)
    print_line(shown_value({"topic": hostile}))
    remark(hostile)
    said = "".join(capsys.readouterr())
    assert all(char.isprintable() or char == "\n" for char in said)


def test_what_is_printed_as_json_is_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": "\x1b\x9b\u202e\x7f\u2028é😀\ud83d"}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value
    print_line("5\u00a0°C, 1\u2009000")
    assert capsys.readouterr().out == "5\u00a0°C, 1\u2009000\n"


# -- listeners


@pytest.mark.attack("N9", "WebSockets beside the address that was given", "`listen: 10.99.0.1, websocket_port: 9001`")
@pytest.mark.parametrize("engine", EMBEDDED)
def test_websockets_listen_where_they_were_told_to(engine: str) -> None:
    if engine == "mosquitto":  # which opens them everywhere, so that the other engine has to
        with pytest.raises(SettingsRefused, match="every address"):
            check(
                {"username": "a", "password": "b", "engine": engine, "lan_host": "127.0.0.1", "websocket_port": 0}, "s"
            )
        engine = "auto"
    with running_broker(engine, lan_host="127.0.0.1", websocket_port=0) as broker:
        assert broker.websocket_port is not None
        socket.create_connection(("127.0.0.1", broker.websocket_port), patience(5)).close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", broker.websocket_port), patience(5))
