"""The web application: the page, its files, one WebSocket, actions and questions.

Promises: every response says that nothing from another host may be loaded or run; files come from a fixed list that is
read at the start, so no path of a request ever meets the disk; whatever acts goes through `Access.check_action`.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import shutil
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ether.dashboard.access import ACT, CALL, LOOK, Access, Browser, Refused
from ether.dashboard.actions import Actions
from ether.dashboard.feed import Feed, Wishes
from ether.dashboard.pictures_of import Pictures
from ether.dashboard.questions import NotAnswered, Questions
from ether.dashboard.threads import Result, beside
from ether.dashboard.watched_lab import WatchedLab
from ether.errors import EtherError

STATIC = Path(__file__).parent / "static"
BODY_MAX = 1_000_000
_FORM_MAX = 1000
_FOR_ALL = {"pair.css"}
"""Files for who has no cookie yet."""
CALLS_MAX = 32
QUESTIONS_AT_ONCE = 8
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}  # fmt: skip


def files_of(folder: Path) -> dict[str, tuple[bytes, str]]:
    """The page's files by their path in the address, each with its type."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
            found[path.relative_to(folder).as_posix()] = (path.read_bytes(), kind)
    return found


class Page:
    """The application for one lab. `application` is what a server runs."""

    def __init__(self, lab: WatchedLab, access: Access, *, takes_codes: bool = False) -> None:
        """`takes_codes`: a browser may come in by a code, too; for a page that other machines reach."""
        self._lab, self._access, self._takes_codes = lab, access, takes_codes
        self._files = files_of(STATIC)
        self._actions, self._questions = Actions(lab), Questions(lab)
        self._pictures = Pictures(lab.values)
        self._feeds: set[Feed] = set()
        self._calls = 0
        self._questions_at_once = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        self.application: ASGIApp = _with_headers(
            Starlette(
                routes=[
                    Route("/", self._index),
                    Route("/open", self._open),
                    Route("/pair", self._pair, methods=["GET", "POST"]),
                    Route("/static/{path:path}", self._static),
                    Route("/do/{action}", self._do, methods=["POST"]),
                    Route("/read/export", self._export),
                    Route("/read/{question}", self._read),
                    WebSocketRoute("/feed", self._feed),
                ]
            )
        )

    @property
    def watchers(self) -> int:
        """How many browsers are open."""
        return len(self._feeds)

    # -- the page and its files

    async def _index(self, request: Request) -> Response:
        if self._takes_codes and self._access.cookie not in request.cookies:
            return RedirectResponse("/pair", 303)
        return self._guarded(request, lambda browser: self._file("index.html"))

    async def _static(self, request: Request) -> Response:
        name = request.path_params["path"]
        if name in _FOR_ALL and self._takes_codes:
            return self._file(name)
        return self._guarded(request, lambda browser: self._file(name))

    def _file(self, name: str) -> Response:
        found = self._files.get(name)
        if found is None:
            return PlainTextResponse("there is no such file", 404)
        return Response(found[0], media_type=found[1])

    async def _open(self, request: Request) -> Response:
        """A one-time link: it becomes a cookie."""
        try:
            self._access.check_place(request.headers)
            secret = self._access.open(request.query_params.get("token", ""), _address(request))
        except Refused as refused:
            if refused.status == 403 and self._is_known(request):
                return RedirectResponse("/", 303)  # the link of this very browser, opened again
            return PlainTextResponse(refused.why, refused.status)
        return self._let_in(request, secret)

    def _let_in(self, request: Request, secret: str) -> Response:
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._access.cookie, secret, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    async def _pair(self, request: Request) -> Response:
        """A code that a person types where no link can be pasted. A form, because nothing else is served to who has no
        cookie; a form of another page has another Origin."""
        try:
            self._access.check_place(request.headers, needs_origin=request.method == "POST")
            if not self._takes_codes:
                raise Refused(404, "this page takes no codes: run ether dashboard, and open the link that it prints")
            if request.method == "GET":
                return self._file("pair.html")
            typed = urllib.parse.parse_qs((await _read(request, _FORM_MAX)).decode("ascii", "replace")).get(
                "code", [""]
            )
            return self._let_in(request, self._access.open_by_code(typed[0], _address(request)))
        except Refused as refused:
            return PlainTextResponse(refused.why, refused.status)

    def _is_known(self, request: HTTPConnection) -> bool:
        try:
            self._browser(request)
        except Refused:
            return False
        return True

    def _browser(self, connection: HTTPConnection) -> Browser:
        return self._access.browser(connection.cookies.get(self._access.cookie))

    def _guarded(self, request: Request, answer: Callable[[Browser], Response]) -> Response:
        try:
            self._access.check_place(request.headers)
            return answer(self._browser(request))
        except Refused as refused:
            return PlainTextResponse(refused.why, refused.status)

    # -- actions and questions

    async def _do(self, request: Request) -> Response:
        try:
            self._access.check_action(request.headers)
            browser, action = self._browser(request), request.path_params["action"]
            self._access.check_right(browser, action)
            said = await _body(request)
        except Refused as refused:
            return _Json({"ok": False, "error": refused.why}, refused.status)
        if action == "link":
            return _Json(self._new_link(said))
        return _Json(await self._waited(action, said, browser))

    def _new_link(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """For another browser, which may do what the person chose."""
        may = said.get("may", ACT)
        if may not in (LOOK, CALL, ACT):
            return {"ok": False, "error": f"a link lets do one of {LOOK}, {CALL}, {ACT}"}
        code = {"code": self._access.new_code(may)} if self._takes_codes else {}
        return {"ok": True, "path": f"/open?token={self._access.new_link(may)}", **code}

    async def _waited(self, action: str, said: Mapping[str, Any], browser: Browser) -> dict[str, Any]:
        """An action's answer. Calls have a limit, so that a browser cannot fill this process with threads; the safe
        state has none."""
        if action != "call":
            return await beside(self._actions.do, action, said, browser)
        if self._calls >= CALLS_MAX:
            return {
                "ok": False,
                "error": f"{self._calls} calls of this page are not over yet; it begins no further one",
            }
        self._calls += 1
        try:
            return await beside(self._actions.do, action, said, browser)
        finally:
            self._calls -= 1

    async def _read(self, request: Request) -> Response:
        try:
            self._access.check_place(request.headers)
            self._browser(request)
        except Refused as refused:
            return _Json({"error": refused.why}, refused.status)
        try:
            question = request.path_params["question"]
            answer = await self._asked(self._questions.answer, question, dict(request.query_params))
        except NotAnswered as error:
            return _Json({"error": str(error)}, 404)
        return _Json(answer)

    async def _asked(self, answer: Callable[..., Result], *arguments: Any) -> Result:
        """The answer to a question, after some others: each may be a process that reads a ledger. Raises
        `NotAnswered`."""
        async with self._questions_at_once:
            try:
                return await beside(answer, *arguments)
            except EtherError as error:
                raise NotAnswered(str(error)) from error

    async def _export(self, request: Request) -> Response:
        try:
            self._access.check_place(request.headers)
            self._browser(request)
        except Refused as refused:
            return PlainTextResponse(refused.why, refused.status)
        try:
            path, name = await self._asked(self._questions.export, dict(request.query_params))
        except NotAnswered as error:
            return PlainTextResponse(str(error), 404)
        return FileResponse(path, filename=name, background=BackgroundTask(shutil.rmtree, path.parent, True))

    # -- the WebSocket

    async def _feed(self, socket: WebSocket) -> None:
        try:
            self._access.check_place(socket.headers, needs_origin=True)
            browser = self._browser(socket)
        except Refused:
            await socket.close(4403)
            return
        await socket.accept()
        feed = _Feed(self._lab, self._pictures, lambda: self._access.rights(browser))
        self._feeds.add(feed)
        sending = asyncio.create_task(feed.run(socket))
        hearing = asyncio.create_task(self._hear(socket, feed))
        try:
            await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feeds.discard(feed)
            self._tell_lab()
            for task in (sending, hearing):
                task.cancel()
            await asyncio.gather(sending, hearing, return_exceptions=True)

    async def _hear(self, socket: WebSocket, feed: Feed) -> None:
        self._tell_lab()
        try:
            while True:
                feed.ask_anew(Wishes.from_text(await socket.receive_text()))
                self._tell_lab()
        except WebSocketDisconnect:
            return

    def _tell_lab(self) -> None:
        plotted = {key for feed in self._feeds for key in feed.wishes.plotted}
        shown = {topic for feed in self._feeds for topic in feed.topics}
        self._lab.watch(plotted, shown)


class _Json(JSONResponse):
    """In ASCII: a value may hold half of a surrogate pair, which no UTF-8 has."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class _Feed(Feed):
    """Compared by identity: a set of browsers."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def _address(request: HTTPConnection) -> str:
    return request.client.host if request.client is not None else "?"


async def _body(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request. Raises `Refused`."""
    try:
        said = json.loads(await _read(request, BODY_MAX) or b"{}")
    except (ValueError, RecursionError):
        raise Refused(400, "an action is told in JSON") from None
    if not isinstance(said, dict):
        raise Refused(400, "an action is told as a JSON object")
    return said


async def _read(request: Request, most: int) -> bytes:
    """The body of a request. Raises `Refused` where it is longer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(413, f"this has at most {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _with_headers(application: ASGIApp) -> ASGIApp:
    """The same application, whose every response carries the page's headers."""
    added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await application(scope, receive, sent if scope["type"] == "http" else send)

    return guarded
