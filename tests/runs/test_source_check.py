"""What is certain from source files alone is found before anything runs, and nothing else is said (H11, I9)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ether.config import EtherConfig, load_config
from ether.runs.plan.call_rules import PlanFault
from ether.runs.plan.class_lookup import SourceMissing, SourceUnclear, class_source
from ether.runs.plan.source_check import instance_faults, located, registry_faults

PARTS = """
raise RuntimeError("nothing is imported")

import dataclasses
from functools import wraps
from somewhere import Library, make


class Cam:
    def __init__(self, port, exposure: float = 0.1, *, gain=1): ...
    def snap(self): ...
    async def later(self): ...
    title = "x"


class Zoom(Cam):
    def zoom(self): ...


class Bare: ...


class Any:
    def __init__(self, *args, **kwargs): ...


class OfLibrary(Library):
    def __init__(self): ...


@dataclasses.dataclass
class Data:
    port: str


class Meta(metaclass=type):
    def __init__(self): ...


class New:
    def __new__(cls, *args): ...
    def __init__(self): ...


class Outer:
    class Inner:
        def __init__(self, port): ...


Made = make()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "source_parts.py").write_text(PARTS)
    (tmp_path / "reexport.py").write_text("from source_parts import Cam, Cam as Camera\n")
    (tmp_path / "own.py").write_text("class DataGenerator: ...\n\n\nclass Other: ...\n")
    (tmp_path / "starry.py").write_text("from source_parts import *\n")
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "camera.py").write_text("class Camera: ...\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "stage.py").write_text("class Stage: ...\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(folder: Path, text: str) -> EtherConfig:
    (folder / "lab.yaml").write_text(text)
    return load_config(folder / "lab.yaml")


def fault(folder: Path, what: str) -> PlanFault | None:
    return instance_faults(config(folder, f"instances:\n  one: {{{what}}}\n"), None).get("one")


@pytest.mark.parametrize(
    "what",
    [
        "class_path: source_parts.Cam, args: [COM1]",
        "class_path: source_parts.Cam, kwargs: {port: COM1, gain: 2, ether_name: one}",
        "class_path: reexport.Camera, args: [COM1, 2.0]",
        "class_path: source_parts.Zoom, args: [COM1]",
        "class_path: source_parts.Bare", "class_path: source_parts.Any, args: [1], kwargs: {x: 1}",
        "class_path: source_parts.OfLibrary, args: [1]", "class_path: source_parts.Data, kwargs: {wrong: 1}",
        "class_path: source_parts.Meta, args: [1]", "class_path: source_parts.New, args: [1]",
        "class_path: source_parts.Made, args: [1]", "class_path: starry.Anything", "class_path: source_parts.Library",
        "class_path: pack.stage.Stage", "class_path: json.JSONDecoder", "class_path: no.where.X, host: pi",
        "class_path: source_parts.Outer.Inner, args: [1]", "class_path: no.where.X, autorun: false",
        "class_path: decimal.Decimal",
    ],
)  # fmt: skip
def test_what_is_right_or_unclear_is_no_fault(folder: Path, what: str) -> None:
    assert fault(folder, what) is None


@pytest.mark.parametrize(
    ("what", "path", "said"),
    [
        ("class_path: source_parts.Cma", "instances.one.class_path", "has no class 'Cma'. Did you mean 'Cam'?"),
        ("class_path: reexport.Cma", "instances.one.class_path", "Did you mean 'Cam'?"),
        ("class_path: source_prats.Cam", "instances.one.class_path",
         "no module 'source_prats' on the import path. Did you mean 'source_parts.Cam'?"),
        ("class_path: camera.Camera", "instances.one.class_path",
         "no module 'camera' on the import path. It is in drivers: write drivers.camera.Camera."),
        ("class_path: pack.stge.Stage", "instances.one.class_path", "has no 'stge'. Did you mean 'stage'?"),
        ("class_path: source_parts.Cam", "instances.one",
         "missing a required argument: 'port'; expected Cam(port, exposure: float = 0.1, *, gain=1)."),
        ("class_path: source_parts.Cam, kwargs: {port: a, exposre: 2}", "instances.one.kwargs.exposre",
         "Did you mean 'exposure'?"),
        ("class_path: source_parts.Zoom, kwargs: {prt: a}", "instances.one.kwargs.prt", "Did you mean 'port'?"),
        ("class_path: source_parts.Bare, args: [1]", "instances.one",
         "too many positional arguments; expected Bare()."),
        ("class_path: source_parts.Outer.Inner", "instances.one", "'port'"),
    ],
)  # fmt: skip
def test_what_is_certainly_wrong(folder: Path, what: str, path: str, said: str) -> None:
    found = fault(folder, what)
    assert found is not None
    assert (found.path, said in found.text) == (path, True), found.text
    told = str(located(found, load_config(folder / "lab.yaml")))
    assert told.startswith(f"lab.yaml:2: {path}: found ")


def test_the_class_of_the_script_is_not_judged(folder: Path) -> None:
    asked = config(folder, "instances:\n  one: {class_path: source_parts.Cma}\n")
    assert instance_faults(asked, str(folder / "source_parts.py")) == {}


def test_a_class_statement_is_followed_to_its_definition(folder: Path) -> None:
    source = class_source("reexport.Camera")
    assert source.paths == ("reexport.Camera", "source_parts.Cam")
    with pytest.raises(SourceMissing):
        class_source("reexport.Cma")
    with pytest.raises(SourceUnclear):
        class_source("starry.Anything")


# -- I9: entries of the registry

INSTANCES = "instances:\n  one: {class_path: own.DataGenerator}\n  two: {class_path: source_parts.Zoom, args: [1]}\n"


def entry(folder: Path, path: str, method: str = "snap") -> tuple[list[PlanFault], list[str]]:
    return registry_faults(
        config(folder, f"{INSTANCES}registry:\n  {path}:\n    methods: {{{method}: {{ether_get: {{}}}}}}\n")
    )


@pytest.mark.parametrize(
    ("path", "method"),
    [("source_parts.Zoom", "zoom"), ("source_parts.Cam", "snap"), ("source_parts.Cam", "later"),
     ("source_parts.Zoom", "snap"), ("source_parts.Any", "__init__"), ("source_parts.OfLibrary", "anything"),
     ("source_parts.Library", "anything")],
)  # fmt: skip
def test_entries_that_fit_or_may_fit(folder: Path, path: str, method: str) -> None:
    assert entry(folder, path, method) == ([], [])


def test_i9_an_entry_whose_module_is_not_here_is_a_warning_with_the_nearest_class(folder: Path) -> None:
    faults, warnings = entry(folder, "examples.external_class_integration.DataGenerator")
    assert faults == []
    assert warnings == [
        "registry: the entry examples.external_class_integration.DataGenerator has no effect: no instance is of that"
        " class. Did you mean 'own.DataGenerator'?"
    ]


def test_i9_a_shared_registry_is_one_line(folder: Path) -> None:
    entries = "".join(f"  other_lab.part{n}.Stage{n}: {{}}\n" for n in range(12))
    faults, (warning,) = registry_faults(config(folder, f"{INSTANCES}registry:\n{entries}"))
    assert faults == []
    assert warning.endswith("other_lab.part0.Stage0, other_lab.part1.Stage1, other_lab.part2.Stage2 and 9 more")


def test_i9_an_entry_whose_class_or_method_is_not_in_its_module_is_an_error(folder: Path) -> None:
    ((missing,), warnings) = entry(folder, "own.DataGenerater")
    assert warnings == []
    assert missing.path == "registry.own.DataGenerater"
    assert "has no class 'DataGenerater'. Did you mean 'own.DataGenerator'?" in missing.text
    ((method,), _) = entry(folder, "source_parts.Zoom", "snp")
    assert method.path == "registry.source_parts.Zoom.methods.snp"
    assert method.text.endswith("has: later, snap, title, zoom. Did you mean 'snap'?")
    assert str(located(method, load_config(folder / "lab.yaml"))).startswith("lab.yaml:6: registry.")


def test_an_entry_of_the_right_name_in_the_wrong_module_of_this_folder(folder: Path) -> None:
    (folder / "copy_of_own.py").write_text("class DataGenerator: ...\n    \n")
    faults, warnings = registry_faults(config(folder, f"{INSTANCES}registry:\n  copy_of_own.DataGenerator: {{}}\n"))
    assert faults == []
    assert [warning.endswith("Did you mean 'own.DataGenerator'?") for warning in warnings] == [True]
