"""What `record:` will write an hour is said beforehand: by `every:`, arrays in return hints, past values."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ledgers import BEGAN, Source, make_ledger

from ether.cli.make.validate import validate
from ether.config import EtherConfig
from ether.config.loading import load_config
from ether.ledger.places import default_folder
from ether.runs.plan.class_lookup import SourceUnclear
from ether.runs.plan.estimate_rules import kept_bytes
from ether.runs.plan.record_rates import RecordRates, record_rates
from ether.runs.plan.source_marks import published_by

SOURCE = """
    raise SystemExit("nobody imports this")
    from typing import Annotated
    import numpy as np
    from ether import ether_every, ether_pub, ether_sub
    from ether.typing import ArraySpec

    HEIGHT, WIDTH = 512, 512
    DEPTH: int = 3

    class Camera:
        @ether_every("5Hz")
        @ether_pub(topic="camera/frame")
        def frame(self) -> Annotated[np.ndarray, ArraySpec("uint16", (HEIGHT, WIDTH))]: ...

        @ether_pub(every="2s")
        def colours(self) -> Annotated[np.ndarray, ArraySpec(dtype=np.float32, shape=(4, DEPTH))]: ...

        @ether_pub(topic="celsius", every="1s", save=True)
        def celsius(self) -> float: ...

        @ether_pub(topic="odd", every="1s")
        def odd(self) -> Annotated[np.ndarray, ArraySpec("uint16", (None, 3))]: ...

        @ether_sub(topic="go")
        @ether_pub
        def answer(self): ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a name that no other test imports."""
    name = f"rated_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    return name


def rates(text: str) -> RecordRates:
    Path("lab.yaml").write_text(textwrap.dedent(text))
    config: EtherConfig = load_config("lab.yaml")
    return record_rates(config, os.environ)


def by_topic(found: RecordRates) -> dict[str, Any]:
    return {rate.topic: (rate.per_s, rate.bytes) for rate in found.topics}


def test_what_the_source_of_a_class_says_without_importing_it(here: str) -> None:
    found = {said.method: said for said in published_by(f"{here}.Camera", [str(Path.cwd())])}
    assert (found["frame"].every, found["frame"].bytes, found["frame"].shape) == ("5Hz", 524_288.0, "uint16 512 × 512")
    assert (found["colours"].every, found["colours"].bytes) == ("2s", 48.0)
    assert (found["celsius"].topic, found["celsius"].save, found["celsius"].bytes) == ("celsius", True, 18.0)
    assert (found["odd"].every, found["odd"].bytes) == ("1s", None)
    assert (found["answer"].every, found["answer"].topic) == (None, "")
    assert here not in sys.modules
    with pytest.raises(SourceUnclear):
        published_by(f"{here}.Missing", [str(Path.cwd())])


def test_a_camera_an_hour(here: str) -> None:
    found = rates(f"{{session: {here}, record: all, instances: {{cam: {{class_path: {here}.Camera}}}}}}")
    assert by_topic(found) == {
        "camera/frame": (5.0, 524_288.0), "Camera.colours": (0.5, 48.0), "celsius": (1.0, 18.0), "odd": (1.0, None),
        "Camera.answer": (None, None),
    }  # fmt: skip
    assert [rate.topic for rate in found.unknown] == ["odd", "Camera.answer"]
    assert found.bytes_per_hour == pytest.approx(
        3600 * (5 * kept_bytes(524_288) + 0.5 * kept_bytes(48) + kept_bytes(18))
    )
    assert found.bytes_per_hour > 9.4e9
    assert not found.is_known


def test_only_what_is_recorded_counts(here: str) -> None:
    camera = f"instances: {{cam: {{class_path: {here}.Camera}}}}"
    assert set(by_topic(rates(f"{{record: [camera/#], {camera}}}"))) == {"camera/frame", "celsius"}
    assert set(by_topic(rates(f"{{{camera}}}"))) == {"celsius"}  # save=True
    assert by_topic(rates(f"{{record: all, {camera[:-2]}, autorun: false}}}}}}")) == {}


def test_the_configuration_of_a_method_counts_before_its_source(here: str) -> None:
    found = rates(f"""
        record: all
        instances: {{cam: {{class_path: {here}.Camera}}, far: {{class_path: nowhere.at.All}}}}
        registry:
          {here}.Camera:
            methods:
              frame: {{ether_pub: {{topic: slow, every: "*/5 * * * *"}}}}
    """)
    assert by_topic(found)["slow"] == (12 / 3600, 524_288.0)
    assert "camera/frame" not in by_topic(found)
    [line] = found.unseen
    assert line.startswith("far: there is no module 'nowhere'")


def test_what_is_not_known_is_as_it_was_recorded_last(here: str) -> None:
    source = Source("cam")
    for n in range(41):
        source.add("Camera.answer", "x" * 98, BEGAN + n / 4)
    make_ledger(default_folder(here, os.environ), [source], session=here)
    found = rates(f"{{session: {here}, record: all, instances: {{cam: {{class_path: {here}.Camera}}}}}}")
    assert by_topic(found)["Camera.answer"] == (pytest.approx(4.0), 100.0)
    assert [rate.based_on for rate in found.topics if rate.topic == "Camera.answer"] == [("as recorded last",)]
    assert [rate.topic for rate in found.unknown] == ["odd"]


def test_validate_says_so(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    rates(f"{{session: {here}, record: all, instances: {{cam: {{class_path: {here}.Camera}}}}}}")
    assert validate("lab.yaml", imports=False) == 0
    out = capsys.readouterr().out
    assert f"record to {default_folder(here, os.environ)} at least: 9.44 GB an hour, " in out
    assert ": full in " in out
    assert "  camera/frame of cam: 9.44 GB an hour (5 a second × 524 kB; every 5Hz, uint16 512 × 512)\n" in out
    assert "  Camera.answer of cam: how often and how large is not known\n" in out
