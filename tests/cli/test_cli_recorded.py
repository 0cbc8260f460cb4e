"""Commands that look back: data, status, verify, export, play."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Bench, bench, make_lab
from command_line import ether as ether_process
from commands_here import Done
from ledgers import BEGAN, Source, make_ledger
from optional import library
from patience import patience

from ether.cli.main import main
from ether.ledger.places import default_folder, leave_pointer
from ether.ledger.writer import LedgerWriter
from ether.recording.outbox_file import OutboxFile
from ether.system.folders import outbox_folder
from ether.wire.entries import Entry, pack_entries

Ether = Callable[..., Done]


@pytest.fixture
def ether(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ether:
    """A command, run in this process, which takes a tenth of the time. (Those that join a session have their own.)"""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def folder() -> Path:
    """The ledger of the session `past`, found by its name."""
    probe, voice = Source("probe"), Source("voice")
    for number in range(60):
        probe.add(
            "room", {"celsius": 20.0 + number, "on": True}, BEGAN + number, more={"run": "r1"} if number < 5 else {}
        )
    voice.add("said", {"text": "from the past"}, BEGAN + 0.5)
    voice.add("exposure", 0.1, BEGAN + 1, kind="record")
    return make_ledger(default_folder("past", os.environ), [probe, voice], session="past")


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger elsewhere, found by a pointer, of which two entries never arrived."""
    source = Source("probe")
    for number in range(4):
        source.add("room", number)
    source.entries[1] = Entry(
        2, "gap", "", "", 0, BEGAN, (), "", None, b"",
        {"first": 2, "last": 3, "why": "no room", "topics": {"room": [2, 3, 2]}},
    )  # fmt: skip
    del source.entries[2]
    place = make_ledger(tmp_path_factory.mktemp("disk") / "ledger", [source], session="gappy")
    leave_pointer("gappy", place, os.environ)
    return place


@pytest.fixture(scope="module")
def trialled() -> Path:
    """The ledger of the session `tried`: a named run, whose second trial was cut short and repeated, then a third one
    that is not done."""
    main_, probe = Source("main"), Source("probe")
    main_.add("dose/1", {"event": "begin", "metadata": {}}, BEGAN, kind="run")
    plan = {"event": "plan", "first": 1, "order": [1, 2, 3], "conditions": [0.1, 0.2, 0.3]}
    main_.add("dose/1/trials", plan, BEGAN, kind="run")
    steps = [(1, 1, "done"), (2, 1, "disturbed"), (2, 2, "done"), (3, 1, "left")]
    for number, (trial, attempt, status) in enumerate(steps):
        at = BEGAN + 10 * number
        tag = {"run": "dose/1", "trial": trial, "attempt": attempt}
        main_.add("dose/1/trials", {"event": "trial", **tag}, at, kind="run")
        probe.add("response", {"dose": trial / 10, "attempt": attempt}, at + 1, more=tag)
        main_.add("dose/1/trials", {"event": "trial-end", **tag, "status": status}, at + 5, kind="run")
    return make_ledger(default_folder("tried", os.environ), [main_, probe], session="tried")


@pytest.mark.usefixtures("trialled")
def test_data_of_trials(ether: Ether) -> None:
    def found(*words: str) -> list[tuple[int, int]]:
        lines = ether("data", "tried", "--topic", "response", "--json", *words).lines
        assert all(line["value"] == {"dose": line["trial"] / 10, "attempt": line["attempt"]} for line in lines)
        return [(line["trial"], line["attempt"]) for line in lines]

    assert found() == found("--run", "dose") == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert found("--run", "dose", "--trial", "all") == [(1, 1), (2, 2)]
    assert found("--run", "dose/1", "--trial", "2") == [(2, 2)]
    assert found("--run", "dose", "--trial", "2", "--trial", "1") == [(1, 1), (2, 2)]
    rows = ether("data", "tried", "--topic", "response").out.splitlines()
    assert rows[0].split() == ["TIME", "TOPIC", "FROM", "TRIAL", "VALUE"]
    assert "2 (attempt 2)  {" in rows[3]
    ether("data", "tried", "--run", "dose", "--trial", "3").assert_mistake(2, "trial 3", "done are 1, 2")
    ether("data", "tried", "--trial", "1").assert_mistake(2, "run=")
    ether("data", "tried", "--run", "dose", "--trial", "second").assert_mistake(2, "--trial second", "all")


@pytest.mark.usefixtures("trialled")
def test_trials_are_exported_and_the_file_says_which(ether: Ether, tmp_path: Path) -> None:
    pq = library("pyarrow.parquet")
    done = ether("export", "tried", "--run", "dose", "--trial", "2", "--to", "two.parquet")
    assert done.code == 0, done
    table = pq.read_table(tmp_path / "two.parquet")
    assert set(zip(table["trial"].to_pylist(), table["attempt"].to_pylist(), strict=True)) == {(2, 2)}
    assert json.loads(table.schema.metadata[b"ether"])["query"] == {"run": "dose", "trial": "2"}


