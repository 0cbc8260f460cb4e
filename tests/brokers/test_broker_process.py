"""The broker as a process: its ready line, its exit codes, and that nothing of it survives whoever started it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from patience import patience
from raw_client import RawClient, Target, connect_packet
from running_brokers import RunningBroker, alive, engines, mosquitto_missing, running_broker, soon, write_settings

NEEDS_MOSQUITTO = pytest.mark.skipif(mosquitto_missing is not None, reason=mosquitto_missing or "")
ENGINES = [pytest.param(name, marks=NEEDS_MOSQUITTO if name == "mosquitto" else ()) for name in engines]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# A parent that starts a broker, says its ready line and its pid, and waits to be killed.
PARENT = """
import json, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-m", "broker", sys.argv[1]],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
ready = json.loads(child.stdout.readline())
print(json.dumps({**ready, "supervisor": child.pid}), flush=True)
sys.stdin.read()
"""


def target_of(broker: RunningBroker) -> Target:
    return Target(broker.host, broker.port, broker.username, broker.password, broker.max_packet_bytes)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def run(path: Path, start: list[str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """A broker that is expected to end by itself: stdin stays open, because its end would be a wish to stop."""
    command = [*(start or ["-m", "broker"]), str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-I", *command], stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said, complained = process.stdout.read(), process.stderr.read()
        return subprocess.CompletedProcess(command, process.wait(patience(20)), said, complained)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder of the broker's: short enough for a Unix socket, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="ether-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_ready_line_says_who_runs_where(engine: str) -> None:
    with running_broker(engine, max_packet_bytes=1_000_000) as broker:
        assert broker.engine == engine
        assert broker.version.count(".") == 2
        assert broker.port > 0
        assert broker.max_packet_bytes == 1_000_000
        assert broker.protocols == ("3.1.1", "5")
        assert (broker.url_unix is None) is (os.name != "posix")
        assert (broker.engine_pid == broker.process.pid) is (engine == "amqtt")
        with RawClient(target_of(broker)) as client:
            client.ping()


def test_auto_takes_mosquitto_where_there_is_one() -> None:
    with running_broker("auto") as broker:
        assert broker.engine == ("amqtt" if mosquitto_missing else "mosquitto")


@POSIX
@pytest.mark.parametrize("engine", ENGINES)
def test_the_unix_socket_lets_in_with_the_password_only(engine: str) -> None:
    with running_broker(engine) as broker:
        assert broker.unix_socket is not None
        for password, code in ((broker.password, 0), ("wrong", 5)):
            with socket.socket(socket.AF_UNIX) as plug:
                plug.settimeout(5)
                plug.connect(broker.unix_socket)
                plug.sendall(connect_packet(target_of(broker)._replace(password=password), "over-unix"))
                assert plug.recv(4) == bytes([0x20, 2, 0, code])


@NEEDS_MOSQUITTO
@pytest.mark.skipif(os.name != "posix", reason="only POSIX has mode bits")
def test_what_mosquitto_reads_is_private() -> None:
    with running_broker("mosquitto") as broker:
        for name in ("mosquitto.conf", "users", "settings.json"):
            assert (broker.private_dir / name).stat().st_mode & 0o077 == 0
        assert broker.password not in (broker.private_dir / "users").read_text()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("end", ["stop", "eof", "SIGTERM", "SIGHUP"])
def test_every_way_to_end_it_is_clean_and_fast(engine: str, end: str) -> None:
    if end.startswith("SIG") and os.name != "posix":
        pytest.skip("signals of POSIX")
    with running_broker(engine) as broker, RawClient(target_of(broker)) as client:
        start = time.perf_counter()
        if end == "stop":
            assert broker.stop() == 0
        elif end == "eof":
            assert broker.process.stdin is not None
            broker.process.stdin.close()
        else:
            broker.process.send_signal(getattr(signal, end))
        assert broker.process.wait(patience(10)) == 0
        assert time.perf_counter() - start < patience(2.4)  # an end that is forced takes 5 s
        assert client.is_closed(5.0)
        assert not alive(broker.engine_pid)
        assert not broker.private_dir.exists()
        assert is_free(broker.port)
        assert broker.stderr() == ""


@POSIX
@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_is_the_parents_business(engine: str) -> None:
    with running_broker(engine) as broker, RawClient(target_of(broker)) as client:
        broker.process.send_signal(signal.SIGINT)
        if broker.engine_pid != broker.process.pid:
            assert os.getpgid(broker.engine_pid) != os.getpgid(broker.process.pid)
        client.ping()
        assert broker.process.poll() is None


@POSIX
@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_survives_the_kill_of_the_parent(engine: str, folder: Path) -> None:
    private = {"unix_socket": str(folder / "broker.sock"), "private_dir": str(folder)}
    path = write_settings(folder, engine=engine, username="u", password="p", **private)
    command = [sys.executable, "-c", PARENT, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        ready = json.loads(parent.stdout.readline())
        parent.kill()
    assert soon(lambda: not alive(ready["supervisor"]) and not alive(ready["pid"]), 10)
    assert soon(lambda: not folder.exists(), 10)
    assert is_free(ready["port"])


@POSIX
@NEEDS_MOSQUITTO
def test_mosquitto_does_not_survive_its_supervisor() -> None:
    with running_broker("mosquitto") as broker:
        broker.process.kill()
        assert soon(lambda: not alive(broker.engine_pid), 10)


@POSIX
@NEEDS_MOSQUITTO
def test_the_guard_of_other_systems_kills_too(tmp_path: Path) -> None:
    """What macOS uses in place of the kernel's own signal."""
    script = (
        "import sys; from broker import orphans_posix as orphans\n"
        "child = orphans.spawn(['sleep', '60'], sys.argv[1])\n"
        "print(child.pid, *(guard.pid for guard, _ in orphans._guards.values()), flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-I", "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert soon(lambda: not any(map(alive, pids)), 10)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_broker_comes_back_at_its_address(engine: str) -> None:
    with running_broker(engine) as broker:
        broker.kill()
        again = broker.restart()
        assert (again.port, again.password) == (broker.port, broker.password)
        with RawClient(target_of(again)) as client:
            client.ping()


@NEEDS_MOSQUITTO
@POSIX
def test_an_engine_that_dies_is_reported() -> None:
    with running_broker("mosquitto") as broker:
        os.kill(broker.engine_pid, signal.SIGKILL)
        assert "ended by itself" in broker.event("failed")["text"]
        assert broker.process.wait(patience(10)) == 5
        assert "ended by itself" in broker.stderr()
        assert not broker.private_dir.exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_taken_address_is_exit_code_4(engine: str, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = write_settings(folder, engine=engine, port=port, username="u", password="p", private_dir=str(folder))
        done = run(path)
    assert done.returncode == 4
    assert done.stdout == ""
    assert f"127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    assert not folder.exists()


def test_refused_settings_are_exit_code_2_and_one_sentence(folder: Path) -> None:
    done = run(write_settings(folder, username="u", password="p", prot=1883))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "'prot'" in done.stderr


def test_no_settings_file_is_exit_code_2(folder: Path) -> None:
    assert run(folder / "absent.json").returncode == 2


@POSIX
def test_no_mosquitto_is_exit_code_3(folder: Path) -> None:
    script = (
        "import sys; from broker import __main__ as main; from broker.engines import mosquitto_engine\n"
        "mosquitto_engine._USUAL_PLACES = ()\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    path = write_settings(folder, username="u", password="p", engine="mosquitto")
    done = run(path, ["-c", script], env={"PATH": "/nowhere"})
    assert done.returncode == 3, done.stderr
    assert "mosquitto" in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parent_that_reads_no_warnings_stops_nobody(engine: str, folder: Path) -> None:
    """More warnings than a pipe holds, and nobody reads them."""
    path = write_settings(folder, engine=engine, username="u", password="p", private_dir=str(folder))
    command = [sys.executable, "-I", "-m", "broker", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        target = Target("127.0.0.1", ready["port"], "u", "p", ready["max_packet_bytes"])
        for number in range(800):
            with RawClient(target._replace(password="wrong"), f"x{number}") as refused:
                assert refused.connack == b"\x00\x05"
        with RawClient(target) as client:
            client.ping()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(patience(10)) == 0


def test_supervising_mosquitto_costs_no_event_loop(folder: Path) -> None:
    script = "import sys; import broker.__main__, broker.engines.mosquitto_engine; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=patience(20), check=True
    )
    assert not {"asyncio", "amqtt", "dataclasses", "shutil", "ether"} & set(done.stdout.split())


def test_a_plain_broker_loads_neither_tls_nor_websockets(folder: Path) -> None:
    script = "import sys; import broker.__main__, broker.engines.amqtt_engine; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=patience(20), check=True
    )
    loaded = set(done.stdout.split())
    assert not {"asyncio", "amqtt", "ssl", "websockets", "dataclasses", "logging", "ether"} & loaded


@pytest.mark.parametrize("engine", ENGINES)
def test_at_mqtts_own_limit_any_client_is_let_in(engine: str) -> None:
    """An announced limit above MQTT's own makes paho refuse the connection as malformed."""
    with running_broker(engine, max_packet_bytes=268_435_455) as broker:
        connected: queue.SimpleQueue[object] = queue.SimpleQueue()
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5 if "5" in broker.protocols else MQTTv311)
        client.username_pw_set(broker.username, broker.password)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: connected.put(reason.is_failure)
        client.connect(broker.host, broker.port)
        client.loop_start()
        assert connected.get(timeout=patience(10)) is False
        client.disconnect()
        client.loop_stop()
