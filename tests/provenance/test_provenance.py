"""The context of an instance: complete, the same for the same facts, without secrets, and made quickly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ether.config import load_config
from ether.provenance.context import InstanceFacts, configuration_facts, make_context, plain, unsent
from ether.provenance.environment import environment, installed_packages
from ether.wire.codec import decode


class Camera:
    """A part whose second argument is a secret by its name."""

    def __init__(self, exposure: float = 1.0, access_token: str = "", **more: object) -> None: ...


def facts(**changes: Any) -> InstanceFacts:
    given = {"args": (0.5, "hush"), "kwargs": {"lab_key": "hush", "roi": (1, 2)}, **changes}
    return InstanceFacts("camera", "birth-1", 3, f"{__name__}.Camera", Camera, **given)


def told(context: Any) -> dict[str, Any]:
    value = decode(context.content, "application/json")
    assert isinstance(value, dict)
    return value


def test_a_context_says_who_of_what_where_and_with_what() -> None:
    about = told(make_context(facts(registry={"snap": [("ether_pub", {"topic": "frames"})]}), clock_offset_s=0.25))
    assert (about["instance"], about["birth"], about["epoch"]) == ("camera", "birth-1", 3)
    assert about["class"] == f"{__name__}.Camera"
    assert about["args"] == [0.5, "***"]
    assert about["kwargs"] == {"lab_key": "***", "roi": [1, 2]}
    assert about["registry"] == {"snap": [["ether_pub", {"topic": "frames"}]]}
    assert about["code"]["file"].endswith("test_provenance.py")
    assert about["machine"]["host"]
    assert about["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert about["clock_offset_s"] == 0.25


def test_the_same_facts_make_the_same_bytes_and_others_do_not() -> None:
    one = make_context(facts())
    assert make_context(facts()).sha256 == one.sha256 == hashlib.sha256(one.content).hexdigest()
    others = [facts(args=(0.6,)), facts(kwargs={"roi": (1, 3)}), facts(registry={"snap": []})]
    assert len({make_context(other).sha256 for other in others} | {one.sha256}) == 4


def test_a_context_refers_to_what_goes_with_it() -> None:
    context = make_context(facts())
    *before, last = context.entries(17.5)
    assert [entry.kind for entry in before] == ["artifact"] * len(before)
    assert (last.kind, last.id, last.time) == ("context", context.sha256, 17.5)
    kept = {entry.id: entry for entry in before}
    assert all(hashlib.sha256(entry.payload).hexdigest() == name for name, entry in kept.items())
    about = told(context)
    assert about["environment"]["sha256"] in kept
    assert set(about["code"]["files"].values()) <= kept.keys()


def test_what_several_contexts_refer_to_is_sent_once() -> None:
    sent: set[str] = set()
    first = [entry.kind for entry in unsent(make_context(facts()).entries(1.0), sent)]
    other = [entry.kind for entry in unsent(make_context(facts(args=(7,))).entries(2.0), sent)]
    assert first[-1] == "context"
    assert "artifact" in first
    assert other == ["context"]
    assert list(unsent(make_context(facts()).entries(3.0), sent)) == []


def test_a_configuration_is_kept_without_secrets(tmp_path: Path) -> None:
    text = (
        "broker: mqtt://lab:hush@host  # the bench\n"
        "instances:\n  camera: {class_path: lab.Camera, kwargs: {token: hush}}\n"
    )
    (tmp_path / "ether.yaml").write_text(text)
    config = load_config(tmp_path / "ether.yaml")
    found = configuration_facts(config.model_dump(mode="json"), text, "ether.yaml")
    merged, written = found.artifacts
    assert found.described == {"sha256": merged.sha256, "file": "ether.yaml", "yaml": written.sha256}
    assert b"hush" not in merged.content + written.content
    assert json.loads(merged.content)["instances"]["camera"]["kwargs"] == {"token": "***"}
    assert b"# the bench" in written.content
    assert told(make_context(facts(), configuration=found.described))["configuration"] == found.described


def test_the_environment_is_what_importlib_finds() -> None:
    import importlib.metadata

    found = installed_packages(sys.path)
    assert len(found) > 5
    for name in ("pytest", "pydantic", "paho-mqtt", "ether-medium"):
        assert found[name] == importlib.metadata.version(name)
    assert json.loads(environment().listed.content)["packages"] == found


def test_packages_whose_folder_does_not_say_their_version_are_asked(tmp_path: Path) -> None:
    (tmp_path / "Old_Part.egg-info").mkdir()
    (tmp_path / "Old_Part.egg-info" / "PKG-INFO").write_text("Name: Old_Part\nVersion: 1.2\n")
    (tmp_path / "a_b.c-2.0rc1.dist-info").mkdir()
    assert installed_packages([str(tmp_path), str(tmp_path / "gone")]) == {"old-part": "1.2", "a-b-c": "2.0rc1"}


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text for this")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ([1, (2.5, None)], [1, [2.5, None]]),
        (float("inf"), {"float": "inf"}),
        (b"ab", {"bytes": 2, "sha256": hashlib.sha256(b"ab").hexdigest()}),
        ({3: "x"}, {"3": "x"}),
        ({2, 1}, {"set": [1, 2]}),
        (Path, {"class": f"{Path.__module__}.Path"}),
        (1 + 2j, {"repr": "(1+2j)", "type": "builtins.complex"}),
    ],
)
def test_arguments_as_json(value: object, kept: object) -> None:
    assert plain(value) == kept
    json.dumps(plain(value), allow_nan=False)


def test_arguments_that_are_large_strange_or_endless_are_cut_and_marked() -> None:
    assert plain("x" * 20_000)["cut"] == "20,000 characters in all"
    assert plain(list(range(5000)))["cut"] == "5,000 in all"
    assert "Odd instance" in plain(Odd())["repr"]
    assert " at 0x" not in json.dumps(plain([object(), Odd(), lambda: 0]))
    endless: list[object] = []
    endless.append(endless)
    assert len(json.dumps(plain(endless))) < 1000


def test_an_array_is_its_digest() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[numpy]'")
    array = numpy.arange(6, dtype="float32").reshape(2, 3)
    assert plain(array) == {
        "array": "float32", "shape": [2, 3], "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }  # fmt: skip


def test_importing_ether_imports_none_of_it() -> None:
    rooms = ("ether.ledger", "ether.provenance", "ether.reading")
    code = f"import sys, ether; print([name for name in sys.modules if name.startswith({rooms!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
