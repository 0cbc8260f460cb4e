"""Attacks on the page: from another site, by another name, with an old link, markup, a path, by not reading."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_parts import PageProgram, ask, chromium, cookie_of, do, lab, needs_browser, page_of
from patience import patience
from programs import Program

pytestmark = needs_browser

HOSTILE = """
session: {session}
instances:
  stage: {{class_path: page_lab.Stage}}
  wild: {{class_path: page_lab.Wild}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def program(folder: Path, folders_of_their_own: None) -> Iterator[Program]:
    with lab(folder, HOSTILE, "attacked") as running:
        yield running


@pytest.fixture(scope="module")
def page(folder: Path, program: Program) -> Iterator[PageProgram]:
    with page_of(folder, program, "attacked") as served:
        yield served


@pytest.fixture(scope="module")
def cookie(page: PageProgram) -> str:
    return cookie_of(page)


def test_the_page_itself_is_served_and_calls(page: PageProgram, cookie: str) -> None:
    """Without this, nothing below would prove anything."""
    assert ask(page, "/", Cookie=cookie).status == 200
    assert json.loads(do(page, cookie).body)["value"] == "halted"


@pytest.mark.attack("W1", "the page without its link", "page, script, question and export without the cookie")
@pytest.mark.parametrize("path", ["/", "/static/js/app.js", "/read/methods?instance=stage", "/read/export?form=csv"])
def test_without_a_cookie_nothing_is_shown(page: PageProgram, path: str) -> None:
    assert ask(page, path).status == 401
    assert ask(page, path, Cookie="ether=guessed").status == 401


@pytest.mark.attack(
    "W2",
    "a request of another site",
    "foreign, null or no Origin, forms' content types, no header of the page's own, no cookie",
)
@pytest.mark.parametrize(
    "changes",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": None}, {"X_Ether": None},
        {"Content_Type": "text/plain"}, {"Content_Type": "application/x-www-form-urlencoded"}, {"Cookie": ""},
    ],
)  # fmt: skip
def test_a_request_of_another_site_does_nothing(page: PageProgram, cookie: str, changes: dict[str, str | None]) -> None:
    for action in ("call", "safe", "serve", "run", "link"):
        answer = do(page, cookie, action, **changes)
        assert answer.status in (401, 403, 415)
        assert json.loads(answer.body)["ok"] is False


@pytest.mark.attack("W3", "an action by an address", "GET on what acts")
def test_an_action_is_never_a_mere_address(page: PageProgram, cookie: str) -> None:
    assert ask(page, "/do/safe", Cookie=cookie).status == 405


@pytest.mark.attack("W4", "DNS rebinding", "other names in Host")
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "localhost.evil.example", "169.254.169.254"])
def test_a_name_that_was_bound_to_this_machine_opens_nothing(page: PageProgram, cookie: str, host: str) -> None:
    for path in ("/", "/static/js/app.js", "/read/methods?instance=stage", "/open?token=x"):
        assert ask(page, path, Cookie=cookie, Host=host).status in (400, 421)
    assert do(page, cookie, Host=host, Origin=f"http://{host}").status in (400, 421)


@pytest.mark.attack("W5", "an old link", "used twice")
def test_a_link_is_worth_nothing_after_its_use(page: PageProgram, cookie: str) -> None:
    answer = ask(page, page.link.removeprefix(page.base))
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    for token in ("", "x" * 32, "%00", "a" * 10_000):
        assert ask(page, f"/open?token={token}").status in (400, 403, 414)


def _handshake(page: PageProgram, headers: dict[str, str]) -> str:
    """What the page answers to the opening of a WebSocket."""
    host, _, port = page.address.partition(":")
    sent = {
        "Host": page.address, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers,
    }  # fmt: skip
    with socket.create_connection((host, int(port)), timeout=patience(10)) as wire:
        lines = "".join(f"{key}: {value}\r\n" for key, value in sent.items())
        wire.sendall(f"GET /feed HTTP/1.1\r\n{lines}\r\n".encode())
        return wire.recv(4096).decode(errors="replace")


