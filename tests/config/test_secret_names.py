"""`!secret NAME`: where it is looked for, what is said where it is missing, and what is hidden."""

from __future__ import annotations

import json
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ether import secret_values
from ether.cli import main as command_line
from ether.cli.exits import Exit
from ether.cli.output import print_json
from ether.cli.security.secret import app
from ether.config import load_config
from ether.config.secrets import SERVICE, secrets_path
from ether.errors import ConfigError
from ether.log import install_instance_console
from ether.logs.records import record_value
from ether.provenance.secrets import masked, masked_yaml
from ether.secret_values import hidden, learn, secrets_in

YAML = "instances:\n  cam:\n    class_path: lab.Camera\n    kwargs: {pin: !secret CAM_PIN, user: u}\n"


@pytest.fixture(autouse=True)
def own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CAM_PIN", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)
    secret_values.forget()
    yield
    secret_values.forget()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(YAML)
    return path


def pin(path: Path) -> object:
    return load_config(path).instances["cam"].kwargs["pin"]


def kept(**secrets: str) -> Path:
    import os

    path = Path(secrets_path(os.environ))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(secrets))
    path.chmod(0o600)
    return path


def test_a_missing_secret_is_one_sentence_with_file_line_and_what_to_type(written: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written)
    assert str(caught.value) == (
        f"{written}:4: instances.cam.kwargs.pin: the secret CAM_PIN is not known on this machine: type"
        " `ether secret set CAM_PIN`, or set the environment variable CAM_PIN."
    )
    assert (caught.value.line, caught.value.path) == (4, "instances.cam.kwargs.pin")


def test_the_environment_goes_before_the_file_and_that_before_the_keyring(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = types.ModuleType("keyring")
    keyring.get_password = lambda service, name: f"{service} {name}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert pin(written) == f"{SERVICE} CAM_PIN"
    kept(CAM_PIN="from the file")
    assert pin(written) == "from the file"
    monkeypatch.setenv("CAM_PIN", "from outside")
    assert pin(written) == "from outside"


def test_a_keyring_that_fails_has_no_secret(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(service: str, name: str) -> str:
        raise RuntimeError("no backend")

    keyring = types.ModuleType("keyring")
    keyring.get_password = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    with pytest.raises(ConfigError, match="CAM_PIN is not known"):
        load_config(written)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such modes there")
def test_a_file_that_others_may_read_is_not_used(written: Path) -> None:
    path = kept(CAM_PIN="seen by all")
    path.chmod(0o644)
    with pytest.raises(
        ConfigError, match=r"lab\.yaml:4: .*can be read by others, so they are not used: chmod 600"
    ) as no:
        load_config(written)
    assert "seen" not in str(no.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"CAM_PIN": 7}', "[" * 100_000])
def test_a_file_that_is_no_file_of_secrets_is_said(written: Path, text: str) -> None:
    kept().write_text(text)
    with pytest.raises(ConfigError, match=r"lab\.yaml:4: .*secrets in .*secrets\.json are not"):
        load_config(written)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("x: !secret 7a", "found '7a' as the name of a secret"),
        ("x: !secret", "found '' as the name of a secret"),
        ("!secret X: 1", "found !secret in a key; it stands for a value"),
        ("x: !secret [A]", "found the tag !secret"),
        ("x: !secret {a: 1}", "found the tag !secret"),
    ],
)
def test_what_is_no_secret_is_refused_with_its_line(tmp_path: Path, yaml: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"session: bench\n{yaml}\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml:2: ") as caught:
        load_config(path)
    assert said in str(caught.value)


def test_the_value_is_hidden_in_all_that_is_recorded_and_logged(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(CAM_PIN='pa"ss wörd')
    config = load_config(written)
    value = str(config.instances["cam"].kwargs["pin"])
    assert config.written is not None
    assert value not in config.written.text
    assert value not in masked_yaml(config.written.text)
    assert masked({"pin": value, "text": f"<{value}>", "list": [value]}) == {
        "pin": "***",
        "text": "<***>",
        "list": ["***"],
    }
    for form in (value, repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False), "pa%22ss%20w%C3%B6rd"):
        assert "***" in hidden(f"({form})")
        assert "ss w" not in hidden(f"({form})")
    assert secrets_in({"kwargs": {"pin": value}, "args": ["x", f"u:{value}"]}) == [value]
    try:
        raise ValueError(f"refused: {value}")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "with %s", (value,), sys.exc_info())
    said = record_value(record, "cam")
    assert "***" in said["message"]
    assert value not in json.dumps(said, ensure_ascii=False)
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    try:
        install_instance_console("cam", sys.stderr)
        for handler in root.handlers:
            if handler not in before:
                handler.handle(record)
    finally:
        root.handlers[:] = before
    assert "with ***" in capsys.readouterr().err


def test_a_short_value_is_hidden_where_it_stands_alone() -> None:
    learn(["12"])
    assert (hidden("12"), hidden("a12b")) == ("***", "a12b")
    assert masked({"pin": "12", "count": 12}) == {"pin": "***", "count": 12}


def test_of_two_secrets_the_longer_one_is_hidden_whole() -> None:
    learn(["hush", "hush-hush"])
    assert hidden("say hush-hush, hush") == "say ***, ***"


def test_json_stays_json_where_the_digits_of_a_secret_stand_in_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    learn(["4711"])
    print_json({"time": 1747110.5, "count": 4711, "text": "pin 4711", "4711": [b"\x00"]})
    assert json.loads(capsys.readouterr().out) == {
        "time": 1747110.5,
        "count": 4711,
        "text": "pin ***",
        "***": [{"bytes": 1, "base64": "AA=="}],
    }


def test_a_defect_is_shown_whole_but_for_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(["hush-4711"])

    def broken(_words: object) -> int:
        raise RuntimeError("opened with hush-4711")

    monkeypatch.setattr(command_line, "_perform", broken)
    assert command_line.main(["ps"]) == Exit.DEFECT
    said = capsys.readouterr().err
    assert "RuntimeError: opened with ***" in said
    assert "Traceback" in said


# -- ether secret


def test_secrets_are_set_listed_and_removed_without_their_values(written: Path) -> None:
    run = CliRunner()
    assert run.invoke(app, ["set", "CAM_PIN"], input="from a pipe\n").exit_code == 0
    assert pin(written) == "from a pipe"
    secret_values.forget()
    listed = run.invoke(app, ["list"])
    assert "CAM_PIN" in listed.output
    assert "pipe" not in listed.output
    assert run.invoke(app, ["remove", "CAM_PIN"]).exit_code == 0
    with pytest.raises(ConfigError):
        load_config(written)
    assert run.invoke(app, ["remove", "CAM_PIN"]).exit_code != 0
    assert run.invoke(app, ["set", "7"], input="x").exit_code != 0
    assert run.invoke(app, ["set", "EMPTY"], input="\n").exit_code != 0
    if sys.platform != "win32":
        import os

        assert Path(secrets_path(os.environ)).stat().st_mode & 0o777 == 0o600
