"""Commands in a session that `ether run` started, on each broker engine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import ENGINES, ETHER, Bench, bench, make_lab
from commands_here import offers
from patience import patience
from running_brokers import soon

from ether.cli.lab.run import recorded
from ether.config import load_config
from ether.version import VERSION

pytestmark = pytest.mark.in_turn("lab")


@pytest.fixture(scope="module", params=ENGINES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The session `bench`: a source that ticks ten times a second, and a sink."""
    folder = tmp_path_factory.mktemp("lab")
    make_lab(folder, request.param)
    with bench(folder) as made:
        yield made


def test_ps(lab: Bench) -> None:
    table = lab.ether("ps").out.splitlines()
    assert table[0].split() == ["NAME", "STATE", "CLASS", "HOST", "PID", "SINCE", "BUSY"]
    assert [line.split()[:3] for line in table[1:]] == [["sink", "ready", "Sink"], ["source", "ready", "Source"]]
    told = lab.ether("ps", "--json").json
    assert told["session"] == "bench"
    by_name = {member["name"]: member for member in told["members"]}
    assert by_name["sink"]["class_path"] == "cli_parts.Sink"
    assert by_name["source"]["busy"] == "idle"
    assert isinstance(by_name["source"]["pid"], int)


def test_sessions(lab: Bench) -> None:
    [row] = lab.ether("sessions", "--json").json
    assert (row["name"], row["pid"], row["how"]) == ("bench", lab.program.process.pid, "this machine")
    assert "@" not in row["broker"]
    assert "bench" in lab.ether("sessions").out


def test_a_session_is_chosen_by_name_and_by_environment(lab: Bench) -> None:
    assert lab.ether("ps", "-s", "bench", "--json").json["session"] == "bench"
    lab.ether("ps", "-s", "other").assert_mistake(4, "no session named 'other'")
    lab.ether("ps", ETHER_SESSION="other").assert_mistake(4, "no session named 'other'")


def test_the_shell_completes_from_what_the_session_announces(lab: Bench) -> None:
    here = {"XDG_RUNTIME_DIR": str(lab.program.runtime)}
    assert offers(lab.folder, "ether restart s", **here) == ["sink", "source"]
    assert offers(lab.folder, "ether logs -i so", **here) == ["source"]
    assert offers(lab.folder, "ether call sink.s", **here) == ["sink.say"]
    assert offers(lab.folder, "ether call so", **here) == []  # it publishes alone
    assert offers(lab.folder, "ether topic echo t", **here) == ["ticks"]
    assert offers(lab.folder, "ether topic pub -s bench sa", **here) == ["said"]
    assert offers(lab.folder, "ether ps -s be", **here) == ["bench"]
    assert offers(lab.folder, "ether topic echo -s other t", **here) == []
    assert offers(lab.folder, "ether instance ether.yaml so") == ["source"]
    members = lab.ether("ps", "--json").json["members"]
    assert sorted(member["name"] for member in members) == ["sink", "source"]


def test_call(lab: Bench) -> None:
    done = lab.ether("call", "sink.echo", "text=12", "number=34", "values=[1,2.5]")
    assert done.json == {"text": "12", "number": 34, "values": [1, 2.5]}, done
    assert lab.ether("call", "Sink.echo", 'text="x"').json["text"] == '"x"'  # text stays as it was written
    assert lab.ether("call", "sink.say").out == "said\n"
    assert lab.ether("call", "sink.say", "--json").json == "said"


def test_call_of_a_save_method(lab: Bench) -> None:
    done = lab.ether("call", "sink.keep", "what=it")
    assert (done.code, done.json["status"], done.json["result"]) == (0, "success", "it")
    failed = lab.ether("call", "sink.keep", "what=nothing")
    assert (failed.code, failed.json["status"]) == (1, "error")
    assert "nothing to keep" in failed.json["message"]


def test_calls_that_fail_say_why(lab: Bench) -> None:
    lab.ether("call", "sink.fail").assert_mistake(1, "KeyError", "no such thing")
    told = lab.ether("call", "sink.fail", "--traceback").err
    assert 'cli_parts.py", line' in told
    assert told.endswith("ether: sink.fail raised KeyError: 'no such thing'\n")
    lab.ether("call", "sink.ecko").assert_mistake(1, "echo")
    lab.ether("call", "sinc.echo").assert_mistake(1, "sink")
    lab.ether("call", "sink.echo", "number=many", "text=x").assert_mistake(1, "number", "many")


