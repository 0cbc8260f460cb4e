"""The documentation's examples run and print what they say."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import pytest
from ledgers import BEGAN, Source, make_ledger
from optional import library

from ether.ledger.places import default_folder

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if ">>> " in page.read_text()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page about reading back reads: the session `bench`, recorded."""
    np = pytest.importorskip("numpy", reason="numpy is not installed: pip install 'ether-medium[numpy]'")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    probe, camera = Source("probe"), Source("camera")
    for number in range(4):
        value = {"celsius": 20.5 + number / 2, "stage": {"x": number + 1, "y": 7}}
        note = {"note": "door opened"} if number == 3 else {}
        probe.add("room/temperature", value | note, BEGAN + number, more={"run": "warm-up"} if number < 2 else {})
    probe.add("room/door", "open", BEGAN + 3.5)
    for number in range(2):
        camera.add("camera/image", {"image": np.full((2, 3), number, "<u2")}, BEGAN + 4 + number)
    make_ledger(default_folder("bench", os.environ), [probe, camera])


LIBRARIES = {"to_pandas(": "pandas", "to_arrow(": "pyarrow"}
"""What an example calls, and the library of an extra that it needs."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("bench")
def test_examples(page: Path) -> None:
    text = page.read_text()
    for call, name in LIBRARIES.items():
        if call in text:
            library(name)
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    import re

    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
