"""Whatever dies, the page says so and comes back by itself; and nothing notices that the page died."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from page_parts import ETHER, PageProgram, chromium, needs_browser
from patience import patience
from programs import running

from ether import Ether

pytestmark = needs_browser

LAB = """
session: mortal
record: {topics: [temperature]}
instances:
  thermo: {class_path: page_lab.Thermometer}
"""


@contextmanager
def session(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The session in a program of its own, where this test's own programs find it."""
    (folder / "lab.yaml").write_text(LAB)
    shutil.copy(Path(__file__).parents[1] / "parts" / "page_lab.py", folder)
    command = [sys.executable, *ETHER, "run", "lab.yaml", "--json"]
    with open(folder / "lab.err", "a") as said:
        lab = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "ETHER_MDNS": "0"}, stdout=subprocess.PIPE, stderr=said, text=True
        )
    assert lab.stdout is not None
    try:
        for line in lab.stdout:
            if '"ready"' in line:
                break
        else:
            raise AssertionError((folder / "lab.err").read_text())
        yield lab
    finally:
        family = [lab.pid, *(child.pid for child in _children(lab.pid))]
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        lab.wait(patience(20))
        lab.stdout.close()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def watched(folder: Path) -> Iterator[tuple[PageProgram, Any]]:
    """The page, and a tab that shows it."""
    page = PageProgram(folder, Path(os.environ["XDG_RUNTIME_DIR"]), "mortal")
    try:
        with chromium() as browser:
            tab = browser.new_page(viewport={"width": 1280, "height": 850})
            tab.set_default_timeout(1000 * patience(30))
            tab.goto(page.link)
            tab.get_by_text("Live", exact=True).wait_for()
            yield page, tab
    finally:
        page.close()


@pytest.mark.slow("a session is killed and started again")
def test_the_page_comes_back_from_every_death(tmp_path: Path) -> None:
    with session(tmp_path) as lab, watched(tmp_path) as (page, tab):
        tab.get_by_text(re.compile("Nothing: 2 instances well")).wait_for()

        # The broker dies, and is started again by the program that leads the session, as soon as that can.
        os.kill(lab.pid, signal.SIGSTOP)
        for child in _children(lab.pid):
            with suppress(psutil.Error):  # one that has ended meanwhile
                if re.search("mosquitto|-m broker", " ".join(child.cmdline())):
                    child.kill()
        tab.get_by_role("alert").get_by_text(re.compile("No connection to the session")).wait_for()
        tab.get_by_text("No connection", exact=True).wait_for()
        os.kill(lab.pid, signal.SIGCONT)
        tab.get_by_text("Live", exact=True).wait_for()
        tab.get_by_text(re.compile("Nothing: 2 instances well")).wait_for()

        # The program that leads the session dies, and with it the broker. What was known stays, and says so.
        lab.kill()
        tab.get_by_role("alert").get_by_text(re.compile("No connection to the session")).wait_for()
        assert tab.locator("#card-thermo").count() == 1
        tab.get_by_text(re.compile("^was (ready|lost)")).first.wait_for()
        with session(tmp_path):
            tab.get_by_text("Live", exact=True).wait_for()
            tab.get_by_text(re.compile("Nothing: 2 instances well")).wait_for()

            # The page's own program dies: the lab goes on as if nothing had happened, and the browser says what is.
            with Ether() as own:
                own.tap(session="mortal", start=False)
                before = {each["name"]: each["pid"] for each in own.instances()}
                with own.subscribe("temperature") as values:
                    page.process.kill()
                    tab.get_by_text(re.compile("No connection to this page's program")).wait_for()
                    for _ in range(5):
                        values.get(patience(5))
                assert {each["name"]: each["pid"] for each in own.instances()} == before
                assert all(each["state"] == "ready" for each in own.instances())


def test_a_session_that_is_run_with_its_page_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "true")  # a browser that opens nothing
    (tmp_path / "lab.yaml").write_text(LAB)
    shutil.copy(Path(__file__).parents[1] / "parts" / "page_lab.py", tmp_path)
    with running(tmp_path, *ETHER, "run", "lab.yaml", "--page") as program:
        program.wait_for("/open?token=")
        program.interrupt()
        assert program.finish().code == 0
        program.assert_nothing_left()
