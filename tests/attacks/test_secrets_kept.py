"""Secrets in files of settings are kept nowhere, however the file is written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from patience import patience

from ether import Ether, ether_get, ether_save, secret_values
from ether.errors import RemoteError, StartFailed
from ether.provenance.git_state import GitState, difference, git_state
from ether.utils import get_ether_logger

FILES = {
    "flow.yaml": ("db: {user: u, password: %s}\n", "db: {user: u2, password: %s}\n"),
    "below.yaml": ("private_key: |\n  %s\nuser: u\n", "private_key: |\n  %s\nuser: u2\n"),
    "two.yml": ("a: 1\n---\ntoken: %s\n", "a: 2\n---\ntoken: %s\n"),
    "remark.yaml": ("a: 1\n# password: %s\n", "a: 2\n# password: %s\n"),
    "one-line.json": ('{"user": "u", "password": "%s"}', '{"user": "u2", "password": "%s"}'),
    "tabs.json": ('{\n\t"keys": [\n\t\t"%s"\n\t]\n}', '{\n\t"keys": [\n\t\t"%s", "x"\n\t]\n}'),
    "list.toml": ('tokens = [\n  "%s",\n]\na = 1\n', 'tokens = [\n  "%s",\n]\na = 2\n'),
    "text.toml": ('secret = """\n%s\n"""\n', 'secret = """\n%s\n"""\na = 2\n'),
    "below.ini": ("[db]\npassword =\n  %s\nuser = u\n", "[db]\npassword =\n  %s\nuser = u2\n"),
    "plain.conf": ("password: %s\nuser=u\n", "password: %s\nuser=u2\n"),
    ".envrc": ('export API_KEY="a\n%s"\nexport A=1\n', 'export API_KEY="b\n%s"\nexport A=2\n'),
    ".env": ("TOKEN=%s\nA=1\n", "TOKEN=%s\nA=2\n"),
    ".env.local": ("TOKEN=\\\n%s\nA=1\n", "TOKEN=\\\n%s\nA=2\n"),
    "bearer.yaml": ("bearer: %s\n", "bearer: %s\na: 1\n"),
    "broken.yaml": ("a: [1,\npassword: %s\n}", "a: [2,\npassword: %s\n}"),
    "script.envrc": ("", ""),
}
UNREADABLE = {"broken.yaml"}


@pytest.mark.attack(
    "F15", "secrets in differences", "flow YAML, block scalars, one-line JSON, TOML lists, `.envrc`, remarks"
)
def test_no_secret_is_in_a_difference(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        names = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", *words], cwd=tmp_path, check=True, env={**os.environ, **names}, capture_output=True)

    git("init", "-q")
    for number, (name, (before, _)) in enumerate(FILES.items()):
        (tmp_path / name).write_text(before % f"hush{number}" if "%" in before else before)
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "-A")
    git("commit", "-qm", "first")
    for number, (name, (_, after)) in enumerate(FILES.items()):
        (tmp_path / name).write_text(after % f"hush-new{number}" if "%" in after else after)
    (tmp_path / "code.py").write_text("a = 2\n")
    state = git_state(str(tmp_path))
    assert isinstance(state, GitState)
    found = difference(state)
    text = found.content.decode()
    assert "hush" not in text
    assert found.masked
    assert set(found.left_out) == UNREADABLE
    for name in FILES.keys() - UNREADABLE - {"script.envrc"}:
        assert f"diff --git a/{name} b/{name}\n" in text
    for kept in (
        "+a = 2",
        "+db: {user: u2, password: ***}",
        '"user": "u2"',
        "+A=2",
        "+export A=2",
        "user = u2",
        "user: u2",
    ):
        assert kept in text or kept.replace(" = ", '": "') in text, kept


VALUE = "hush-4711-hush"
TOKEN, WORD = "quiet-0815-quiet", "silent-1234-silent"


class Locked:
    """A class with a secret that it gives away wherever it can."""

    def __init__(self, pin: str, other: str = "") -> None:
        self.pin = pin

    def log_in(self, word: str) -> None:
        get_ether_logger("locked").warning("the word is %s", word)

    @ether_get
    def fails(self) -> str:
        get_ether_logger("locked").warning("the pin is %s", self.pin)
        get_ether_logger("locked").warning("the token is %s", os.environ["LOCK_TOKEN"])
        raise ValueError(f"refused for {self.pin} and {os.environ['LOCK_TOKEN']}")

    @ether_save
    def length(self) -> int:
        return len(self.pin)


class Closed:
    """Cannot be made, and says why."""

    def __init__(self, pin: str) -> None:
        raise PermissionError(f"no entry with {pin}")


@pytest.mark.attack(
    "F19",
    "a `!secret` of a configuration",
    "in arguments, errors, logs; looked for in every file that a run leaves, and in `ps`",
)
def test_the_value_of_a_secret_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    values = {"LOCK_PIN": VALUE, "LOCK_OTHER": TOKEN, "LOCK_WORD": WORD}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for variable in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    here = __name__.rpartition(".")[2]
    path = tmp_path / "lab.yaml"
    path.write_text(
        f"session: hushed\nrecord: {{topics: all, folder: {tmp_path / 'ledger'}}}\ninstances:\n"
        f"  locked: {{class_path: {here}.Locked, kwargs: {{pin: !secret LOCK_PIN, other: 'u:{VALUE}@x'}},\n"
        "    env: {LOCK_TOKEN: !secret LOCK_OTHER}, on_connect: {method: log_in, args: [!secret LOCK_WORD]}}\n"
    )
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    own = Ether()
    try:
        own.tap(str(path), timeout_s=patience(30))
        for name in values:
            monkeypatch.delenv(name)
        assert own.save("locked", "length")["result"] == len(VALUE), "the class has it"
        with pytest.raises(RemoteError) as remote:
            own.get("locked", "fails")
        announced = repr(own.instances())
        assert own.flush() == 0
        own.shutdown()
        path.write_text(
            f"session: shut\ninstances:\n  closed: {{class_path: {here}.Closed, kwargs: {{pin: !secret LOCK_PIN}}}}\n"
        )
        monkeypatch.setenv("LOCK_PIN", VALUE)
        with pytest.raises(StartFailed, match="no entry with") as start:
            own.tap(str(path), timeout_s=patience(30))
    finally:
        own.shutdown()
        secret_values.forget()
    texts = {"announced": announced, "remote": str(remote.value), "start": str(start.value)}
    texts |= {
        str(file): file.read_bytes().decode("latin-1")
        for file in tmp_path.rglob("*")
        if file.is_file() and file != path
    }
    texts["console"] = "".join(capfd.readouterr())
    assert [name for name, text in texts.items() if any(value in text for value in values.values())] == []
    assert "refused for *** and ***" in texts["remote"]
    for what in ("pin", "token", "word"):
        assert any(f"the {what} is ***" in text for text in texts.values()), "it was logged"
    assert len(texts) > 4
