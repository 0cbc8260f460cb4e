"""Shows how instances come up: in a terminal a live table, elsewhere a line for each change.

Promise: `take` only notes a state and returns, so it may be called on the dispatch thread. rich is imported only where
the table is drawn.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.cli.output import colours, remark
from ether.protocol.presence import Announcement, State

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_SHOWN = 20
"""With more instances than this only those that are not ready are listed."""

_COLOURS = {State.READY: "green", State.STARTING: "cyan"}


class Startup:
    """A context manager around the start; shows nothing. `names` are the instances that the start waits for."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._began = time.monotonic()
        self._states: dict[str, tuple[State, float]] = {}

    def take(self, announcement: Announcement) -> None:
        """An instance's state changed."""
        if announcement.name in self._names:
            self._note(announcement.name, announcement.state, time.monotonic() - self._began)

    def _note(self, name: str, state: State, after_s: float) -> None:
        self._states = {**self._states, name: (state, after_s)}

    def __enter__(self) -> Startup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return


class StartupLines(Startup):
    """Writes a line when an instance leaves the state `starting`, on a thread of its own: standard error may block."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ether-startup", daemon=True)

    def _note(self, name: str, state: State, after_s: float) -> None:
        if state is not State.STARTING:
            self._lines.put(f"{name}: {state.value} after {after_s:.1f} s")

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            remark(line)

    def __enter__(self) -> StartupLines:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lines.put(None)
        self._thread.join()


class StartupTable(Startup):
    """The same, drawn by rich below whatever is printed meanwhile."""

    def __enter__(self) -> StartupTable:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._live: Live = Live(get_renderable=self._draw, console=console, refresh_per_second=8, transient=True)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()
        ready = sum(state is State.READY for state, _ in self._states.values())
        remark(f"{ready} of {len(self._names)} instances ready after {time.monotonic() - self._began:.1f} s")

    def _draw(self) -> Text:
        from rich.text import Text

        text = Text()
        shown = [name for name in self._names if len(self._names) <= _SHOWN or not self._is_ready(name)][:_SHOWN]
        for name in shown:
            text.append(*self._line(name))
        ready = sum(map(self._is_ready, self._names))
        return text.append(f"{ready} of {len(self._names)} ready, {time.monotonic() - self._began:.1f} s")

    def _line(self, name: str) -> tuple[str, Any]:
        state, after_s = self._states.get(name, (None, 0.0))
        if state is None:
            return f"  {name}: its process starts\n", "dim"
        return f"  {name}: {state.value} ({after_s:.1f} s)\n", _COLOURS.get(state, "red")

    def _is_ready(self, name: str) -> bool:
        return name in self._states and self._states[name][0] is State.READY


def startup_for(names: Sequence[str]) -> Startup:
    """The form that standard error can show."""
    if not names:
        return Startup(names)
    return StartupTable(names) if sys.stderr.isatty() and colours(sys.stderr) else StartupLines(names)
