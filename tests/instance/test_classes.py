"""From class paths to classes, and what is said when there is none."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

from ether.agents.allowed import roots_of
from ether.config import EtherInstanceConfig
from ether.errors import ConfigError
from ether.instance.class_loading import find_class
from ether.launch.recording_setup import is_recorder


def test_a_class_is_found() -> None:
    assert find_class("collections.OrderedDict", None) is OrderedDict


@pytest.mark.parametrize("former", ["ether.process.recorder.Recorder", "ether.recording.recorder.Recorder"])
def test_a_former_class_path_of_the_recorder_is_understood(former: str) -> None:
    recorder = find_class("ether.recorder.Recorder", None)
    assert find_class(former, None) is recorder
    assert is_recorder("archive", EtherInstanceConfig(class_path=former))
    roots_of(["ether"]).check(former)


def test_a_nested_class_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nested_classes.py").write_text("class A:\n    class B: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_class("nested_classes.A.B", None).__name__ == "B"


@pytest.mark.parametrize(
    ("class_path", "says"),
    [
        ("no_such_module.Class", "no module 'no_such_module'"),
        ("collections.no_such.Class", "collections"),
        ("collections.OrderedDic", "OrderedDict"),
        ("collections.namedtuple", "not a class"),
        ("__main__.Class", "notebook"),
    ],
)
def test_what_cannot_be_found_is_said(class_path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_class(class_path, None)


def test_what_a_users_module_raises_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("import module_that_is_missing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing"):
        find_class("broken_module.Class", None)
