"""`ether connect`: what it prints works as it stands, and no password is on it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from engine_params import EMBEDDED, On
from patience import patience

from ether import Ether, ether_get
from ether.cli.machines.connect import client_options, commands
from ether.cli.main import main
from ether.session.discovery.local_sessions import folder_of
from ether.transport.endpoint import Endpoint

CLIENTS = shutil.which("mosquitto_sub") and shutil.which("mosquitto_rr")


class Camera:
    @ether_get
    def snap(self, exposure: float) -> str:
        return f"an image of {exposure} s"


def test_options_of_a_socket_and_of_an_address() -> None:
    assert client_options(Endpoint.from_url("mqtt://u:p@127.0.0.1:1884")) == [
        "-V mqttv5", "-h 127.0.0.1", "-p 1884", "-u u", "-P p",
    ]  # fmt: skip
    assert client_options(Endpoint.from_url("unix:///run/x.sock")) == ["-V mqttv5", "--unix /run/x.sock"]
    assert client_options(Endpoint.from_url("mqtts://lab:8883")) is None


def shell(line: str) -> str:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=patience(15), check=False)
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


@pytest.mark.skipif(not CLIENTS, reason="Mosquitto's clients are not installed: apt install mosquitto-clients")
@pytest.mark.parametrize("engine", EMBEDDED)
def test_the_lines_work_as_they_stand(engine: str, on: On, capsys: pytest.CaptureFixture[str]) -> None:
    ether = Ether()
    with ether.tap({"session": "open-house"}, broker=on(engine)):
        ether.host(Camera(), name="cam")
        heard = ether.subscribe("celsius")
        capsys.readouterr()
        assert main(["connect", "-s", "open-house"]) == 0
        page = capsys.readouterr().out
        password = Endpoint.from_url(str(ether.broker_url)).password
        assert password
        assert password not in page
        lines = [line.strip() for line in page.splitlines() if line.strip().startswith("XDG_CONFIG_HOME=")]
        hears, tells, calls = lines
        shell(tells.replace("TOPIC", "celsius"))
        assert heard.get(patience(5)).value == {"celsius": 21.5}
        answer = shell(calls.replace("INSTANCE", "cam").replace("METHOD", "snap"))
        assert answer.strip() == '"an image of 0.1 s"'
        assert shell(f"{hears} -E").strip() == ""  # it connects, subscribes, and ends
        folder = Path(str(folder_of("open-house", os.environ)), "connect")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
        assert main(["connect", "-s", "open-house", "--show-password"]) == 0
        assert password in capsys.readouterr().out
    assert not folder.exists()


def test_the_lines_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    assert all(line.startswith(f"XDG_CONFIG_HOME='{folder}' mosquitto_") for line in commands("bench", folder))
