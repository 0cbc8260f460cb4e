"""`ether pair` and `ether join`: by token, by code, by address; and what each failure says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from patience import patience

from ether.cli.exits import Exit
from ether.cli.main import main
from ether.security import certificates as certs
from ether.security.pairing_code import Token, read_token_or_code
from ether.session.discovery.known_brokers import read_remembered
from ether.session.trust import joining
from ether.session.trust.joining import JoinFailed, join
from ether.session.trust.lab import LabAuthority
from ether.session.trust.pairing import Joined, Pairing, PairingEnded
from ether.system.lab_folders import memberships


@pytest.fixture
def pc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The user on whose machine `ether pair` waits."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "pc"))
    return dict(os.environ)


@pytest.fixture
def pi(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "pi")}


@pytest.fixture
def lab(pc: dict[str, str]) -> LabAuthority:
    return LabAuthority.load_or_make(pc, time.time())


@pytest.fixture
def pairing(lab: LabAuthority) -> Iterator[Pairing]:
    pairing = Pairing(lab, "pi3", valid_s=patience(20), port=0)
    yield pairing
    pairing.close()


def here(pairing: Pairing) -> str:
    return f"127.0.0.1:{pairing.port}"


def waited(pairing: Pairing) -> Joined:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(pairing.wait).result(patience(20))


@pytest.mark.parametrize("by", ["token", "code", "code as it is typed"])
def test_one_line_on_either_side(lab: LabAuthority, pairing: Pairing, pi: dict[str, str], by: str) -> None:
    lab.note_broker(8883)
    shown = {"token": pairing.token.text, "code": pairing.code}.get(by, pairing.code.lower().replace("-", " "))
    began = time.monotonic()
    new = join(read_token_or_code(shown), pi, here(pairing))
    joined = waited(pairing)
    assert time.monotonic() - began < patience(5)
    assert (joined.name, joined.host, joined.address) == ("pi3", socket.gethostname(), "127.0.0.1")
    assert joined.fingerprint == new.fingerprint, "two people can compare them"
    [known] = memberships(pi)
    assert (known.lab, known.name) == (lab.id, "pi3")
    facts = certs.facts_of(Path(known.certificate).read_bytes())
    assert facts.fingerprint == joined.fingerprint
    assert os.stat(known.key).st_mode & 0o777 == 0o600
    assert not list(Path(lab.folder).glob("*pi3*")), "its key was never here"
    assert [each.url for each in read_remembered(pi)] == ["mqtts://127.0.0.1:8883"]
    lab.note_broker(None)


def test_the_token_knows_where_to_go(lab: LabAuthority, pairing: Pairing, pi: dict[str, str]) -> None:
    token = Token(pairing.token.lab, pairing.token.secret, ("127.0.0.1:1", here(pairing)))
    assert join(token, pi).membership.name == "pi3"
    assert waited(pairing).name == "pi3"


def test_what_is_used_is_void(lab: LabAuthority, pairing: Pairing, pi: dict[str, str], tmp_path: Path) -> None:
    join(pairing.token, pi, here(pairing))
    for again in (pairing.token, pairing.code):
        with pytest.raises(JoinFailed, match=r"used already|cannot be reached|broke|not what waits"):
            join(again, {"HOME": str(tmp_path / "late")}, here(pairing))
    assert [name for name, each in lab.members().items() if each.revoked is None][1:] == ["pi3"]


@pytest.mark.parametrize("kind", ["token", "code"])
def test_the_first_wrong_guess_ends_it(lab: LabAuthority, pairing: Pairing, pi: dict[str, str], kind: str) -> None:
    other = "3" if pairing.code[-1] == "2" else "2"
    wrong = Token(lab.id, "a" * 26) if kind == "token" else pairing.code[:-1] + other
    with pytest.raises(JoinFailed, match=r"`ether pair NAME` there again"):
        join(wrong, pi, here(pairing))
    with pytest.raises(PairingEnded, match=r"somebody at 127\.0\.0\.1 tried a wrong token or code: .*`ether pair pi3`"):
        waited(pairing)
    with pytest.raises(JoinFailed):
        join(pairing.token, pi, here(pairing))
    assert memberships(pi) == []
    assert "pi3" not in lab.members()


def test_a_token_of_another_lab_is_told_to_nobody(pairing: Pairing, pi: dict[str, str]) -> None:
    with pytest.raises(JoinFailed, match="of another lab than the token names, and was told nothing"):
        join(Token("a" * 26, pairing.token.secret), pi, here(pairing))
    assert join(pairing.token, pi, here(pairing)).membership.name == "pi3", "which was no guess"


def test_ten_minutes_and_no_longer(lab: LabAuthority, pi: dict[str, str]) -> None:
    pairing = Pairing(lab, "pi3", valid_s=0.1, port=0)
    try:
        with pytest.raises(PairingEnded, match="nobody came within"):
            pairing.wait()
        with pytest.raises(JoinFailed, match="too old"):
            join(pairing.token, pi, here(pairing))
    finally:
        pairing.close()
    with pytest.raises(JoinFailed, match="Is `ether pair NAME` still running there"):
        join(pairing.token, pi, here(pairing))


def test_nobody_waits_and_no_address_is_known(pi: dict[str, str]) -> None:
    with pytest.raises(JoinFailed, match="--at HOST"):
        join("4K7M-QX9P", pi, mdns_s=0)


def test_the_name_is_given_to_one_device(lab: LabAuthority, pi: dict[str, str], tmp_path: Path) -> None:
    serials = []
    for number in range(2):
        pairing = Pairing(lab, "pi3", port=0)
        join(pairing.token, {"HOME": str(tmp_path / str(number))}, here(pairing))
        waited(pairing)
        pairing.close()
        serials.append(lab.members()["pi3"].serials)
    assert serials[0] != serials[1]
    assert set(serials[0]) <= set(lab._read()[1]), "the earlier device is out"


def test_no_clock_is_asked_on_the_device(pairing: Pairing, pi: dict[str, str]) -> None:
    """It may be in 1970: what would read a clock is not there."""
    assert not {"wall_time", "time", "datetime"} & set(vars(joining))
    assert join(pairing.token, pi, here(pairing)).membership.name == "pi3"


def test_the_commands(
    pc: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["members"]) == 0
    assert "`ether pair NAME` makes one" in capsys.readouterr().err
    assert main(["pair", "../x"]) == Exit.CONFIG
    assert main(["revoke", "pi3"]) != 0
    assert main(["join", "4K7M-QX9"]) == Exit.CONFIG
    assert "a code such as 4K7M-QX9P" in capsys.readouterr().err
    command = [sys.executable, "-m", "ether", "pair", "pi3", "--port", "0", "--json"]
    with subprocess.Popen(command, env=pc, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        told = json.loads(waiting.stdout.readline())
        try:
            at = f"127.0.0.1:{told['port']}"
            new = join(read_token_or_code(told["token"]), {"HOME": str(tmp_path / "pi")}, at)
            assert json.loads(waiting.stdout.readline())["fingerprint"] == new.fingerprint
            assert waiting.wait(patience(20)) == 0
        finally:
            waiting.kill()
    assert main(["members"]) == 0
    out = capsys.readouterr().out
    assert "pi3" in out
    assert main(["revoke", "pi3"]) == 0
    assert main(["members", "--json"]) == 0
    assert '"revoked"' in capsys.readouterr().out
