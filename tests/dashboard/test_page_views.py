"""Every view of the page and what one does there, in a real browser, on a real lab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_parts import AXE, LAB, PageProgram, chromium, lab, needs_browser, page_of
from patience import patience
from programs import Program
from running_brokers import soon

from ether import Ether
from ether.api.plotting import view_of

pytestmark = needs_browser

VIEWS = ("overview", "values", "calls", "runs", "record", "logs", "lab")
DRAWN = """() => {
  const canvas = document.querySelector(".plot canvas");
  if (!canvas) return false;
  const seen = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(seen.buffer)).size > 3;
}"""
SHOTS = Path(__file__).parents[2] / "docs" / "pictures"
PROGRAM = """
import time
from ether import ether
ether.tap(session="views", start=False)
with ether.run("dose", compound="A", progress=False) as run:
    for trial in run.trials([{"dose": d} for d in (0.1, 1.0, 10.0)] * 2):
        with trial:
            trial.result = {"response": trial.condition["dose"] / 2}
with ether.run("dose", compound="B", progress=False) as run:
    trials = run.trials([{"dose": d} for d in (0.1, 0.3, 1.0, 3.0, 10.0)] * 20, order="random", seed=7)
    for number, trial in enumerate(trials):
        with trial:
            for _ in range(1 if number < 12 else 40):
                ether.wait_for("temperature")
            trial.result = {"response": trial.condition["dose"] / 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def program(folder: Path, folders_of_their_own: None) -> Iterator[Program]:
    with lab(folder, LAB, "views") as running:
        yield running


@pytest.fixture(scope="module")
def served(folder: Path, program: Program) -> Iterator[PageProgram]:
    with page_of(folder, program, "views") as page:
        yield page


@pytest.fixture(scope="module")
def shown(served: PageProgram) -> Iterator[Any]:
    """The page in a tab that stays open for the whole file. What the browser complains of is in `shown.complaints`."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 850}, accept_downloads=True)
        tab = context.new_page()
        tab.set_default_timeout(1000 * patience(15))
        tab.complaints = []
        tab.on("console", lambda said: said.type in ("error", "warning") and tab.complaints.append(said.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.goto(served.link)
        tab.get_by_text("Live", exact=True).wait_for()
        yield tab
        assert not tab.complaints


@pytest.fixture(scope="module")
def with_run(shown: Any, folder: Path, program: Program) -> Iterator[None]:
    """A run that is over, and one that goes on for as long as the tests."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(program.runtime), "ETHER_MDNS": "0"}
    with open(folder / "run.err", "w") as said:
        running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, stderr=said, stdout=said
        )
    try:
        see(shown, "runs")
        shown.get_by_role("heading", name="dose/2").wait_for(timeout=1000 * patience(40))
        yield
    finally:
        running.kill()
        running.wait()


def see(tab: Any, view: str) -> None:
    tab.evaluate("place => { location.hash = place }", view)
    tab.wait_for_function("view => document.querySelector(`main.v-${view}`)", arg=view.partition("?")[0])


def text(tab: Any, name: str) -> str:
    return str(tab.get_by_role("region", name=name, exact=True).inner_text())


def unplug(tab: Any, reason: str) -> None:
    """Pull the pH meter's plug, as the page would call it."""
    said = {"instance": "ph", "method": "unplug", "params": {"reason": reason}, "kind": "get"}
    answer = tab.evaluate("said => import('/static/js/store.js').then(store => store.act('call', said))", said)
    assert answer["ok"], answer


def picture(tab: Any, name: str) -> None:
    """With ETHER_PICTURES=1, a picture for docs/."""
    if os.environ.get("ETHER_PICTURES"):
        tab.wait_for_timeout(6000)
        SHOTS.mkdir(exist_ok=True)
        (SHOTS / f"{name}.png").write_bytes(tab.screenshot())


def test_the_first_screen_answers_three_questions(shown: Any) -> None:
    see(shown, "overview")
    shown.get_by_text("Nothing: 6 instances well").wait_for()
    shown.get_by_text(re.compile(r"All [\d,]+ on disk")).wait_for()
    assert "No run goes on" in text(shown, "How long will it take") or "done" in text(shown, "How long will it take")


