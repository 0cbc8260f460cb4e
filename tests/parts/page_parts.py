"""A small lab for the tests of the page, its page as a process, and a browser; the tests of a file share them."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from patience import patience
from programs import Program, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / ".ci" / "node_modules" / "axe-core" / "axe.min.js"
ETHER = ("-m", "ether.cli.main")

LAB = """
session: {session}
record: {{topics: [temperature, position, cells]}}
instances:
  thermo: {{class_path: page_lab.Thermometer}}
  stage: {{class_path: page_lab.Stage}}
  cam: {{class_path: page_lab.Camera}}
  segment: {{class_path: page_lab.Segmenter}}
  ph: {{class_path: page_lab.Probe}}
registry:
  page_lab.Stage:
    methods: {{move: {{ether_get: {{}}, arguments: {{x: {{limits: [0, 120], unit: mm}}}}}}}}
    safe_state: {{after: 5s, calls: [halt]}}
"""


def missing() -> str:
    """Why a browser cannot be driven here; empty where it can."""
    for name in ("playwright", "starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install -e '.[ci]'"
    return "" if CHROMIUM else "Chromium is not installed: apt install chromium"


needs_browser = pytest.mark.skipif(bool(missing()), reason=missing())


@contextmanager
def lab(folder: Path, text: str, session: str) -> Iterator[Program]:
    """A session in the foreground of its own program."""
    (folder / "lab.yaml").write_text(text.format(session=session))
    shutil.copy(Path(__file__).with_name("page_lab.py"), folder)
    with running(folder, *ETHER, "run", "lab.yaml", "--json") as program:
        program.wait_for('"ready"', 60)
        yield program
        program.interrupt()
        program.finish()


class PageProgram:
    """`ether dashboard` as a process."""

    def __init__(self, folder: Path, runtime: Path, session: str, *more: str) -> None:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "ETHER_MDNS": "0"}
        named = [session] if session else []  # else the one that runs
        command = [sys.executable, *ETHER, "dashboard", *named, "--json", *more]
        with open(folder / "page.err", "a") as said:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=said
            )
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        assert told, f"the page did not start:\n{(folder / 'page.err').read_text()}"
        self.told: dict[str, str] = json.loads(told)
        self.link = str(self.told["link"])
        self.base = self.link.partition("/open")[0]
        self.address = self.base.partition("//")[2]
        self.tls: ssl.SSLContext | None = None
        """How its certificate is checked, where it speaks TLS."""

    def close(self) -> None:
        """End it in order."""
        self.process.terminate()
        try:
            self.process.wait(patience(20))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def page_of(folder: Path, program: Program, session: str, *more: str) -> Iterator[PageProgram]:
    """The page of a session that a program leads."""
    page = PageProgram(folder, program.runtime, session, *more)
    try:
        yield page
    finally:
        page.close()


class Answer:
    """What the page has said."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


def ask(page: PageProgram, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
    """One request, as whatever speaks HTTP sends it; underscores in the names of headers are hyphens."""
    connection: http.client.HTTPConnection = http.client.HTTPConnection(page.address, timeout=patience(20))
    if page.base.startswith("https:"):
        connection = http.client.HTTPSConnection(page.address, timeout=patience(20), context=page.tls)
    try:
        connection.putrequest(method, path, skip_host=True)
        sent = {"Host": page.address, **{key.replace("_", "-"): value for key, value in headers.items()}}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        for key, value in sent.items():
            connection.putheader(key, value)
        connection.endheaders(None if body is None else body.encode())
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def do(page: PageProgram, cookie: str, action: str = "call", said: Any = None, **changes: str | None) -> Answer:
    """An action as the page sends it, with some headers changed, or left out by None."""
    headers = {
        "Cookie": cookie, "Origin": page.base, "X_Ether": "1", "Content_Type": "application/json", **changes
    }  # fmt: skip
    kept = {key: value for key, value in headers.items() if value is not None}
    told = {"instance": "stage", "method": "halt", "params": None, "kind": "get"} if said is None else said
    return ask(page, f"/do/{action}", "POST", json.dumps(told), **kept)


def cookie_of(page: PageProgram, link: str = "") -> str:
    """Open a link, the page's own one by default; returns what a browser sends from then on."""
    answer = ask(page, (link or page.link).removeprefix(page.base))
    assert answer.status == 303, answer.body
    said = answer.headers["set-cookie"]
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in said.split(";")}
    return str(said.partition(";")[0])


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