def test_topic_list(lab: Bench) -> None:
    rows = {row["topic"]: row for row in lab.ether("topic", "list", "--json").json}
    assert (rows["ticks"]["publishers"], rows["ticks"]["subscribers"]) == (["source"], ["sink"])
    assert 3 <= rows["ticks"]["hz"] <= 20
    assert rows["start"]["publishers"] == []
    assert "ticks" in lab.ether("topic", "list", "--for", "0").out


def test_topic_echo(lab: Bench) -> None:
    first, second = lab.ether("topic", "echo", "ticks", "-n", "2", "--json").lines
    assert second["value"]["number"] == first["value"]["number"] + 1
    assert (first["topic"], first["source"]) == ("ticks", "source")
    assert re.fullmatch(r'ticks: \{"number": \d+\}\n', lab.ether("topic", "echo", "ticks", "-n", "1").out)
    silent = lab.ether("topic", "echo", "nothing", "-t", "0.3")
    assert (silent.code, silent.out) == (6, "")
    assert "listening to 'nothing', which no instance publishes (a program may)" in silent.err
    near = lab.ether("topic", "echo", "tciks", "-t", "0.1")
    assert "Did you mean 'ticks'? source publishes it (Source.tick)." in near.err


def test_ctrl_c_is_the_ordinary_end_of_watching(lab: Bench) -> None:
    with lab.watching("topic", "echo", "ticks") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ticks: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(patience(10)) == 0


def test_topic_hz_and_bw(lab: Bench) -> None:
    reports = lab.ether("topic", "hz", "ticks", "-n", "3", "--json").lines
    assert [report["topic"] for report in reports] == ["ticks"] * 3
    hz = reports[-1]["hz"]
    assert 3 <= hz <= 20
    assert reports[-1]["interval_mean_s"] == pytest.approx(1 / hz, rel=0.5)
    assert "Hz, interval" in lab.ether("topic", "hz", "ticks", "-n", "1").out
    [report] = lab.ether("topic", "bw", "ticks", "-n", "1", "--json").lines
    assert report["bytes_per_s"] > 50
    assert "B/s, mean message" in lab.ether("topic", "bw", "ticks", "-n", "1").out


def test_topic_pub(lab: Bench) -> None:
    assert lab.ether("topic", "pub", "said", "text=hello", "--json").json["value"] == {"text": "hello"}
    lab.program.wait_for("heard hello")
    assert lab.ether("topic", "pub", "said", "again", "--rate", "50", "--count", "3", "--json").json["messages"] == 3
    lab.program.wait_for("heard again")
    assert lab.ether("topic", "pub", "said").err == "published on 'said': heard by sink\n"
    near = lab.command("topic", "pub", "siad", "text=hello")  # what is logged is shown to a process of its own
    assert "nobody hears 'siad'. Did you mean 'said'? sink hears it (Sink.hear)." in near.err
    assert near.err.endswith("published on 'siad': no instance hears it (a program may)\n")
    lab.ether("topic", "pub", "a//b", "1").assert_mistake(3, "a//b")
    lab.ether("topic", "echo", "a/#/b").assert_mistake(3, "a/#/b")


def test_h6_errors_in_ps_and_top(lab: Bench) -> None:
    for _ in range(3):
        lab.ether("topic", "pub", "said", '{"text": [1]}')
    lab.program.wait_for("does not accept this payload")

    def told_failures() -> dict[str, Any]:
        members = lab.ether("ps", "--json").json["members"]
        return next(dict(row["failures"]) for row in members if row["name"] == "sink")

    # Each is printed first, and told to the others a moment later.
    assert soon(lambda: told_failures().get("times") == 3, 15), told_failures()
    failures = told_failures()
    assert failures["count"] >= 3, "with those of other kinds"
    assert failures["last"].startswith("Sink.hear failed: ValidationFailed: Sink.hear does not accept this payload")
    shown = lab.ether("ps").out
    assert "ERRORS" in shown
    told = f"sink: {failures['count']} errors, the last "
    assert told in shown
    assert told in lab.ether("top", "--once").out