def test_a_device_that_is_pulled_out_stands_first_and_leads_to_its_card(shown: Any, program: Program) -> None:
    see(shown, "overview")
    unplug(shown, "/dev/serial/by-id/usb-HI98 is not there (unplugged)")
    shown.get_by_text("1 of 6 need you").wait_for()
    wrong = text(shown, "What is wrong now")
    assert "offline" in wrong
    assert "/dev/serial/by-id/usb-HI98 is not there" in wrong
    assert shown.title().startswith("(1)")
    picture(shown, "faults-1280")
    shown.get_by_role("button", name="Show ph").click()
    shown.wait_for_function("() => document.activeElement.id === 'card-ph'")
    unplug(shown, "")
    shown.get_by_text("Nothing: 6 instances well").wait_for()


def test_the_graph_shows_rates_and_follows_one_instance(shown: Any) -> None:
    see(shown, "overview")
    shown.locator(".gsvg").get_by_text(re.compile(r"^[\d.]+ Hz$")).first.wait_for()
    node = shown.get_by_role("button", name=re.compile("^cam, "))
    node.press("Enter")
    shown.locator("g.node.marked").wait_for()
    assert "faded" in shown.get_by_role("button", name=re.compile("^thermo, ")).get_attribute("class")
    node.press("Enter")
    shown.locator("g.node.marked").wait_for(state="detached")


def test_a_card_says_what_an_instance_does(shown: Any) -> None:
    see(shown, "overview")
    card = shown.locator("#card-thermo")
    card.get_by_text(re.compile(r"[\d.]+ Hz")).wait_for()
    card.get_by_text(re.compile(r"\d+ %")).wait_for()
    card.get_by_text(re.compile(r"[\d.]+ MB")).wait_for()
    shown.get_by_role("button", name="Table").click()
    shown.get_by_role("region", name="Table of instances").wait_for()
    shown.get_by_role("button", name="Cards").click()


def test_numbers_are_plotted_paused_and_zoomed(shown: Any) -> None:
    see(shown, "values?of=position")
    shown.get_by_label("Plot temperature").wait_for()
    if not shown.get_by_label("Plot temperature").is_checked():
        shown.get_by_label("Plot temperature").check()
    shown.get_by_label("Plot position · y").check()
    shown.locator(".lgd").nth(1).wait_for()
    shown.wait_for_function(DRAWN)
    shown.get_by_role("button", name="Pause").click()
    shown.get_by_text("Held").wait_for()
    shown.get_by_role("button", name="Go live").click()
    box = shown.locator(".u-over").bounding_box()
    shown.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40)
    shown.mouse.down()
    shown.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 60, steps=4)
    shown.mouse.up()
    shown.get_by_text("recording goes on").wait_for()
    shown.get_by_role("button", name="Fit").click()
    shown.get_by_role("button", name="log", exact=True).click()
    assert shown.get_by_role("button", name="log", exact=True).get_attribute("aria-pressed") == "true"
    shown.get_by_role("button", name="log", exact=True).click()
    shown.get_by_text("not a number").wait_for()


def test_a_link_of_a_topic_plots_its_numbers(shown: Any) -> None:
    """As `ether.plot` opens the page in a script: it knows the topic, and not its numbers."""
    see(shown, view_of(("position", "temperature")))
    for name in ("position · x", "position · y", "temperature"):
        shown.locator(".lgd", has_text=name).wait_for()
    shown.wait_for_function(DRAWN)


def test_the_newest_image_is_drawn_and_scaled(shown: Any) -> None:
    see(shown, "values?of=image")
    shown.wait_for_function("() => Number(document.querySelector('.pic')?.dataset.frame) > 0")
    first = shown.evaluate("Number(document.querySelector('.pic').dataset.frame)")
    shown.wait_for_function("n => Number(document.querySelector('.pic').dataset.frame) > n + 3", arg=first)
    shown.get_by_text(re.compile(r"frames a second are drawn")).wait_for()
    shown.locator(".pic").hover()
    shown.get_by_text(re.compile(r"^row \d+, column \d+: [\d,]+$")).wait_for()
    shown.get_by_label("Colour map").select_option("inferno")
    shown.get_by_label(re.compile("^Zoom")).click()
    shown.get_by_label("scale to 1–99 % of the pixels").uncheck()
    shown.get_by_text("low", exact=True).wait_for()
    assert "map=inferno" in shown.url
    assert "zoom=2" in shown.url


