"""One page, served: the lab that it watches, its place in the session, and the web server, from start to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from ether.dashboard import LOOPBACK
from ether.dashboard.access import Access
from ether.dashboard.application import Page
from ether.dashboard.membership import PageMembership
from ether.dashboard.watched_lab import WatchedLab

if TYPE_CHECKING:
    from ether.session.discovery.search import FoundSession
    from ether.session.trust.lab import ServerFiles


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where the page is served, and what it may do. `port` 0 is any free one."""

    address: str = LOOPBACK
    port: int = 0
    read_only: bool = False
    tls: ServerFiles | None = None
    """Certificate and key that the lab has signed: for a page that other machines reach, and that acts."""


class _Server(uvicorn.Server):
    """Leaves signals to `PageServer`: uvicorn would raise them again, and end the process before it has left."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _encrypted(tls: ServerFiles | None) -> dict[str, Any]:
    """The server's options for TLS; none without it."""
    if tls is None:
        return {}
    return {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key, "ssl_context_factory": _strict}


def _strict(config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """As the lab's brokers: TLS 1.3 alone."""
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class PageServer:
    """Serves the page of one session from `run()` until `stop()`."""

    def __init__(self, session: str | None, broker: str | None, options: ServerOptions) -> None:
        self._lab = WatchedLab()
        self._membership = PageMembership(session, broker, self._lab.joined)
        family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
        self._listening = socket.socket(family)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listening.bind((options.address, options.port))
        except OSError:
            self._listening.close()
            raise
        port = self._listening.getsockname()[1]
        name = f"[{options.address}]" if ":" in options.address else options.address
        names = {name, "localhost"} if options.address == LOOPBACK else {name, socket.gethostname().lower()}
        scheme, tls = ("http", None) if options.tls is None else ("https", options.tls)
        self._access = Access(
            frozenset(f"{each}:{port}" for each in names), scheme=scheme, read_only=options.read_only,
            guests=lambda: self._lab.guests,
        )  # fmt: skip
        self._base = f"{scheme}://{name}:{port}"
        self._page = Page(self._lab, self._access, takes_codes=tls is not None)
        self._server = _Server(
            uvicorn.Config(
                self._page.application, log_level="warning", lifespan="off", ws="websockets-sansio", access_log=False,
                server_header=False, date_header=False, ws_max_size=100_000, ws_per_message_deflate=False,
                timeout_graceful_shutdown=2, backlog=64, proxy_headers=False,  # nobody says here where it comes from
                **_encrypted(tls),
            )
        )  # fmt: skip

    def new_link(self) -> str:
        """The address that opens the page in one browser, once."""
        return f"{self._base}/open?token={self._access.new_link()}"

    def new_code(self) -> tuple[str, str] | None:
        """A code, and the address where it is typed; None for a page that this machine alone reaches."""
        return None if not self._base.startswith("https:") else (self._access.new_code(), f"{self._base}/pair")

    def run(self, found: FoundSession, on_ready: Callable[[], object]) -> None:
        """Join the session and serve; returns after `stop()`, Ctrl-C or SIGTERM. `on_ready` is called when the page can
        be opened. Raises what joining raises."""
        try:
            self._membership.start(found)
            try:
                self._lab.start(self._membership, lambda: self._page.watchers)
                self._listening.listen(64)
                on_ready()
                with self._ended_by_signals():
                    asyncio.run(self._server.serve([self._listening]))
            finally:
                self._lab.close()
                self._membership.close()
        finally:
            self._listening.close()

    @contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """End, from a signal or another thread."""
        self._server.should_exit = True