@pytest.mark.attack("W6", "a WebSocket of another page", "foreign Origin or Host, no Origin, no cookie")
def test_a_websocket_of_another_page_is_refused(page: PageProgram, cookie: str) -> None:
    assert _handshake(page, {"Cookie": cookie, "Origin": page.base}).startswith("HTTP/1.1 101")
    for headers in (
        {"Cookie": cookie, "Origin": "http://evil.example"}, {"Cookie": cookie}, {"Origin": page.base},
        {"Cookie": cookie, "Origin": "http://evil.example", "Host": "evil.example"},
    ):  # fmt: skip
        assert _handshake(page, headers).startswith("HTTP/1.1 403")


PATHS = (
    "../access.py", "..%2faccess.py", "%2e%2e/%2e%2e/access.py", "js/../../access.py", "/etc/passwd", "%2fetc%2fpasswd",
    "..\\access.py", "js/app.js%00.css", "js//app.js", ".",
)  # fmt: skip


@pytest.mark.attack("W7", "paths out of the page's folder", "`..`, encoded, absolute, with NUL")
@pytest.mark.parametrize("path", PATHS)
def test_no_path_leaves_the_pages_own_files(page: PageProgram, cookie: str, path: str) -> None:
    answer = ask(page, f"/static/{path}", Cookie=cookie)
    assert answer.status in (400, 404)
    assert b"root:" not in answer.body
    assert b"class Access" not in answer.body


@pytest.mark.attack("W8", "a question that is an option", "`--help`, `--ledger=/etc`, `$(id)`, a path")
@pytest.mark.parametrize("what", ["--help", "--ledger=/etc", "$(id)", "../../etc/passwd"])
def test_a_question_is_never_an_option_or_a_command(page: PageProgram, cookie: str, what: str) -> None:
    answer = ask(page, f"/read/why?what={urllib.parse.quote(what)}", Cookie=cookie)
    assert answer.status == 404
    assert b"uid=" not in answer.body
    assert "error" in json.loads(answer.body)


@pytest.mark.attack("W9", "an export of another form", "unknown forms, options, paths")
@pytest.mark.parametrize("form", ["exe", "../csv", "csv --to=/tmp/x"])
def test_an_export_has_a_form_that_is_known(page: PageProgram, cookie: str, form: str) -> None:
    assert ask(page, f"/read/export?form={urllib.parse.quote(form)}", Cookie=cookie).status == 404


@pytest.mark.attack("W10", "bodies that make no sense", "depth, length, other types")
@pytest.mark.parametrize("body", ["", "nonsense", "[]", "[" * 100_000, '{"a":' * 50_000, "x" * 1_500_000])
def test_an_action_that_is_no_action_is_answered(page: PageProgram, cookie: str, body: str) -> None:
    headers = {"Cookie": cookie, "Origin": page.base, "X_Ether": "1", "Content_Type": "application/json"}
    try:
        answer = ask(page, "/do/call", "POST", body, **headers)
    except (BrokenPipeError, ConnectionResetError):
        return  # it did not even read all of it
    assert answer.status in (200, 400, 413)
    assert json.loads(answer.body)["ok"] is False


@pytest.mark.attack("W11", "scripts from elsewhere", "the page's content security policy")
def test_nothing_may_be_loaded_from_elsewhere(page: PageProgram, cookie: str) -> None:
    for path in ("/", "/static/js/app.js", "/nothing", "/open?token=x"):
        headers = ask(page, path, Cookie=cookie).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


VIEWS = (
    "overview", "overview?as=table", "values", "values?of=said", "calls?of=wild", "logs", "lab", "logs?q=%3Cimg",
    "record?why=%3Cimg%20src%3Dx%20onerror%3D%22window.marked%3D'yes'%22%3E",
)  # fmt: skip