def test_graph(lab: Bench) -> None:
    value = lab.ether("graph", "--json").json
    assert {"from": "source", "topic": "ticks", "to": "sink"} in value["edges"]
    assert "  ticks -> sink" in lab.ether("graph").out
    assert lab.ether("graph", "--mermaid").out.startswith("flowchart LR\n")


def test_top(lab: Bench) -> None:
    told = lab.ether("top", "--json").json
    rows = {row["name"]: row for row in told["instances"]}
    assert 3 <= rows["source"]["published_hz"] <= 20
    assert 3 <= rows["sink"]["handled_hz"] <= 20
    assert rows["sink"]["rss_mb"] > 5
    assert rows["sink"]["lag_ms"] < 1000 * patience(10)
    assert [machine["instances"] for machine in told["machines"]] == [2]
    assert "NAME" in lab.ether("top", "--once").out


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_top_draws_in_a_terminal_until_ctrl_c(lab: Bench) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(lab.program.runtime), "TERM": "xterm", "NO_COLOR": "1"}
    environment["COLUMNS"] = "132"
    command = [sys.executable, *ETHER, "top", "-i", "0.3"]
    with subprocess.Popen(command, cwd=lab.folder, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        drawn = b""
        while drawn.count(b"session bench") < 3:
            drawn += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(patience(10)) == 0
    os.close(ours)
    assert b"source" in drawn
    assert b"MACHINE" in drawn
    assert not re.search(rb"\x1b\[3[0-9]m", drawn)


def test_doctor(lab: Bench) -> None:
    done = lab.ether("doctor", "--json")
    checks = {check["name"]: check for check in done.json["checks"]}
    assert done.json["ok"] is (done.code == 0)
    assert VERSION in checks["ether"]["detail"]
    assert "bench" in checks["session"]["detail"]
    assert "MQTT" in checks["broker"]["detail"]
    assert checks["largest message"]["status"] == "ok"
    assert checks["instance sink"]["status"] == "ok"
    assert "bench" in checks["discovery: this machine"]["detail"]


def test_colours_only_where_they_are_wanted(lab: Bench) -> None:
    assert "\x1b[32mready" in lab.ether("ps", FORCE_COLOR="1").out
    assert "\x1b" not in lab.ether("ps").out
    assert "\x1b" not in lab.ether("ps", FORCE_COLOR="1", NO_COLOR="1").out


def test_restart_stop_and_start_of_one_instance(lab: Bench) -> None:
    def pid_of(name: str) -> int | None:
        members = lab.ether("ps", "--json").json["members"]
        return next((member["pid"] for member in members if member["name"] == name), None)

    before, other = pid_of("sink"), pid_of("source")
    assert lab.ether("restart", "sink").out == "sink was restarted\n"
    assert pid_of("sink") not in (None, before)
    assert pid_of("source") == other
    assert lab.ether("stop", "sink", "--json").json == {"instance": "sink", "done": "remove"}
    assert pid_of("sink") is None
    lab.ether("stop", "sink").assert_mistake(2, "no instance 'sink'", "source")
    assert lab.ether("start", "sink").code == 0
    assert lab.ether("call", "sink.say").out == "said\n"
    lab.ether("start", "nobody").assert_mistake(1, "nobody")


def test_no_command_stays_in_the_session(lab: Bench) -> None:
    members = lab.ether("ps", "--json").json["members"]
    assert {member["name"] for member in members} == {"sink", "source"}


def test_h10_run_can_record_what_the_configuration_does_not(tmp_path: Path) -> None:
    make_lab(tmp_path, "auto")
    with bench(tmp_path, "--record") as made:
        names = [row["name"] for row in made.ether("ps", "--json").json["members"]]
        assert "recorder" in names
    config = load_config({"record": {"topics": ["a"], "logs": False}})
    widened = recorded(config, all_of_it=True).record
    assert widened is not None
    assert (widened.topics, widened.logs) == ("all", False)
    assert recorded(config, all_of_it=False) is config
