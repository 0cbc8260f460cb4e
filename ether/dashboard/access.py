"""Who may look, call and act: one-time links and codes, the cookie that they become, and the checks of every request.

Promises: a link opens one browser, once; so does a code, and the first wrong one ends all codes. A request with another
Host than the page's own is refused (DNS rebinding), and so is one whose Origin is another page. What acts needs the
cookie, a header that no form and no foreign page can send, and the right to that action. Secrets are compared in
constant time, are never logged, and live as long as this process.

A browser of this machine is its owner's. One of another machine is a guest of the session: it may do at most what
`security.guests` says of devices that no `host:` names, where the session has rights.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ether.errors import ConfigError
from ether.security.pairing_code import new_code, read_token_or_code

ACTION_HEADER = "x-ether"
LINK_LASTS_S = 600.0
"""A link that nobody has opened by then opens nothing."""
_MOST_BROWSERS = 100

NOTHING, LOOK, CALL, ACT = "nothing", "look", "call", "act"
"""What a browser may do, each with all before it. `ACT`: runs, the safe state, links for others."""
_RIGHTS = (NOTHING, LOOK, CALL, ACT)
_GUESTS = {"none": NOTHING, "read": LOOK, "call": CALL, "all": ACT}
_NEEDS = {"call": CALL}
"""What an action needs, where that is not `ACT`."""


@dataclass(frozen=True, slots=True)
class Browser:
    """Somebody who has opened a link: a short name for the record, and what its link lets it do."""

    name: str
    address: str
    may: str = ACT


@dataclass(frozen=True, slots=True)
class BrowserRights:
    """What a browser may do now, and what else would refuse it; "" where nothing does."""

    may: str
    why: str = ""

    def allows(self, needed: str) -> bool:
        """Whether that is enough."""
        return _RIGHTS.index(self.may) >= _RIGHTS.index(needed)


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """Why a request is refused: the status code, and a sentence for its sender."""

    status: int
    why: str


class Access:
    """The links and the browsers of one page. `hosts` are the values of the Host header that are the page's own;
    `guests` tells what the session's rights say of guests, "" where it has none; None while that is not known."""

    def __init__(
        self,
        hosts: frozenset[str],
        *,
        scheme: str = "http",
        read_only: bool = False,
        guests: Callable[[], str | None] = lambda: "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hosts, self.scheme, self.read_only, self._guests = hosts, scheme, read_only, guests
        ports = sorted({host.rpartition(":")[2] for host in hosts})
        self.cookie = f"ether-{ports[0] if ports else 0}"
        """The cookie's name. Browsers send cookies to every port of a host, and there may be a page on each."""
        self._now = now
        self._lock = threading.Lock()
        self._links: dict[str, tuple[float, str]] = {}
        """Until when each is good, and what it lets do."""
        self._codes: dict[str, tuple[float, str]] = {}
        self._browsers: dict[str, Browser] = {}
        self._opened = 0

    def new_link(self, may: str = ACT) -> str:
        """The token of a link, which opens one browser."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._links[token] = self._now() + LINK_LASTS_S, may
            if len(self._links) > _MOST_BROWSERS:
                del self._links[next(iter(self._links))]
        return token

    def new_code(self, may: str = ACT) -> str:
        """A code to type in one browser, where a link cannot be pasted. It takes the place of the one before."""
        code = new_code()
        with self._lock:
            self._codes = {code: (self._now() + LINK_LASTS_S, may)}
        return code

    def open(self, token: str, address: str) -> str:
        """Use up a link; returns the secret of the cookie. Raises `Refused`."""
        with self._lock:
            known = next((each for each in self._links if hmac.compare_digest(each.encode(), token.encode())), None)
            until, may = self._links.pop(known) if known is not None else (0.0, NOTHING)
            if self._now() > until:
                raise Refused(403, "this link was used before, or is too old; ether dashboard makes a new one")
            return self._let_in(address, may)

    def open_by_code(self, text: str, address: str) -> str:
        """Use up a code; returns the secret of the cookie. Raises `Refused`. Whoever types a wrong one has had the only
        guess there is: a code is short."""
        try:
            typed = str(read_token_or_code(text[:100]))
        except ConfigError:
            raise Refused(400, "a code is eight letters and digits, such as 4K7M-QX9P") from None
        with self._lock:
            codes, self._codes = self._codes, {}
            code, (until, may) = next(iter(codes.items()), ("", (0.0, NOTHING)))
            if self._now() > until or not hmac.compare_digest(code.encode(), typed.encode()):
                raise Refused(403, "this code is not good, or not any more, and no other one is now; make a new one")
            return self._let_in(address, may)

    def _let_in(self, address: str, may: str) -> str:
        self._opened += 1
        secret = secrets.token_urlsafe(32)
        if len(self._browsers) >= _MOST_BROWSERS:
            del self._browsers[next(iter(self._browsers))]
        self._browsers[secret] = Browser(f"browser {self._opened}", address, may)
        return secret

    def browser(self, cookie: str | None) -> Browser:
        """Whose cookie that is. Raises `Refused`."""
        if cookie:
            with self._lock:
                for secret, browser in self._browsers.items():
                    if hmac.compare_digest(secret.encode(), cookie.encode()):
                        if self.rights(browser).may == NOTHING:
                            raise Refused(403, f"this session lets no guests in: {self.rights(browser).why}")
                        return browser
        raise Refused(401, "this page is opened by its link alone: run ether dashboard, and open what it prints")

    def check_place(self, headers: Mapping[str, str], *, needs_origin: bool = False) -> None:
        """Raise `Refused` unless the request is for this page, and from it. A WebSocket and an action must name where
        they come from; a browser leaves that out only where a person opens an address."""
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            raise Refused(421, "this page is served under another name")
        origin = headers.get("origin")
        if origin is None and not needs_origin:
            return
        if origin is None or origin.lower() != f"{self.scheme}://{host}":
            raise Refused(403, "this request comes from another page")

    def rights(self, browser: Browser) -> BrowserRights:
        """What a browser may do now."""
        limits = [(browser.may, "the link that opened this browser lets it do no more")]
        if self.read_only:
            limits.append((LOOK, "this page only shows: it was started with --read-only"))
        guests = "" if self._is_here(browser.address) else self._guests()
        if guests is None:
            limits.append((NOTHING, "what it lets guests do is not known yet, as no program that leads it was heard"))
        elif guests:
            limits.append((_GUESTS.get(guests, NOTHING), f"security.guests: {guests} in the session's configuration"))
        may, why = min(limits, key=lambda each: _RIGHTS.index(each[0]))
        return BrowserRights(may, "" if may == ACT else why)

    def _is_here(self, address: str) -> bool:
        """Whether that is an address of this machine: of the loopback, or the one that the page listens on."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return found.is_loopback or any(host.rpartition(":")[0].strip("[]") == str(found) for host in self.hosts)

    def check_action(self, headers: Mapping[str, str]) -> None:
        """Raise `Refused` unless the request may change something, whoever sends it."""
        self.check_place(headers, needs_origin=True)
        if self.read_only:
            raise Refused(403, "this page only shows: it was started with --read-only")
        if headers.get(ACTION_HEADER) != "1":
            raise Refused(403, f"an action needs the header {ACTION_HEADER}")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "an action is told in JSON")

    def check_right(self, browser: Browser, action: str) -> None:
        """Raise `Refused` unless this browser may do that."""
        rights = self.rights(browser)
        if not rights.allows(_NEEDS.get(action, ACT)):
            raise Refused(403, f"this browser may not do that: {rights.why}")