@pytest.mark.attack(
    "W12",
    "markup in names and values",
    "in a docstring, an answer, an error, a log line, a topic, a text, a field's name",
)
def test_markup_is_shown_and_never_read(page: PageProgram, cookie: str, program: Program) -> None:
    """In a docstring, an answer, an error, a log line, a topic, a text, and the name of a field."""
    from page_lab import MARKUP

    from ether import Ether

    link = page.base + str(json.loads(do(page, cookie, "link", {}).body)["path"])
    with pytest.MonkeyPatch.context() as environment, chromium() as browser, Ether() as own:
        environment.setenv("XDG_RUNTIME_DIR", str(program.runtime))
        tab = browser.new_context().new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.set_default_timeout(1000 * patience(15))
        tab.goto(link)
        tab.get_by_text("Live", exact=True).wait_for()
        own.tap(session="attacked", start=False)
        own.pub({MARKUP: MARKUP, "number": 1}, f"plates/{MARKUP.replace('/', '|')}")
        own.pub(MARKUP, "said")
        own.get("wild", "shout", {"what": MARKUP})
        with pytest.raises(RuntimeError):
            own.get("stage", "move", {"x": 1, "note": "stuck"})
        for view in VIEWS:
            tab.evaluate("place => { location.hash = place }", view)
            tab.locator(f"main.v-{view.partition('?')[0]}").wait_for()
            tab.wait_for_timeout(300)
            assert tab.evaluate("window.marked") is None
            assert tab.locator("img[src='x'], main script").count() == 0
        tab.evaluate("location.hash = 'logs?level=ERROR'")
        tab.get_by_text("<script>", exact=False).first.wait_for()
        assert all(url.startswith((page.base, page.base.replace("http", "ws"))) for url in asked)


@pytest.mark.attack("W13", "floods to the page", "10,000 keys, 500 topics, a large array, numbers that are none")
def test_whatever_is_published_is_bounded_and_said(page: PageProgram, cookie: str, program: Program) -> None:
    """Ten thousand keys, a large array, five hundred topics, numbers that are none."""
    import numpy as np

    from ether import Ether

    link = page.base + str(json.loads(do(page, cookie, "link", {}).body)["path"])
    with pytest.MonkeyPatch.context() as environment, chromium() as browser, Ether() as own:
        environment.setenv("XDG_RUNTIME_DIR", str(program.runtime))
        own.tap(session="attacked", start=False)
        tab = browser.new_context().new_page()
        tab.set_default_timeout(1000 * patience(20))
        tab.goto(link)
        tab.get_by_text("Live", exact=True).wait_for()
        tab.evaluate("location.hash = 'values?of=wide'")
        own.pub({f"key {number}": number for number in range(10_000)}, "wide")
        own.pub(np.zeros((4000, 4000), np.uint16), "large")
        own.pub([float("nan"), float("inf"), -float("inf")], "odd")
        for number in range(500):
            own.pub(number, f"many/{number}")
        tab.get_by_text("200 of 10,000 entries are shown.").wait_for()
        tab.get_by_placeholder(re.compile(r"Find among 50\d topics")).wait_for()
        tab.get_by_label("Find topics").fill("odd")
        tab.get_by_text("-inf", exact=True).wait_for()
        tab.evaluate("location.hash = 'values?of=large'")
        tab.wait_for_function("() => Number(document.querySelector('.pic')?.dataset.frame) === 1")
        tab.get_by_text(re.compile(r"every \d+th pixel")).wait_for()
    assert json.loads(do(page, cookie).body)["ok"]


@pytest.mark.attack("W14", "a browser that reads nothing", "a WebSocket that is never read")
def test_a_browser_that_reads_nothing_slows_nobody(page: PageProgram, cookie: str) -> None:
    """Its socket fills up; another one goes on being told, and the lab is called as before."""
    import websockets

    headers = {"Cookie": cookie, "Origin": page.base}
    address = page.base.replace("http", "ws") + "/feed"

    async def told() -> int:
        async with websockets.connect(address, additional_headers=headers, max_queue=1) as silent:
            silent.transport.pause_reading()  # type: ignore[attr-defined]
            async with websockets.connect(address, additional_headers=headers, max_size=None) as reader:
                messages = 0
                async with asyncio.timeout(patience(20)):
                    while messages < 20:
                        await reader.recv()
                        messages += 1
                silent.transport.abort()  # type: ignore[attr-defined]
                return messages

    assert asyncio.run(told()) == 20
    assert json.loads(do(page, cookie).body)["ok"]
