"""`ether instance` and `ether service`: what systemd runs, and how it is told to."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import ETHER, LAB, Bench, bench, ether, make_lab
from programs import running


def test_one_instance_of_a_file_joins_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # what others left there would need a recorder
    make_lab(tmp_path, "amqtt", LAB + "  other: {{class_path: cli_parts.Sink}}\n")
    with running(tmp_path, *ETHER, "instance", "ether.yaml", "sink") as program:
        program.wait_for("is ready")
        lab = Bench(tmp_path, program)
        assert [member["name"] for member in lab.ether("ps", "--json").json["members"]] == ["sink"]
        program.interrupt()
        assert program.finish().code == 0
        program.assert_nothing_left()


def test_an_instance_that_the_file_does_not_have(tmp_path: Path) -> None:
    make_lab(tmp_path, "amqtt")
    ether(tmp_path, "instance", "ether.yaml", "snik").assert_mistake(2, "snik", "source, sink")
    ether(tmp_path, "instance", "no.yaml", "sink").assert_mistake(3, "no.yaml")


def test_an_agent_runs_what_its_owner_allows(tmp_path: Path) -> None:
    make_lab(tmp_path, "amqtt", LAB + "  far: {{class_path: cli_parts.Sink, host: pi3, autorun: false}}\n")
    with ExitStack() as stack:
        lab = stack.enter_context(bench(tmp_path))
        record = json.loads(next(lab.program.runtime.glob("ether-*/session.json")).read_text())
        where = ("--session", record["session"], "--broker", record["url"])
        agent = stack.enter_context(running(tmp_path, *ETHER, "agent", "--name", "pi3", "--allow", "cli_parts", *where))
        agent.wait_for("pi3")
        assert lab.ether("start", "far").code == 0  # the launcher waits for the agent
        assert lab.ether("call", "far.echo", "text=hello", "--json").code == 0
        agent.interrupt()
        assert agent.finish().code == 0
        agent.assert_nothing_left()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there is no systemd without Unix sockets")
def test_systemd_is_told_ready_alive_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab(tmp_path, "amqtt")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind("\0ether-test-" + tmp_path.name)
        notified.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", "@ether-test-" + tmp_path.name)
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        with running(tmp_path, *ETHER, "instance", "ether.yaml", "sink") as program:
            assert b"READY=1" in notified.recv(4096)
            said = [notified.recv(4096) for _ in range(3)]
            assert any(b"WATCHDOG=1" in each for each in said), said
            program.interrupt()
            while b"STOPPING=1" not in (said := [notified.recv(4096)])[0]:
                assert b"WATCHDOG=1" in said[0] or b"STATUS=" in said[0]
            assert program.finish().code == 0


def test_a_service_is_shown_before_it_is_made(tmp_path: Path) -> None:
    make_lab(tmp_path, "amqtt")
    words = ("service", "install", "instance", "sink", "--file", "ether.yaml", "--dry-run")
    shown = ether(tmp_path, *words).out
    assert f"{sys.executable}" in shown
    assert "ether.cli.main instance" in shown
    plan = ether(tmp_path, *words, "--user", "--json").json
    assert any("systemctl" in command for command in plan["commands"])
    assert any(path.endswith("ether-instance@.service") for path in plan["files"])


def test_services_that_cannot_be(tmp_path: Path) -> None:
    ether(tmp_path, "service", "install", "camera").assert_mistake(2, "camera", "broker, agent, instance")
    ether(tmp_path, "service", "remove", "instance", "x", "--user", PATH="").assert_mistake(1, "systemctl")
    ether(tmp_path, "service", "status", PATH="").assert_mistake(1, "systemctl")
