"""`ether logs -f` where the clocks of machines differ, or were set back."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

from ether.cli.lab import logs
from ether.logs.lines import LogLine

NOW = 1.8e9


class Arrived(queue.SimpleQueue[Any]):
    """What has come; then the user presses Ctrl-C."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return super().get(block=False)
        except queue.Empty:
            raise KeyboardInterrupt from None


def record(message: str, time: float) -> dict[str, Any]:
    return {"time": time, "level": "WARNING", "message": message, "pid": 7, "logger": "Ether"}


def test_what_comes_is_shown_once_whatever_its_time(monkeypatch: Any) -> None:
    """The file ends with records of the future; one of the coming ones was written to it already."""
    in_file = [LogLine.from_value(record(text, NOW), "cam") for text in ("long ago", "in both")]
    monkeypatch.setattr(logs, "read_back", lambda session, since: iter(in_file))
    shown: list[str] = []
    chosen, show = logs._Chosen([], 0), lambda line: shown.append(line.message)
    arrived: Any = Arrived()
    for text, time in (("in both", NOW), ("an hour behind", NOW - 3600), ("in 1970", 60.0), ("in both", NOW)):
        topic = "ether/1/bench/log/cam"
        inbound = SimpleNamespace(value=record(text, time), delivery=SimpleNamespace(topic=topic), done=lambda: None)
        inbound.unpack = lambda inbound=inbound: inbound
        arrived.put(inbound)
    topics = SimpleNamespace(session="bench", log=lambda name: f"ether/1/bench/log/{name}")
    client: Any = SimpleNamespace(topics=topics)
    try:
        logs._follow(client, arrived, chosen, show, logs._show_past("bench", None, 10, chosen, show))
    except KeyboardInterrupt:
        pass
    assert shown == ["long ago", "in both", "an hour behind", "in 1970", "in both"]