@pytest.mark.usefixtures("folder")
def test_data_as_a_table(ether: Ether) -> None:
    done = ether("data", "past")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["TIME", "TOPIC", "FROM", "VALUE"]
    assert len(rows) == 50
    assert rows[-1].endswith('room   probe  {"celsius": 79.0, "on": true}')
    assert "the last 50 of 62 records" in done.err
    assert len(ether("data", "past", "-n", "3").out.splitlines()) == 4
    assert "nothing was recorded that fits" in ether("data", "past", "--where", "celsius > 100").err


@pytest.mark.usefixtures("folder")
def test_data_as_json(ether: Ether, folder: Path) -> None:
    lines = ether("data", "past", "--json").lines
    assert len(lines) == 62
    assert lines[0] == {
        "time": BEGAN, "topic": "room", "source": "probe", "id": lines[0]["id"], "run": "r1", "kind": "data", "row": 1,
        "parents": [], "value": {"celsius": 20.0, "on": True},
    }  # fmt: skip

    def topics(*words: str) -> list[str]:
        return [line["topic"] for line in ether("data", *words, "--json").lines]

    assert topics(str(folder), "--topic", "said") == ["said"]
    assert topics("past", "--run", "r1") == ["room"] * 5
    assert topics("past", "-i", "voice") == ["said", "exposure"]
    assert topics("past", "-w", "celsius >= 21", "-w", "celsius < 23") == ["room"] * 2
    assert topics("past", "--until", "2023-11-14T22:13:20.6Z") == ["room", "said"]
    assert topics("past", "--since", "1h") == []
    assert topics("past", "--since", "-10 min") == []
    assert topics("past", "--kind", "record") == ["exposure"]
    assert topics("past", "-n", "1") == ["room"]


def test_the_ledgers_and_their_topics(ether: Ether, folder: Path, gappy: Path) -> None:
    listed = {row["session"]: row["folder"] for row in ether("data", "--list", "--json").json}
    assert {name: listed.get(name) for name in ("past", "gappy")} == {"past": str(folder), "gappy": str(gappy)}
    assert "gappy" in ether("data", "-l").out
    rows = {row["topic"]: row for row in ether("data", "past", "--topics", "--json").json}
    assert (rows["room"]["count"], rows["room"]["last"], rows["exposure"]["kind"]) == (60, BEGAN + 59, "record")
    assert "room      data    60" in ether("data", "past", "--topics").out


def test_status(ether: Ether, folder: Path, gappy: Path) -> None:
    done = ether("status", "past")
    assert done.code == 0
    assert done.out.splitlines()[:2] == [f"session past, {folder}", "62 of 62 durable, 0 gaps, 0 duplicates, unsigned"]
    assert "room      data    60" in done.out
    assert "\nsize: " in done.out
    disk = ether("status", "past", "--json").json["disk"]
    assert disk["bytes"] >= (folder / "ledger.db").stat().st_size
    assert disk["span_s"] == 59.0
    missing = ether("status", "gappy")
    assert missing.code == 1
    assert "2 of 4 durable, 1 gaps, 0 duplicates, unsigned\n  missing 'room' from 'probe': 2 to 3 (2)" in missing.out
    told = ether("status", str(gappy), "--json").json
    assert (told["complete"], told["durable"], told["total"], told["gaps"][0]["why"]) == (False, 2, 4, "no room")
    assert told["topics"][0]["topic"] == "room"


def test_verify(ether: Ether, tmp_path: Path, folder: Path) -> None:
    done = ether("verify", "past")
    assert (done.code, done.out) == (0, f"{folder}: whole, 62 records, sealed, unsigned\n")
    assert ether("verify", "past", "--json").json["ok"] is True
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((copy / "ledger.db").read_bytes())
    at = damaged.index(b"from the past")
    damaged[at] ^= 1
    (copy / "ledger.db").write_bytes(damaged)
    found = ether("verify", str(copy), "--json")
    assert (found.code, found.json["ok"]) == (1, False)
    assert any("ledger.db" in finding["where"] for finding in found.json["findings"])
    assert "DAMAGED" in ether("verify", str(copy)).out


@pytest.mark.usefixtures("folder")
def test_export(ether: Ether, tmp_path: Path) -> None:
    pq = library("pyarrow.parquet")
    library("h5py")
    done = ether("export", "past", "--topic", "room", "--to", "room.parquet", "--where", "celsius > 70")
    assert done.out == "9 records with 7 columns are in room.parquet\n"
    table = pq.read_table(tmp_path / "room.parquet")
    assert table["celsius"].to_pylist() == [71.0 + number for number in range(9)]
    assert json.loads(table.schema.metadata[b"ether"])["query"] == {"topic": "room", "where": "['celsius > 70']"}
    told = ether("export", "past", "--to", "all.csv", "--json").json
    assert (told["records"], told["form"], told["beside"]) == (62, "csv", ["all.csv.json"])
    assert ether("export", "past", "--to", "all", "--format", "hdf5", "--json").json["form"] == "hdf5"


