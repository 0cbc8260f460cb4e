"""The numbers on topics as they come, drawn live: what `ether.plot` gives.

A thread of its own reads the messages, so that a plot that is drawn slowly holds up nobody: a subscription of the
newest messages alone, at QoS 0. The trap: a number that is published a thousand times a second is thinned to the
smallest and the largest of each short span (`ether.reading.plots.series`), so that memory and time are bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ether.errors import DecodeError
from ether.log import get_ether_logger
from ether.reading.plots.numbers import numbers_in
from ether.reading.plots.series import Series
from ether.reading.plots.svg import DARK, LIGHT, STYLE, Line, Plot, Thinned, escape, svg
from ether.reading.plots.text import text_plot
from ether.session.client import Client, Message, Subscription
from ether.system.clock import wall_time

logger = get_ether_logger("Ether")

MOST_LINES = 8
_KEPT = 4000
"""Messages of a topic that may wait to be read."""
_STOP_S = 2.0
_STYLE = f"@scope (.ether-plot){{:scope{{{LIGHT}}}{STYLE}}}@media (prefers-color-scheme:dark){{.ether-plot{{{DARK}}}}}"
"""Within the plot alone: a notebook has lines and grids of its own."""


class LivePlot:
    """A plot that goes on by itself until `stop()`, or until the program leaves its session. A context manager."""

    def __init__(self, client: Client, topics: Sequence[str], window_s: float) -> None:
        self.topics, self.window_s = tuple(topics), window_s
        self._series: dict[str, Series] = {}
        self._lock = threading.Lock()
        self._left_out = 0
        self._stopped = threading.Event()
        self._on_stop: list[Callable[[], object]] = []
        self._subscriptions: list[Subscription] = []
        try:
            for topic in self.topics:
                self._subscriptions.append(client.subscribe(topic, 0, _KEPT, is_input=False))
        except BaseException:
            self._close()
            raise
        self._readers = [
            threading.Thread(target=self._read, args=(each,), name="ether-plot", daemon=True)
            for each in self._subscriptions
        ]
        for reader in self._readers:
            reader.start()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else "live"
        return f"<plot of {', '.join(self.topics)}: {state}>"

    def __enter__(self) -> LivePlot:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether nothing new is drawn any more."""
        return self._stopped.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the plot is stopped; returns whether it is."""
        return self._stopped.wait(timeout_s)

    def stop(self) -> None:
        """Draw nothing new any more. What is drawn stays. May be called twice, and on any thread."""
        self._stopped.set()
        self._close()
        for reader in self._readers:
            if reader is not threading.current_thread():
                reader.join(_STOP_S)
        while self._on_stop:
            self._on_stop.pop()()

    def when_stopped(self, then: Callable[[], object]) -> None:
        """Have this called once, when the plot is stopped."""
        self._on_stop.append(then)

    def _close(self) -> None:
        for each in self._subscriptions:
            each.close()

    # -- reading, on a thread for each topic

    def _read(self, subscription: Subscription) -> None:
        while not self._stopped.is_set():
            try:
                self._take(subscription.get(timeout_s=None))
            except EOFError:
                break
            except DecodeError as error:
                logger.warning("a plot leaves out a message: %s", error)
        self._stopped.set()

    def _take(self, message: Message) -> None:
        at = wall_time()
        if message.time is not None and abs(message.time - at) < self.window_s:
            at = message.time
        numbers, _ = numbers_in(message.value)
        with self._lock:
            for place, number in numbers.items():
                name = f"{message.topic} {place}" if place else message.topic
                series = self._series.get(name)
                if series is None and len(self._series) >= MOST_LINES:
                    self._left_out += 1
                    continue
                if series is None:
                    series = self._series[name] = Series()
                series.add(at, number)

    # -- drawing

    def drawn(self) -> Plot:
        """What there is to see now: times are seconds before now."""
        now = wall_time()
        lines, notes = [], []
        with self._lock:
            for name, series in self._series.items():
                series.settle(now)
                line = Thinned(-self.window_s, 0.0)
                for at, value in series.since(now - self.window_s):
                    if value is not None:
                        line.take(at - now, value)
                lines.append(Line(name, line.points()))
            if self._left_out:
                notes.append(f"at most {MOST_LINES} lines are drawn: name the topics, or publish fewer numbers")
        return Plot(", ".join(self.topics), lines, x="s", notes=notes)

    def text(self, width: int = 80, height: int = 14, *, unicode: bool = True) -> str:
        """The plot as text, in `height` lines of at most `width` characters."""
        plot = self.drawn()
        return "\n".join([text_plot(plot, width, height, unicode=unicode), *plot.notes])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows: the plot as it is now."""
        plot = self.drawn()
        keys = " ".join(
            f'<span class="key s{number % 4}"></span>{escape(line.name)}' for number, line in enumerate(plot.lines)
        )
        notes = f"<div>{escape('; '.join(plot.notes))}</div>" if plot.notes else ""
        return f'<div class="ether-plot"><style>{_STYLE}</style><div>{keys}</div>{svg(plot)}{notes}</div>'
