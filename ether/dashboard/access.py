"""Who may look, and who may act: one-time links, the cookie that they become, and the checks of every request.

Promises: a link opens one browser, once. A request with another Host than the page's own is refused (DNS rebinding),
and so is one whose Origin is another page. What acts needs the cookie and a header that no form and no foreign page can
send. Secrets are compared in constant time, are never logged, and live as long as this process.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ACTION_HEADER = "x-ether"
LINK_LASTS_S = 600.0
"""A link that nobody has opened by then opens nothing."""
_MOST_BROWSERS = 100


@dataclass(frozen=True, slots=True)
class Browser:
    """Somebody who has opened a link: a short name for the record."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """Why a request is refused: the status code, and a sentence for its sender."""

    status: int
    why: str


class Access:
    """The links and the browsers of one page. `hosts` are the values of the Host header that are the page's own."""

    def __init__(self, hosts: frozenset[str], *, read_only: bool = False, now: Callable[[], float] = time.monotonic):
        self.hosts, self.read_only = hosts, read_only
        ports = sorted({host.rpartition(":")[2] for host in hosts})
        self.cookie = f"ether-{ports[0] if ports else 0}"
        """The cookie's name. Browsers send cookies to every port of a host, and there may be a page on each."""
        self._now = now
        self._lock = threading.Lock()
        self._links: dict[str, float] = {}
        self._browsers: dict[str, Browser] = {}
        self._opened = 0

    def new_link(self) -> str:
        """The token of a link, which opens one browser."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._links[token] = self._now() + LINK_LASTS_S
            if len(self._links) > _MOST_BROWSERS:
                del self._links[next(iter(self._links))]
        return token

    def open(self, token: str, address: str) -> str:
        """Use up a link; returns the secret of the cookie. Raises `Refused`."""
        with self._lock:
            known = next((each for each in self._links if hmac.compare_digest(each.encode(), token.encode())), None)
            until = self._links.pop(known) if known is not None else 0.0
            if self._now() > until:
                raise Refused(403, "this link was used before, or is too old; ether dashboard makes a new one")
            self._opened += 1
            secret = secrets.token_urlsafe(32)
            if len(self._browsers) >= _MOST_BROWSERS:
                del self._browsers[next(iter(self._browsers))]
            self._browsers[secret] = Browser(f"browser {self._opened}", address)
        return secret

    def browser(self, cookie: str | None) -> Browser:
        """Whose cookie that is. Raises `Refused`."""
        if cookie:
            with self._lock:
                for secret, browser in self._browsers.items():
                    if hmac.compare_digest(secret.encode(), cookie.encode()):
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
        if origin is None or origin.lower().partition("://")[2] != host:
            raise Refused(403, "this request comes from another page")

    def check_action(self, headers: Mapping[str, str]) -> None:
        """Raise `Refused` unless the request may change something."""
        self.check_place(headers, needs_origin=True)
        if self.read_only:
            raise Refused(403, "this page only shows: it was started with --read-only")
        if headers.get(ACTION_HEADER) != "1":
            raise Refused(403, f"an action needs the header {ACTION_HEADER}")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "an action is told in JSON")