def test_a_form_checks_calls_and_shows_the_answer(shown: Any) -> None:
    see(shown, "calls?of=stage&m=move")
    field = shown.locator("[id='f-stage.move.x']")
    field.fill("130")
    shown.get_by_text("at most 120 mm", exact=True).wait_for()
    shown.locator("#call[aria-disabled=true]").wait_for()
    field.fill("12.5")
    shown.get_by_text('ether.instance("stage").move(x=12.5)').wait_for()
    field.press("Control+Enter")
    shown.get_by_role("status").filter(has_text="Answer").get_by_text("12.5").wait_for()
    shown.locator("[id='f-stage.move.note']").fill("stuck")
    shown.locator("#call").click()
    answer = shown.get_by_role("status").filter(has_text="Error")
    answer.get_by_text(re.compile("RuntimeError: the stage is stuck at 12.5")).first.wait_for()
    answer.get_by_text("Traceback of the instance").click()
    answer.get_by_text(re.compile(r"page_lab\.py")).first.wait_for()
    shown.get_by_role("button", name="Again").nth(1).wait_for()
    see(shown, "calls?of=stage&m=keep")
    shown.locator("[id='f-stage.keep.name']").fill("A1")
    shown.locator("#call").click()
    shown.get_by_role("status").filter(has_text="Answer").get_by_text(re.compile('"kept": "A1"')).wait_for()


def test_a_run_grows_is_paused_and_goes_on(shown: Any, with_run: None) -> None:
    see(shown, "runs")
    shown.get_by_text(re.compile(r"the median of \d+ trials? of this run")).wait_for()
    shown.get_by_role("button", name="Pause after this trial").click()
    shown.get_by_role("button", name="Go on").wait_for()
    shown.get_by_role("alert").get_by_text(re.compile("paused: asked for by")).wait_for()
    shown.get_by_role("button", name="Go on").click()
    shown.get_by_role("button", name="Pause after this trial").wait_for()
    assert shown.locator(".dot").count() > 0
    shown.get_by_role("link", name="dose/1").click()
    shown.get_by_role("heading", name="dose/1").wait_for()
    shown.get_by_text("6 of 6").first.wait_for()


def test_a_value_is_explained_by_one_click(shown: Any) -> None:
    see(shown, "values?of=cells")
    shown.locator('[data-topic="cells"] .v').first.click()
    tree = shown.get_by_role("region", name="Where does it come from")
    tree.get_by_text("segment.py", exact=False).or_(tree.get_by_text(re.compile("by segment"))).first.wait_for()
    tree.get_by_text(re.compile(r"ether why [0-9a-f]{8}")).wait_for()


def test_the_proof_and_what_differed(shown: Any, with_run: None) -> None:
    see(shown, "record")
    shown.get_by_text(re.compile(r"[\d,]+ of [\d,]+ on disk, 0 gaps, 0 duplicates")).wait_for()
    shown.get_by_label("The run before").select_option("dose/1")
    shown.get_by_label("The run after").select_option("dose/2")
    shown.get_by_role("button", name="Compare").click()
    differed = shown.get_by_role("region", name="What differed")
    differed.get_by_text(re.compile("counts|compound|run")).nth(2).wait_for()
    with shown.expect_download() as loading:
        shown.get_by_role("link", name="Export CSV").click()
    assert Path(loading.value.path()).stat().st_size > 1000


def test_logs_are_filtered_searched_and_held(shown: Any, program: Program) -> None:
    see(shown, "calls?of=stage&m=move")
    shown.locator("[id='f-stage.move.x']").fill("1")
    shown.locator("[id='f-stage.move.note']").fill("stuck")
    shown.locator("#call").click()
    see(shown, "logs?level=ERROR")
    shown.locator(".ll.ERROR").first.wait_for()
    assert shown.locator(".ll.INFO").count() == 0
    shown.get_by_role("button", name="info").click()
    shown.get_by_label("Find in the log").fill("no such words at all")
    shown.get_by_text("No line fits.").wait_for()
    shown.get_by_label("Find in the log").fill("")
    shown.get_by_role("button", name="Hold").click()
    shown.get_by_role("button", name=re.compile("^Go on")).click()


