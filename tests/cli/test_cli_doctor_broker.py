"""`ether doctor --broker URL`: what it prints, its JSON, its exit codes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from command_line import bench, ether, make_lab
from limited_mosquitto import limited_mosquitto
from running_brokers import mosquitto_missing

pytestmark = pytest.mark.skipif(mosquitto_missing is not None, reason=str(mosquitto_missing))


def test_for_people(tmp_path: Path) -> None:
    with limited_mosquitto() as broker:
        done = ether(tmp_path, "doctor", "--broker", broker.url_tcp)
    assert done.code == 0, done
    assert broker.url_tcp in done.out.splitlines()[0]
    assert "mosquitto version" in done.out.splitlines()[0]
    for line in ("set_tcp_nodelay true", "max_queued_messages 0", "max_inflight_messages 1000"):
        assert f"    {line}\n" in done.out
    assert "\nsmall writes: A call takes" in done.out


def test_where_nothing_is_wrong_nothing_is_advised(tmp_path: Path) -> None:
    with limited_mosquitto("set_tcp_nodelay true", "max_queued_messages 0", "max_inflight_messages 1000") as broker:
        done = ether(tmp_path, "doctor", "-b", f"127.0.0.1:{broker.port}")
    assert done.code == 0, done
    assert "mosquitto.conf" not in done.out
    warned = [line.split("  ")[1].strip() for line in done.out.splitlines() if line.startswith("warn ")]
    assert warned == ["overlapping filters"]


def test_as_json(tmp_path: Path) -> None:
    with limited_mosquitto() as broker:
        told = ether(tmp_path, "doctor", "--broker", broker.url_tcp, "--json").json
    assert told["ok"] is True
    assert told["checks"] == []
    findings = {each["name"]: each for each in told["broker"]["findings"]}
    assert findings["MQTT 5"]["verdict"] == "yes"
    assert findings["MQTT 5"]["status"] == "ok"
    small = findings["small writes"]
    assert (small["verdict"], small["status"]) == ("limited", "warn")
    assert small["settings"] == ["set_tcp_nodelay true"]
    assert small["consequence"]
    assert told["broker"]["took_s"] < 10


def test_code_1_where_no_session_can_run(tmp_path: Path) -> None:
    with limited_mosquitto("retain_available false") as broker:
        done = ether(tmp_path, "doctor", "--broker", broker.url_tcp, "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    failed = [each["name"] for each in done.json["broker"]["findings"] if each["status"] == "fail"]
    assert failed == ["retained messages"]


@pytest.mark.parametrize("said", ["refused", "password"])
def test_code_5_where_nobody_gets_in(tmp_path: Path, said: str) -> None:
    if said == "refused":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
        done = ether(tmp_path, "doctor", "--broker", url)
    else:
        with limited_mosquitto("allow_anonymous false") as broker:
            done = ether(tmp_path, "doctor", "--broker", broker.url_tcp)
    assert done.code == 5, done
    assert said in done.out.lower()


def test_a_url_that_is_none(tmp_path: Path) -> None:
    ether(tmp_path, "doctor", "--broker", "http://x").assert_mistake(3, "http://x")


def test_a_session_that_runs_there_is_measured_and_not_disturbed(tmp_path: Path) -> None:
    """With --session: its rights, by nothing that anybody of it hears, and its members, as without --broker."""
    with limited_mosquitto() as broker:
        make_lab(tmp_path, "amqtt")
        text = (tmp_path / "ether.yaml").read_text().replace("{engine: amqtt}", broker.url_tcp)
        (tmp_path / "ether.yaml").write_text(text)
        with bench(tmp_path) as lab:
            done = lab.ether("doctor", "--broker", broker.url_tcp, "--session", "bench", "--json")
            assert done.code == 0, done
            checks = {check["name"]: check["status"] for check in done.json["checks"]}
            assert checks["instance sink"] == "ok"
            rights = next(each for each in done.json["broker"]["findings"] if each["name"] == "rights")
            assert rights["verdict"] == "yes"
            assert "only answers" in rights["measured"]
            assert {it["name"] for it in lab.ether("ps", "--json").json["members"]} == {"sink", "source"}
            assert "cannot" not in lab.program.said()
        done = ether(tmp_path, "doctor", "--broker", broker.url_tcp, "--session", "bench", "--json")
        assert done.code == 0, done
        assert done.json["checks"] == [
            {"name": "session", "status": "ok", "detail": "bench does not run; its rights were tried", "hint": ""}
        ]
