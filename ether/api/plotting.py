"""The part of the front door that draws: `ether.plot`, in a notebook, in a terminal, or on the page in the browser."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, TextIO

from ether.config.when import duration_s
from ether.errors import MissingExtra

if TYPE_CHECKING:
    from ether.session.client import Client
    from ether.session.watching.live_plot import LivePlot

Where = Literal["notebook", "terminal", "page", "nowhere"]
WHERE: tuple[Where, ...] = ("notebook", "terminal", "page", "nowhere")

_DRAW_S = 0.25
_END_S = 3.0
_LINES = 16


class Plotting(ABC):
    """Plots of numbers, live."""

    @abstractmethod
    def _joined(self, call: str) -> Client:
        """The access to the session. Raises `NotJoined`, which names the call."""

    _plots: list[LivePlot]

    @property
    @abstractmethod
    def session_id(self) -> str | None:
        """The name of the session."""

    def plot(self, *topics: str, window: str = "60s", where: Where | None = None) -> LivePlot:
        """Draw the numbers of some topics, live, of the last `window` (`"10s"`, `"5min"`).

        In a notebook the plot appears below its cell and moves while other cells run; the same call again replaces it.
        In a terminal it is drawn as text until Ctrl-C. In a script it is the page in the browser that opens, at this
        plot. `where` chooses otherwise: "notebook", "terminal", "page", or "nowhere", which draws when it is asked to
        (`print(plot)`, `plot.text()`).

        Returns the plot, with `stop()`. Messages that are dicts, lists or small arrays give a line a number, at most
        eight. Raises `NotJoined`, `ConfigError` for a window that is none, `MissingExtra` where a script has no page.
        """
        client = self._joined("ether.plot()")
        if not topics:
            raise TypeError('ether.plot() needs a topic: ether.plot("temperature")')
        chosen = _place() if where is None else where
        if chosen not in WHERE:
            raise ValueError(f"found where={where!r:.60}; expected one of {', '.join(map(repr, WHERE))}")
        from ether.session.watching.live_plot import LivePlot

        window_s = duration_s(window)
        self._plots[:] = [each for each in self._plots if not each.stopped]
        if chosen == "notebook":
            for each in list(self._plots):
                if each.topics == topics:
                    each.stop()
        elif chosen == "page":
            _check_page()
        plot = LivePlot(client, topics, window_s)
        self._plots.append(plot)
        for topic in topics:
            client.topic_check.heard(topic)
        if chosen == "notebook":
            _show_in_notebook(plot)
        elif chosen == "terminal":
            draw_in_terminal(plot, sys.stdout)
        elif chosen == "page":
            _open_page(plot, self.session_id or "")
        return plot

    def _stop_plots(self) -> None:
        """End all plots: the program leaves its session."""
        while self._plots:
            self._plots.pop().stop()


def _place() -> Where:
    """Where this program has its eyes."""
    if (shell := _ipython()) is not None and hasattr(shell, "kernel"):
        return "notebook"
    interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
    return "terminal" if interactive and sys.stdout is not None and sys.stdout.isatty() else "page"


def _ipython() -> Any:
    """The running shell of IPython; None where there is none. It is not imported for this."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


def _show_in_notebook(plot: LivePlot) -> None:
    from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

    handle = display(plot, display_id=True)

    def redraw() -> None:
        while not plot.wait(_DRAW_S):
            handle.update(plot)

    thread = threading.Thread(target=redraw, name="ether-plot-view", daemon=True)
    plot.when_stopped(lambda: thread.join(_END_S))
    thread.start()


def draw_in_terminal(plot: LivePlot, out: TextIO) -> None:
    """Draw a plot as text, each time over the one before, until Ctrl-C or its end."""
    unicode = (out.encoding or "").lower().replace("-", "").startswith("utf")
    drawn = 0
    try:
        while True:
            size = shutil.get_terminal_size()
            text = plot.text(size.columns - 1, max(6, min(_LINES, size.lines - 2)), unicode=unicode)
            out.write((f"\x1b[{drawn}A\x1b[J" if drawn else "") + text + "\n")
            out.flush()
            drawn = text.count("\n") + 1
            if plot.wait(_DRAW_S):
                break
    except KeyboardInterrupt:
        pass
    finally:
        plot.stop()


def _check_page() -> None:
    for library in ("numpy", "starlette", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise MissingExtra("a plot of a script, which is a page in the browser,", library, "dashboard")


def _open_page(plot: LivePlot, session: str) -> None:
    from ether.api.page_process import PageProcess

    page = PageProcess()
    plot.when_stopped(page.stop)
    page.start(session, view=view_of(plot.topics))


def view_of(topics: tuple[str, ...]) -> str:
    """The part of a page's address that shows these topics plotted."""
    from urllib.parse import quote

    return "values?p=" + quote("\x1e".join(topics), safe="")