def test_the_safe_state_is_asked_for_once_confirmed_and_recorded(shown: Any) -> None:
    see(shown, "lab")
    shown.get_by_role("button", name="Make the lab safe").click()
    dialog = shown.get_by_role("dialog")
    assert shown.evaluate("document.activeElement.textContent") == "Make safe now"
    shown.keyboard.press("Escape")
    assert dialog.count() == 0
    shown.keyboard.press("Shift+S")
    dialog.get_by_role("button", name="Make safe now").click()
    dialog.get_by_text("safe: halt()").wait_for()
    dialog.get_by_role("button", name="Close").last.click()
    shown.get_by_text(re.compile("stage holds it now")).wait_for()
    see(shown, "overview")
    shown.get_by_text("1 of 6 need you").wait_for()
    see(shown, "lab")
    shown.get_by_role("button", name="Let them serve again").click()
    shown.get_by_text(re.compile("stage holds it now")).wait_for(state="detached")
    shown.get_by_text("made the lab safe").first.wait_for()
    assert soon(lambda: bool(_noted()), 15)
    noted = _noted()
    assert noted[0]["by"]
    assert "127.0.0.1" in noted[0]["from"]


def _noted() -> list[Any]:
    return [found.value for found in Ether().data("views", "page") if found.value["action"] == "safe"]


def test_keys_go_everywhere(shown: Any) -> None:
    see(shown, "overview")
    shown.keyboard.press("6")
    shown.wait_for_function("() => document.querySelector('main.v-logs')")
    shown.keyboard.press("/")
    assert shown.evaluate("document.activeElement.getAttribute('aria-label')") == "Find in the log"
    shown.keyboard.press("Escape")
    shown.keyboard.press("Control+k")
    shown.get_by_label("Go to", exact=True).last.fill("temperature")
    shown.keyboard.press("Enter")
    shown.wait_for_function("() => document.querySelector('main.v-values')")
    shown.keyboard.press("?")
    shown.get_by_role("dialog", name="Keys").wait_for()
    shown.keyboard.press("Escape")
    theme = shown.evaluate("document.documentElement.dataset.theme")
    shown.keyboard.press("t")
    assert shown.evaluate("document.documentElement.dataset.theme") != theme
    shown.keyboard.press("t")


@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_nothing_overflows(shown: Any, with_run: None, width: int) -> None:
    shown.set_viewport_size({"width": width, "height": {360: 740, 1280: 850, 2560: 1440}[width]})
    try:
        for view in VIEWS:
            see(shown, view)
            shown.wait_for_function("() => !document.querySelector('main .empty')?.textContent.includes('Connecting')")
            beyond = shown.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert beyond <= 0, f"{view} is {beyond} px wider than {width}"
            if (width, view) in PICTURES:
                picture(shown, f"{view}-{width}")
    finally:
        shown.set_viewport_size({"width": 1280, "height": 850})


PICTURES = {(1280, "values"), (1280, "runs"), (1280, "record"), (360, "overview")}
"""Which pictures are kept in docs/: ETHER_PICTURES=1 writes them anew."""


@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is not installed: npm install --prefix .ci --no-save axe-core@4.14"
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(shown: Any, with_run: None, theme: str) -> None:
    script = AXE.read_text()
    shown.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    try:
        for view in VIEWS:
            see(shown, view)
            shown.evaluate(script)
            found = shown.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
            serious = [
                (
                    each["id"],
                    [(node["html"][:160], node["any"][:1] and node["any"][0]["message"]) for node in each["nodes"][:3]],
                )
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert not serious, f"{view} ({theme}): {serious}"
    finally:
        shown.evaluate("document.documentElement.dataset.theme = 'light'")


def test_a_run_is_stopped_after_a_confirmation(shown: Any, with_run: None) -> None:
    see(shown, "runs?run=dose/2")
    shown.get_by_role("button", name="Stop…").click()
    shown.get_by_role("dialog").get_by_role("button", name="Stop the run").click()
    shown.get_by_role("region", name="Run dose/2").get_by_text("interrupted").wait_for()
    shown.get_by_role("region", name="Run dose/2").get_by_text(re.compile("asked for by .* on the page")).wait_for()
