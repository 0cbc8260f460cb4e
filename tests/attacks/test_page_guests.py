"""Browsers that are not the owner's: from other machines by TLS and a code, and those that may only look, or look and
call."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from page_parts import PageProgram, ask, chromium, cookie_of, do, lab, needs_browser, page_of
from patience import patience
from programs import Program

from ether.dashboard.access import ACT, CALL, LOOK, NOTHING, Access, Browser, Refused
from ether.dashboard.watched_lab import WatchedLab
from ether.session.trust.lab import LabAuthority

if TYPE_CHECKING:
    from ether.dashboard.application import Page

pytestmark = needs_browser

GUESTS = """
session: guests
instances:
  stage: {{class_path: page_lab.Stage}}
registry:
  page_lab.Stage:
    safe_state: {{after: 60s, calls: [halt]}}
"""
NETWORK = "127.0.0.2"
"""Stands for an address of the network: another one than that which a page has by itself."""
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, folders_of_their_own: None) -> Iterator[Program]:
    with lab(tmp_path_factory.mktemp("guests"), GUESTS, "guests") as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, program: Program) -> Iterator[PageProgram]:
    with page_of(tmp_path_factory.mktemp("served"), program, "guests", "--listen", NETWORK) as served:
        made = LabAuthority.load(os.environ)
        assert made is not None
        served.tls = ssl.create_default_context(cadata=made.authority_pem.decode())
        yield served


@pytest.fixture(scope="module")
def cookie(page: PageProgram) -> str:
    return cookie_of(page)


def new(page: PageProgram, cookie: str, may: str = "act") -> Any:
    """A link and a code, as a browser that is in makes them."""
    answer = json.loads(do(page, cookie, "link", {"may": may}).body)
    assert answer["ok"], answer
    return answer


def pair(page: PageProgram, code: str, **changes: str) -> Any:
    headers = {**FORM, "Origin": page.base, **changes}
    return ask(page, "/pair", "POST", f"code={code}", **headers)


@pytest.mark.attack("W15", "a page in the network that is read on its way", "plain HTTP, TLS 1.2, another authority")
def test_a_page_in_the_network_speaks_tls_of_the_lab_alone(page: PageProgram, cookie: str) -> None:
    assert page.base.startswith(f"https://{NETWORK}:")
    assert ask(page, "/", Cookie=cookie).status == 200  # the authority's certificate is enough to trust it
    host, _, port = page.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=patience(10)) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {page.address}\r\n\r\n".encode())
        assert b"HTTP/1.1 200" not in plain.recv(4096)
    older = ssl.create_default_context(cadata=LabAuthority(dict(os.environ)).authority_pem.decode())
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (older, ssl.create_default_context()):
        with socket.create_connection((host, int(port)), timeout=patience(10)) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=host).close()


@pytest.mark.attack(
    "W16", "codes for browsers that are guessed, or sent by another page", "wrong, used, foreign Origin, by an address"
)
def test_a_code_opens_one_browser_and_the_first_wrong_one_ends_it(page: PageProgram, cookie: str) -> None:
    code = new(page, cookie)["code"]
    assert pair(page, code, Origin="https://evil.example").status == 403
    assert pair(page, code, Origin="null").status == 403
    assert "set-cookie" not in ask(page, f"/pair?code={code}").headers
    assert pair(page, "x" * 5000).status == 413
    assert pair(page, "nonsense").status == 400  # no guess: no code looks like that
    let_in = pair(page, code.lower().replace("-", " "))
    assert let_in.status == 303
    assert "secure" in let_in.headers["set-cookie"].lower()
    assert pair(page, code).status == 403, "it was used"
    code = new(page, cookie)["code"]
    assert pair(page, "2222-2222").status == 403
    assert pair(page, code).status == 403, "somebody has had a guess"
    assert ask(page, "/").status == 303  # to where a code is typed, and nothing is shown
    assert ask(page, "/static/js/app.js").status == 401


ACTIONS: dict[str, Any] = {
    "call": {"instance": "stage", "method": "halt", "params": None, "kind": "get"},
    "safe": {}, "serve": {}, "run": {"do": "stop", "program": "x"}, "link": {},
}  # fmt: skip


@pytest.mark.attack("W17", "a guest of the page that acts", "each action by a link that only looks, or looks and calls")
@pytest.mark.parametrize(("may", "allowed"), [("look", set()), ("call", {"call"})])
def test_a_browser_does_what_its_link_lets_it_and_no_more(
    page: PageProgram, cookie: str, may: str, allowed: set[str]
) -> None:
    guest = cookie_of(page, new(page, cookie, may)["path"])
    assert ask(page, "/", Cookie=guest).status == 200
    for action, said in ACTIONS.items():
        answer = do(page, guest, action, said)
        assert (answer.status == 200) == (action in allowed), (action, answer.body)
        if action not in allowed:
            assert b"may not do that" in answer.body
    assert json.loads(do(page, cookie, "link", {"may": "everything"}).body)["ok"] is False


async def _asked(page: Page, address: str, cookie: str, action: str) -> tuple[int, bytes]:
    """An action from another machine: the application itself, because every address here is of this machine."""
    said, sent = json.dumps(ACTIONS[action]).encode(), list[Any]()
    headers = {
        "host": "bench:1", "origin": "https://bench:1", "x-ether": "1", "content-type": "application/json",
        "cookie": cookie,
    }  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": f"/do/{action}", "raw_path": b"", "query_string": b"",
        "root_path": "", "scheme": "https", "client": (address, 9), "server": ("bench", 1), "http_version": "1.1",
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": said, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await page.application(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


GUEST_RIGHTS = [
    ("", ACT), ("all", ACT), ("call", CALL), ("read", LOOK), ("none", NOTHING), ("what is that", NOTHING),
    (None, NOTHING),  # nobody who leads the session was heard yet
]  # fmt: skip


@pytest.mark.attack(
    "W18", "a browser of another machine that may do more than a device", "each `security.guests`, and one of no sense"
)
@pytest.mark.parametrize(("guests", "may"), GUEST_RIGHTS)
def test_a_browser_of_another_machine_is_a_guest_of_the_session(guests: str | None, may: str) -> None:
    from ether.dashboard.application import Page  # late: the file is collected where its libraries are missing, too

    access = Access(frozenset({"bench:1", "192.168.1.5:1"}), scheme="https", guests=lambda: guests)
    page = Page(WatchedLab(), access, takes_codes=True)
    secret = access.open(access.new_link(), "192.168.1.77")
    for action in ("call", "safe", "link"):
        status, body = asyncio.run(_asked(page, "192.168.1.77", f"{access.cookie}={secret}", action))
        needed = CALL if action == "call" else ACT
        order = (NOTHING, LOOK, CALL, ACT)
        assert (status == 200) == (order.index(may) >= order.index(needed)), (action, body)
    for own in ("127.0.0.1", "::1", "192.168.1.5"):
        assert access.rights(Browser("of this machine", own)).may == ACT
    if may == NOTHING:
        with pytest.raises(Refused, match="lets no guests in"):
            access.browser(secret)


def test_a_phone_pairs_by_a_code_and_has_buttons_for_what_it_may(page: PageProgram, cookie: str) -> None:
    code = new(page, cookie, "look")["code"]
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 360, "height": 740}, ignore_https_errors=True)
        tab = context.new_page()
        tab.set_default_timeout(1000 * patience(15))
        tab.goto(page.base)
        tab.get_by_label("Code").fill(code)
        _picture(tab, "pair-360")
        tab.get_by_role("button", name="Pair").click()
        tab.locator(".btn.safe[title*='the link']").first.wait_for()
        tab.keyboard.press("Shift+S")
        tab.get_by_text("Nobody was asked: this browser may not do that: the link").wait_for()
        assert tab.get_by_role("dialog").count() == 0
        tab.evaluate("location.hash = 'calls?of=stage&m=halt'")
        tab.locator("#call[aria-disabled=true]").wait_for()
        tab.get_by_text("Not now: this browser may not do that").wait_for()
        _picture(tab, "guest-360")
        tab.evaluate("location.hash = 'lab'")
        assert tab.get_by_role("button", name="Link for another browser").is_disabled()
        tab.locator("#say:not(.on)").wait_for(state="attached")
        beyond = tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0
        # A browser that may has the same buttons to press.
        other = browser.new_context(ignore_https_errors=True).new_page()
        other.set_default_timeout(1000 * patience(15))
        other.goto(page.base + new(page, cookie, "act")["path"])
        other.get_by_text("Live", exact=True).wait_for()
        other.locator(".btn.safe:not([aria-disabled=true])").first.wait_for()


def _picture(tab: Any, name: str) -> None:
    if folder := os.environ.get("ETHER_PICTURES_TO"):
        tab.screenshot(path=Path(folder) / f"{name}.png")
