"""How a recorder stands, for `ether status` and `ether ps` on its machine: a page in the folder of its session.

It says where the recorder writes, what keeps it from writing, how far sources are ahead of it, how fast the ledger
grows and how long the disk lasts. So a status is right also where the ledger itself can be told nothing: its disk is
full.

Promise: recording does not depend on it. A page of a recorder that has ended is not given to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ether.log import get_ether_logger
from ether.recording.completeness_rules import SourceFacts
from ether.system.folders import file_name, session_folder, sessions_folder
from ether.system.process_owner import has_ended, process_facts
from ether.system.status_page import StatusPage, read_page

logger = get_ether_logger("Ether")

_ENDING = ".recorder"
_HEARD_MOST = 1000
"""Each life of a source has an outbox of its own. Those that were not heard of for the longest time are forgotten: the
ledger knows of them."""
_HEARD_S = 10.0
"""A source with something to send is heard of every two seconds, unless it is cut off."""


@dataclass(frozen=True, slots=True)
class RecorderFacts:
    """What a recorder of this machine says of itself."""

    recorder: str
    session: str
    folder: str
    problem: str = ""
    """What keeps it from writing, "" for nothing."""
    free_bytes: int = 0
    bytes_per_s: float | None = None
    """How fast its ledger grows; None where that is not known yet."""
    behind: tuple[SourceFacts, ...] = ()
    """Sources that have given out more than is on its disk, as far as it has heard."""


class RecorderPage:
    """The page of one recorder. For one thread."""

    def __init__(self, session: str, recorder: str) -> None:
        self._page: StatusPage | None = None
        self._facts = process_facts()
        try:
            folder = _folder(session)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._page = StatusPage(folder / f"{file_name(recorder)}{_ENDING}")
        except OSError as error:
            logger.debug("%s cannot say how it stands: %s", recorder, error)

    def say(self, facts: RecorderFacts) -> None:
        """Write how the recorder stands."""
        if self._page is None:
            return
        value: dict[str, Any] = {
            **self._facts, "recorder": facts.recorder, "session": facts.session, "folder": facts.folder,
            "problem": facts.problem[:800], "free_bytes": facts.free_bytes, "bytes_per_s": facts.bytes_per_s,
            "behind": [
                [s.outbox, s.source, s.given, s.base, s.acknowledged or 0, "" if s.why == facts.problem else s.why]
                for s in facts.behind
            ],
        }  # fmt: skip
        try:
            while not self._page.write(value) and value["behind"]:
                value["behind"].pop()
        except OSError as error:
            logger.debug("%s cannot say how it stands: %s", facts.recorder, error)

    def close(self) -> None:
        """Close and remove the page."""
        if self._page is not None:
            self._page.close()
            self._page.path.unlink(missing_ok=True)
            self._page = None


def recorders_of(session: str) -> list[RecorderFacts]:
    """The recorders of a session that run on this machine. Raises `ConfigError`."""
    return list(_facts_in(sorted(_folder(session).glob(f"*{_ENDING}"))))


def recorders_here() -> list[RecorderFacts]:
    """The recorders of this user that run on this machine. Raises `ConfigError`."""
    return list(_facts_in(sorted(sessions_folder().glob(f"*/recorders/*{_ENDING}"))))


def writing_to(folder: Path, recorders: Sequence[RecorderFacts]) -> RecorderFacts | None:
    """The one of these recorders that writes to this ledger."""
    return next((facts for facts in recorders if facts.folder == str(folder)), None)


def _folder(session: str) -> Path:
    return session_folder(session) / "recorders"


def _facts_in(paths: Iterable[Path]) -> Iterable[RecorderFacts]:
    for path in paths:
        page = read_page(path)
        if page is None or has_ended(page):
            continue
        match page:
            case {
                "recorder": str(recorder), "session": str(session), "folder": str(folder), "problem": str(problem),
                "free_bytes": int(free), "bytes_per_s": (float() | int() | None) as rate, "behind": list(behind),
            }:  # fmt: skip
                told = tuple(_behind(behind, problem))
                yield RecorderFacts(recorder, session, folder, problem, free, rate, told)


def _behind(rows: Iterable[object], problem: str) -> Iterable[SourceFacts]:
    for row in rows:
        match row:
            case [str(outbox), str(source), int(given), int(base), int(acknowledged), str(why)]:
                yield SourceFacts(outbox, source, given, base, acknowledged or None, why or problem)


class HeardSources:
    """What a recorder has heard from its sources. For the recorder's thread, except for `facts`."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[str, int, int, int, float]] = {}

    def note(self, outbox: str, source: str, head: int, base: int, given: int, now: float) -> None:
        """A batch has come, whether or not it can be kept."""
        known = self._heard.pop(outbox, None)
        head = max(head, known[1]) if known else head
        self._heard[outbox] = source, head, base, given, now
        if len(self._heard) > _HEARD_MOST:
            del self._heard[next(iter(self._heard))]

    def facts(self, now: float, problem: str) -> list[SourceFacts]:
        """As the sources have said it last."""
        found = []
        for outbox, (source, head, base, given, heard) in list(self._heard.items()):
            silent = "" if now - heard <= _HEARD_S else "nothing has come from its source for a while"
            found.append(SourceFacts(outbox, source, head, base, given or None, problem or silent))
        return found
