"""The demos on the page, in a real browser: one command shows moving plots and an image; each demo has its picture.

With ETHER_LONG=1 each of the four demos; ETHER_PICTURES=1 writes their pictures into docs/ anew.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from page_parts import ETHER, PageProgram, chromium, needs_browser
from patience import patience
from programs import Program, running

pytestmark = needs_browser

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHOTS = Path(__file__).resolve().parents[2] / "docs" / "pictures"
LONG = os.environ.get("ETHER_LONG") == "1"
REASON = "three more demos and their pages take a minute: ETHER_LONG=1"
SHOWN_S = 10.0 if LONG else 40.0
"""From the one command until plot and image move: the aim, and a bound where other tests share the machine."""
NEEDS = {"plate_reader": "pyvisa", "behavioural_task": "gymnasium"}
MOVES = """() => {
  const el = document.querySelector(".plot canvas"), seen = window.seen ||= new Set();
  if (!el) return false;
  const pixels = new Uint32Array(el.getContext("2d").getImageData(0, 0, el.width, el.height).data.buffer);
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 7) sum = (sum * 31 + pixels[i]) | 0;
  return seen.add(sum).size > 2;
}"""


def copied(tmp_path: Path, demo: str) -> Path:
    if demo in NEEDS and importlib.util.find_spec(NEEDS[demo]) is None:
        pytest.skip(f"{NEEDS[demo]} is not installed: pip install -e '.[ci]'")
    folder = tmp_path / demo
    shutil.copytree(EXAMPLES / demo, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextmanager
def opened(link: str) -> Iterator[Any]:
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1280, "height": 850})
        tab.set_default_timeout(1000 * patience(30))
        complaints: list[str] = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(link)
        yield tab
        assert not complaints


def see(tab: Any, view: str) -> None:
    tab.evaluate("place => { location.hash = place }", view)
    tab.locator(f"main.v-{view.partition('?')[0]}").wait_for()


def picture(tab: Any, name: str, settled_ms: int = 500) -> None:
    beyond = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert beyond <= 0, f"{name} is {beyond} px too wide"
    if os.environ.get("ETHER_PICTURES"):
        tab.wait_for_timeout(settled_ms)
        (SHOTS / f"{name}.png").write_bytes(tab.screenshot())


ONE_COMMAND = [
    pytest.param("image_models", "pipeline.yaml", "image", marks=pytest.mark.slow("a session and a browser")),
    pytest.param("behavioural_task", "lab.yaml", "samples", marks=pytest.mark.skipif(not LONG, reason=REASON)),
]


@pytest.mark.parametrize(("demo", "file", "field"), ONE_COMMAND)
def test_one_command_shows_moving_plots_and_an_image(
    demo: str, file: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ether run pipeline.yaml --start --view values`: the link that it prints is what it opens in a browser."""
    monkeypatch.setenv("BROWSER", "true")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder, began = copied(tmp_path, demo), time.monotonic()
    with running(folder, *ETHER, "run", file, "--start", "--view", "values") as program:
        program.wait_for("/open?token=")
        link = re.findall(r"http://\S+/open\?token=\S+", program.said())[0]
        assert link.endswith("#values")
        with opened(link) as tab:
            tab.wait_for_function(MOVES)
            tab.wait_for_function("() => Number(document.querySelector('.pic')?.dataset.frame) > 3")
            took = time.monotonic() - began
            tab.get_by_text(re.compile(f"· {field}")).first.wait_for()
            assert took < patience(SHOWN_S), f"it took {took:.1f} s until plot and image moved"
            picture(tab, f"demo-{demo.replace('_', '-')}-1280", 8000)
        program.interrupt()
        program.finish()


@contextmanager
def told(folder: Path, *words: str, begun: str) -> Iterator[tuple[Program, Any]]:
    """A demo's own program, and its page."""
    with running(folder, *words) as program:
        program.wait_for(begun, 60)
        page = PageProgram(folder, program.runtime, "")
        try:
            with opened(page.link) as tab:
                tab.get_by_text("Live", exact=True).wait_for()
                yield program, tab
        finally:
            page.close()
            program.interrupt()
            program.finish(90)


@pytest.mark.skipif(not LONG, reason=REASON)
def test_the_plate_reader_shows_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with told(copied(tmp_path, "plate_reader"), "run.py", begun="  A ") as (_, tab):
        see(tab, "runs")
        tab.get_by_role("heading", name="plate/1").wait_for()
        tab.get_by_text(re.compile("the median of [3-9] trials of this run")).wait_for()
        tab.get_by_text("simulated", exact=True).wait_for()
        tab.locator(".dot").nth(2).wait_for()  # against a condition in words: a place for each
        picture(tab, "demo-plate-reader-1280")


@pytest.mark.skipif(not LONG, reason=REASON)
def test_the_plant_shows_its_heater_and_its_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with told(copied(tmp_path, "plant_monitoring"), "run.py", begun="°C") as (program, tab):
        see(tab, "values?p=mqtt:plant/boiler1/temperature\x1eboiler1/watts&of=alarms")
        tab.wait_for_function(MOVES)
        program.wait_for("ALARM temperature high: unacknowledged", 60)
        tab.get_by_role("region", name="Newest value of alarms").get_by_text("temperature high").wait_for()
        tab.locator(".lgd", has_text="mqtt:plant/boiler1/temperature").wait_for()
        picture(tab, "demo-plant-monitoring-1280")