@pytest.mark.usefixtures("folder")
def test_mistakes(ether: Ether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ether("data", "pats").assert_mistake(4, "'pats'", "Did you mean 'past'?")
    ether("data", "past", "--where", "celsius").assert_mistake(2, "celsius > 21")
    ether("data", "past", "--since", "soon").assert_mistake(2, "how long ago")
    ether("data", "past", "--kind", "dta").assert_mistake(2, "did you mean 'data'?")
    ether("data", "past", "--topic", "a/#/b").assert_mistake(3, "a/#/b")
    ether("export", "past").assert_mistake(2, "--to")
    ether("export", "past", "--to", "x.xlsx").assert_mistake(1, ".parquet")
    ether("export", "past", "--to", "x.csv", "--format", "excel").assert_mistake(2, "parquet, csv, hdf5")
    ether("export", "past", "--to", "x.csv", "--topic", "r/+").assert_mistake(1, "topic=r/+")
    ether("export", "past", "--to", "no/where.csv").assert_mistake(1, "no/where.csv")
    ether("play", "past", "-s", "nowhere").assert_mistake(4, "nowhere")
    ether("play", "past", "--onto-devices").assert_mistake(2, "--session NAME")
    ether("play", "past", "--in", "a", "-s", "b").assert_mistake(2, "one of them")
    ether("play", "past", "--speed", "fast").assert_mistake(2, "'max'")
    assert "did you mean 'said'?" in ether_process(tmp_path, "data", "past", "--topic", "sayd").err
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ether("status").assert_mistake(4, "nothing has been recorded yet")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The session `bench`, which listens to `said`. (Replays on each engine: tests/runs/test_replay.py.)"""
    place = tmp_path_factory.mktemp("lab")
    make_lab(place, "amqtt")
    with bench(place) as made:
        yield made


@pytest.mark.usefixtures("folder")
def test_play(lab: Bench) -> None:
    done = lab.ether("play", "past", "--topic", "said", "-s", "bench")
    lab.program.wait_for("heard from the past")
    assert done.out.startswith("1 messages in ")
    assert done.out.endswith(" (said 1)\n")
    assert "into session bench" in done.err
    with lab.watching("topic", "echo", "again", "-n", "5", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        told = lab.ether("play", "past", "--run", "r1", "--speed", "max", "--as", "again", "-s", "bench", "--json").json
        assert (told["messages"], told["topics"], told["skipped"]) == (5, {"again": 5}, {})
        heard = [json.loads(process.stdout.readline()) for _ in range(5)]
    assert [message["value"]["celsius"] for message in heard] == [20.0, 21.0, 22.0, 23.0, 24.0]


@pytest.mark.usefixtures("folder")
def test_play_has_a_session_of_its_own(lab: Bench) -> None:
    """Nothing of it comes into the session that runs."""
    for words, name in (((), "past-replay"), (("--in", "look"), "look")):
        done = lab.ether("play", "past", "--topic", "said", *words)
        assert done.out.startswith("1 messages in ")
        assert f"into session {name}" in done.err
        assert name not in lab.ether("sessions").out  # it has ended with the replay


@pytest.mark.usefixtures("folder")
def test_play_that_is_interrupted_says_how_far_it_came(lab: Bench) -> None:
    with (
        lab.watching("topic", "echo", "room", "-n", "1") as echo,
        lab.watching("play", "past", "-T", "room", "-s", "bench") as process,
    ):
        assert echo.stderr is not None
        assert "listening" in echo.stderr.readline()
        assert echo.wait(patience(30)) == 0  # the second message of this minute
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=patience(20))
        assert process.returncode == 130
        assert " messages in " in out


def test_status_names_what_the_dead_have_left_in_their_outboxes(
    ether: Ether, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "ledger"
    LedgerWriter.open(folder, "left").close()
    left = OutboxFile.create(outbox_folder("left"), "camera")
    entries = [Entry(n, "record", "v", f"id{n}", n, 1.0, (), "", None, b"x") for n in (1, 2)]
    left.append([(2, pack_entries(entries))])
    alive = OutboxFile.create(outbox_folder("left"), "probe")
    alive.append([(1, b"x")])
    left.close()
    try:
        said = ether("status", str(folder))
    finally:
        alive.drop(1)
        alive.close()
    assert said.code == 1
    assert "0 of 2 durable, 2 waiting, 0 gaps, 0 duplicates" in said.out
    assert "waiting 2 entries of 'camera' (1 to 2)" in said.out
    assert f"its process has ended; ether rescue brings it home, in {left.path}" in said.out
    assert "probe" not in said.out
    assert left.path.exists()
