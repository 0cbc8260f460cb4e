"""Which of two rivals has been there for longer, without comparing the clocks of two machines. Decisions only.

Two programs that lead one session, or two holders of one name, hear each other's announcement and have to draw the same
conclusion. Each one announces how long it has been there by its own steady clock (`held_s`), as of the announcement. An
announcement may be old, though: a retained one may have been made days ago. So one of the two decides, the one with
the smaller id, and only by an announcement that was made in answer to its own:

    A (smaller id)   hears B, announces itself again: {held_s, heard: B}
    B                hears A, announces itself again: {held_s, heard: A}
    A                now knows how long B has been there. Either A yields, or it announces {held_s, beats: [B]},
                     and B yields when it hears that

Promise: never do both yield, because only one decides. Where an announcement is lost, the next one goes on from there:
both announce themselves again after every reconnect. The trap: a rival of an earlier version says nothing of this; then
both compare `since`, the time of day, as such a rival does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Seniority:
    """One side. Not locked. `now` is in seconds of any steady clock."""

    def __init__(self, own_id: str, since: float, began: float) -> None:
        """`since` in unix seconds; `began` the same moment by the steady clock."""
        self._own_id, self._since, self._began = own_id, since, began
        self._heard = ""
        self._beats: set[str] = set()

    def facts(self, now: float) -> dict[str, Any]:
        """What to announce."""
        beats = {"beats": sorted(self._beats)} if self._beats else {}
        heard = {"heard": self._heard} if self._heard else {}
        return {"held_s": round(now - self._began, 3), **heard, **beats}

    def yields_to(self, rival: str, facts: Mapping[str, Any], now: float) -> bool:
        """Whether this side gives way to a rival with this id and these facts. Where it does not, it has to announce
        itself again, with its present `facts`."""
        held_s, since = facts.get("held_s"), facts.get("since")
        if not isinstance(held_s, (int, float)):
            return isinstance(since, (int, float)) and (since, rival) < (self._since, self._own_id)
        self._heard = rival
        beats = facts.get("beats")
        if isinstance(beats, list) and self._own_id in beats:
            return True
        if self._own_id < rival and facts.get("heard") == self._own_id and rival not in self._beats:
            if held_s > now - self._began:
                return True
            self._beats.add(rival)
        return False
