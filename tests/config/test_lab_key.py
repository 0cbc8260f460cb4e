"""The key that machines of one lab share: made once, kept private, and never shown."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import threading
from pathlib import Path

import pytest
from patience import patience

from ether.errors import ConfigError
from ether.security.lab_key import LabKey, key_file, load_key, load_or_make_key

DIGITS = "00112233445566778899aabbccddeeff"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_it_is_made_on_first_need_and_then_kept(environment: dict[str, str], tmp_path: Path) -> None:
    assert load_key(environment) is None
    made = load_or_make_key(environment)
    assert load_or_make_key(environment) == load_key(environment) == made
    path = tmp_path / "ether" / "key"
    assert made.source == str(path) == key_file(environment)
    assert path.read_text() == made.digits + "\n"
    assert len(bytes.fromhex(made.digits)) == 16
    assert os.listdir(path.parent) == ["key"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_it_is_without_xdg(tmp_path: Path) -> None:
    assert key_file({"HOME": str(tmp_path)}) == str(tmp_path / ".config" / "ether" / "key")


def test_the_environment_comes_first(environment: dict[str, str]) -> None:
    load_or_make_key(environment)
    assert load_or_make_key({**environment, "ETHER_KEY": f" {DIGITS.upper()}\n"}) == LabKey(DIGITS, "ETHER_KEY")


def test_what_follows_from_it() -> None:
    who = LabKey(DIGITS, "").credentials()
    assert who.username == "ether"
    assert who.password == hmac.new(bytes.fromhex(DIGITS), b"ether broker", hashlib.sha256).hexdigest()
    assert who == LabKey(DIGITS, "elsewhere").credentials()
    assert who != LabKey(DIGITS[::-1], "").credentials()


def test_it_is_never_shown() -> None:
    key = LabKey(DIGITS, "x")
    assert DIGITS not in repr(key) + str(key) + repr(key.credentials())


@pytest.mark.parametrize(
    "text",
    ["", "xyz", DIGITS[:-1], DIGITS + "0", DIGITS.replace("0", "g"), "ü" * 32],
    ids=["empty", "word", "short", "long", "no hex", "no ASCII"],
)
def test_what_is_no_key(environment: dict[str, str], tmp_path: Path, text: str) -> None:
    path = tmp_path / "ether" / "key"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="32 hex digits") as caught:
        load_or_make_key(environment)
    assert str(path) in str(caught.value)
    assert not text or text not in str(caught.value)
    assert path.read_text() == text


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has mode bits")
def test_a_key_that_others_can_read_is_refused(environment: dict[str, str]) -> None:
    path = load_or_make_key(environment).source
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_key(environment)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be"):
        load_or_make_key({"XDG_CONFIG_HOME": str(tmp_path / "file")})


def test_two_programs_that_need_it_at_once_get_the_same(environment: dict[str, str]) -> None:
    made: list[LabKey] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait(patience(5))
        made.append(load_or_make_key(environment))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(5))
    assert len(made) == 8
    assert len(set(made)) == 1
