"""The newest frame of each topic that somebody looks at, made once for all browsers."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from ether.connection.link import Inbound
from ether.dashboard.pictures import picture_in, picture_of
from ether.dashboard.values import Values
from ether.errors import PayloadError


class Frame(NamedTuple):
    """A frame, and the number of its message; empty where that holds no image."""

    id: str
    frame: bytes


class Pictures:
    """Makes frames of what `values` holds. May be called from several threads."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._made: dict[str, Frame] = {}
        self._lock = threading.Lock()

    def newest(self, name: str, before: str) -> Frame | None:
        """The newest frame of a topic; None where it is the one `before`, or there is no image."""
        topic = self._values.topic(name)
        if topic is None or topic.newest is None or str(topic.count) == before:
            return None
        with self._lock:
            number, inbound = topic.count, topic.newest
            made = self._made.get(name)
            if made is None or made.id != str(number):
                facts = {"topic": name, "number": number, "at": topic.at}
                made = Frame(str(number), _frame_of(inbound, facts))
                self._made = {**{key: each for key, each in self._made.items() if key != name}, name: made}
                while len(self._made) > 8:
                    self._made.pop(next(iter(self._made)))
            return made if made.frame else None


def _frame_of(inbound: Inbound, facts: dict[str, Any]) -> bytes:
    """The frame of a message; nothing where that holds no image, which is remembered, too: it is asked for again."""
    try:
        unpacked = inbound.unpack()
    except PayloadError:
        return b""
    found = picture_in(unpacked.value)
    if found is None:
        return b""
    head = unpacked.headers
    return picture_of(found[1], {**facts, "field": found[0], "id": head.id if head is not None else ""})
