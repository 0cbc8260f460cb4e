"""What one browser is sent: everything at its first message, then what has changed, at most twenty times a second.

Promise: a browser that reads slowly gets fewer and newer messages, never a backlog: the next one is made when the one
before is gone. A browser that reads nothing for `STUCK_S` is disconnected. The trap: what a browser asks for is not
trusted: it is checked and bounded here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ether.dashboard.access import NOTHING, BrowserRights
from ether.dashboard.pictures_of import Pictures
from ether.dashboard.values import BETWEEN
from ether.dashboard.watched_lab import WatchedLab
from ether.reading.plots.series import thinned
from ether.system.clock import wall_time

EVERY_S = 0.05
QUIET_S = 1.0
"""A message is sent after this time even where nothing has changed, so that the browser can tell quiet from dead."""
STUCK_S = 20.0
PICTURE_EVERY_S = 0.1
_MOST_PLOTTED = 8
_HISTORY_S = 1800.0
_PIXELS_MAX = 4000


class Socket(Protocol):
    """The part of a WebSocket that is needed."""

    async def send_text(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...


@dataclass(slots=True)
class Wishes:
    """What a browser wants to see beside the lists. Replaced as a whole by each of its messages."""

    plotted: tuple[str, ...] = ()
    window_s: float = 60.0
    pixels: int = 800
    picture: str = ""
    table: str = ""

    @classmethod
    def from_text(cls, text: str) -> Wishes:
        """From a browser's message; what is not understood is left out."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(said, dict):
            return cls()
        plotted = said.get("plotted")
        keys = [key for key in plotted if isinstance(key, str)] if isinstance(plotted, list) else []
        return cls(
            tuple(dict.fromkeys(keys[:_MOST_PLOTTED])),
            min(max(_number(said.get("window_s"), 60.0), 1.0), _HISTORY_S),
            int(min(max(_number(said.get("pixels"), 800.0), 100.0), _PIXELS_MAX)),
            _text(said.get("picture")),
            _text(said.get("table")),
        )


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) and value == value else otherwise


def _text(value: object) -> str:
    return value[:2000] if isinstance(value, str) else ""


@dataclass(slots=True)
class Feed:
    """One browser."""

    lab: WatchedLab
    pictures: Pictures
    rights: Callable[[], BrowserRights]
    """What this browser may do now: it is told, so that it has buttons for that and no more."""
    wishes: Wishes = field(default_factory=Wishes)
    _version: int = 0
    _cursors: dict[str, float] = field(default_factory=dict)
    _table_id: str = ""
    _picture_id: str = ""
    _picture_at: float = 0.0
    _said_at: float = float("-inf")
    _said_rights: BrowserRights | None = None

    async def run(self, socket: Socket) -> None:
        """Send until the socket is closed, or the browser may not look any more; raises what sending raises,
        `TimeoutError` where it is stuck."""
        while self.rights().may != NOTHING:
            began = time.monotonic()
            message = self.next_message(began)
            if message is not None:
                # In ASCII, because a value may hold half of a surrogate pair, which no UTF-8 has.
                await self._sent(socket.send_text, json.dumps(message, allow_nan=False))
            if (frame := await self._frame(began)) is not None:
                await self._sent(socket.send_bytes, frame)
            await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))

    @staticmethod
    async def _sent(send: Callable[[Any], Awaitable[None]], what: Any) -> None:
        await asyncio.wait_for(send(what), STUCK_S)

    def next_message(self, now: float) -> dict[str, Any] | None:
        """What this browser lacks; None where there is nothing to say."""
        self._version, whole, changed = self.lab.versions.since(self._version)
        message: dict[str, Any] = {}
        if changed or whole:
            message["rows"] = changed
        if plots := self._plots():
            message["plots"] = plots
        if (table := self._table()) is not None:
            message["table"] = table
        if whole:
            message["whole"] = True
        rights = self.rights()
        if whole or rights != self._said_rights:
            self._said_rights = rights
            message["may"] = [rights.may, rights.why]
        if not message and now - self._said_at < QUIET_S:
            return None
        self._said_at = now
        return {"now": round(wall_time(), 3), **message}

    def _plots(self) -> dict[str, Any]:
        """New points of each plotted number; `anew` where what the browser has of it is to be replaced."""
        found: dict[str, Any] = {}
        for key in self.wishes.plotted:
            anew = key not in self._cursors
            since = wall_time() - self.wishes.window_s * 1.1 if anew else self._cursors[key]
            points = self.lab.values.points(key, since)
            if not points and not anew:
                continue
            shown = thinned(points, 2 * self.wishes.pixels)
            self._cursors[key] = points[-1][0] if points else since
            found[key] = {"anew": anew, "t": [round(t, 4) for t, _ in shown], "v": [value for _, value in shown]}
        return found

    def ask_anew(self, wishes: Wishes) -> None:
        """The browser has said what it wants now."""
        if wishes.window_s != self.wishes.window_s or wishes.pixels != self.wishes.pixels:
            self._cursors = {}
        kept = {*wishes.plotted} & {*self.wishes.plotted}
        self._cursors = {key: at for key, at in self._cursors.items() if key in kept}
        if wishes.table != self.wishes.table:
            self._table_id = ""
        if wishes.picture != self.wishes.picture:
            self._picture_id = ""
        self.wishes = wishes

    def _table(self) -> dict[str, Any] | None:
        topic = self.lab.values.topic(self.wishes.table) if self.wishes.table else None
        if topic is None or f"{topic.count}" == self._table_id:
            return None
        self._table_id = f"{topic.count}"
        return {"topic": topic.name, **(self.lab.values.table(topic.name) or {"rows": [], "of": 0})}

    async def _frame(self, now: float) -> bytes | None:
        if not self.wishes.picture or now - self._picture_at < PICTURE_EVERY_S:
            return None
        found = await asyncio.to_thread(self.pictures.newest, self.wishes.picture, self._picture_id)
        if found is None:
            return None
        self._picture_id, self._picture_at = found.id, now
        return found.frame

    @property
    def topics(self) -> set[str]:
        """The topics that are shown whole."""
        return {self.wishes.table, self.wishes.picture} - {""}


def topic_of(key: str) -> str:
    """The topic of a plotted number."""
    return key.partition(BETWEEN)[0]
