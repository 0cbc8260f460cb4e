"""Ledgers are found by the names of their sessions, wherever they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ether.errors import ConfigError, InvalidName, NoLedger, SeveralLedgers
from ether.ledger.places import (
    LEDGER_FILE,
    data_folder,
    default_folder,
    find_ledger,
    folder_name,
    leave_pointer,
    list_ledgers,
    session_of,
)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with a data folder."""
    return {"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}


def made(folder: Path, written: float = 1000.0) -> Path:
    folder.mkdir(parents=True)
    (folder / LEDGER_FILE).write_bytes(b"")
    os.utime(folder / LEDGER_FILE, (written, written))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="the folders of POSIX systems")
def test_the_data_folder_follows_the_environment() -> None:
    assert data_folder({"XDG_DATA_HOME": "/data"}) == Path("/data/ether")
    assert data_folder({"HOME": "/home/x"}) == Path("/home/x/.local/share/ether")
    assert data_folder({"HOME": "/home/x", "XDG_DATA_HOME": "relative"}) == Path("/home/x/.local/share/ether")


@pytest.mark.parametrize("name", ["bench", "a b", "..", ".", ".elsewhere", "a\\b", 'C:*?"<>|', "%41", "Größe", "x."])
def test_every_session_has_a_folder_of_its_own(name: str, home: dict[str, str]) -> None:
    folder = folder_name(name)
    assert session_of(folder) == name
    assert not set('/\\:*?"<>|') & set(folder)
    assert folder.strip(".") == folder
    assert default_folder(name, home).parent == data_folder(home)


def test_long_names_stay_apart_and_no_others_are_taken() -> None:
    names = [folder_name("😀" * 63 + end) for end in "😀x"]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 200 for name in names)
    with pytest.raises(InvalidName):
        folder_name("../x")


def test_a_ledger_is_found_by_name_by_path_and_as_the_latest(home: dict[str, str], tmp_path: Path) -> None:
    old = made(default_folder("old", home), 1000)
    new = made(default_folder("new", home), 2000)
    away = made(tmp_path / "away", 3000)
    assert find_ledger("old", home) == old
    assert find_ledger(None, home) == new
    assert find_ledger(away, home) == away
    assert find_ledger(str(away), home) == away
    assert find_ledger(None, {**home, "ETHER_SESSION": "old"}) == old
    assert [place.session for place in list_ledgers(home)] == ["new", "old"]


def test_a_pointer_leads_to_a_ledger_elsewhere(home: dict[str, str], tmp_path: Path) -> None:
    away = made(tmp_path / "disk" / "records", 5000)
    made(default_folder("bench", home))
    leave_pointer("far", away, home)
    leave_pointer("far", away, home)  # each start of the session does it
    assert find_ledger("far", home) == away
    assert list_ledgers(home)[0][:2] == ("far", away)
    assert find_ledger(None, home) == away


def test_a_relative_folder_is_found_from_everywhere(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    leave_pointer("far", made(tmp_path / "records").relative_to(tmp_path), home)
    monkeypatch.chdir("/")
    assert find_ledger("far", home) == tmp_path / "records"


def test_what_is_not_there_is_named_with_what_is(home: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(NoLedger, match="nothing has been recorded yet"):
        find_ledger(None, home)
    made(default_folder("bench", home))
    with pytest.raises(NoLedger, match=r"'bensh'.*There are ledgers of: bench. Did you mean 'bench'\?"):
        find_ledger("bensh", home)
    with pytest.raises(LookupError, match="gone"):
        find_ledger(tmp_path / "gone", home)
    leave_pointer("far", tmp_path / "unplugged", home)
    with pytest.raises(NoLedger, match="unplugged"):
        find_ledger("far", home)


def test_two_ledgers_of_one_session_are_never_guessed_between(home: dict[str, str], tmp_path: Path) -> None:
    made(default_folder("bench", home))
    leave_pointer("bench", made(tmp_path / "away"), home)
    with pytest.raises(SeveralLedgers, match="away"):
        find_ledger("bench", home)
    leave_pointer("bench", default_folder("bench", home), home)
    assert find_ledger("bench", home) == default_folder("bench", home)


def test_a_damaged_pointer_is_no_ledger(home: dict[str, str]) -> None:
    leave_pointer("bench", "/nowhere", home)
    [pointer] = (data_folder(home) / ".elsewhere").iterdir()
    for text in ("", "[]", '{"folder": 5}', "[" * 5000):
        pointer.write_text(text)
        assert list_ledgers(home) == []


def test_nothing_is_made_by_looking(home: dict[str, str], tmp_path: Path) -> None:
    assert list_ledgers(home) == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="XDG_DATA_HOME"):
        data_folder({})
