"""What the processes of this machine have given to be saved and no recorder has taken: their outboxes, by session.

Of a living process its page says so (`ether.recording.source_page`), of a dead one its outbox, in the user's state
folder. The next program of the session sends what a dead one has left; where there will be none (a session without a
name is never started again), `ether rescue` does.

Promise: an outbox of a living process is never touched, and looking leaves each file as it is. The trap: a living
process says how it stood up to half a second ago. So read the sources first and the ledger afterwards: then what is
counted as given is found on the disk, if it is there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ether.errors import DecodeError, OutboxFailed
from ether.recording.completeness_rules import SourceFacts
from ether.recording.outbox_file import PAGE, SUFFIX, OutboxFile, adopt
from ether.system.clock import wall_time
from ether.system.folders import file_name, outbox_folder, sessions_folder
from ether.system.processes import this_place
from ether.system.status_page import read_page

_ON_ITS_WAY_S = 5.0
"""For so long what waits may be on its way."""
DEAD = "its process has ended"


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """What a source knows of a recorder: where it writes, the highest number that it has acknowledged, and what keeps
    it from writing, "" for nothing."""

    recorder: str
    host: str
    folder: str
    acknowledged: int
    problem: str


@dataclass(frozen=True, slots=True)
class Source:
    """An outbox on this machine."""

    source: str
    """Its process's name in the session; the error for a file that cannot be read."""
    count: int
    """How many of its entries are not acknowledged by the recorder that has to have them, or by any."""
    path: str
    alive: bool
    """Whether its process runs."""
    outbox: str = ""
    given: int = 0
    """The highest number that it has given out."""
    base: int = 0
    """Everything up to this number was let go of."""
    bytes: int = 0
    why: str = ""
    """Why they wait; "" where they are on their way."""
    since: float = 0.0
    """Unix seconds since when nothing has come forward; 0 where that is not known."""
    pid: int | None = None
    receipts: tuple[ReceiptFacts, ...] = ()
    ledger: str | None = None
    """Of a dead process: the folder of the ledger that its configuration named."""


def sources_of(session: str) -> list[Source]:
    """The outboxes of a session on this machine. Raises `ConfigError`."""
    return _sources_in(outbox_folder(session))


def waiting_sessions() -> dict[str, list[Source]]:
    """The outboxes of this user on this machine in which something waits, by session. Raises `ConfigError`."""
    found = {}
    for folder in sorted({path.parent for path in sessions_folder().glob(f"*/outbox/*{SUFFIX}")}):
        if waiting := [source for source in _sources_in(folder) if source.count or not source.outbox]:
            found[_session_of(folder.parent.name)] = waiting
    return found


def orphaned_outboxes(session: str) -> list[Source]:
    """The outboxes of a session's dead processes; their entries stay in them. A file that cannot be read is listed
    with 0 entries, and with the error as its source. Raises `ConfigError`."""
    return _orphans_in(outbox_folder(session))


def sessions_with_orphans() -> dict[str, list[Source]]:
    """The sessions of this user on this machine of which dead processes have left outboxes, by name. Raises
    `ConfigError`."""
    found: dict[str, list[Source]] = {}
    for folder in sorted({path.parent for path in sessions_folder().glob(f"*/outbox/*{SUFFIX}")}):
        if orphans := _orphans_in(folder):
            found[_session_of(folder.parent.name)] = orphans
    return found


def send_orphans_to(session: str, ledger: Path) -> None:
    """What dead processes of a session have left belongs into this ledger from now on, whatever their configurations
    named. Raises `ConfigError`, `OutboxFailed`."""
    for file in adopt(outbox_folder(session)):
        try:
            file.send_to(str(ledger))
        finally:
            file.close()


def facts_for(sources: Iterable[Source], folder: Path, known: Sequence[str], trouble: str = "") -> list[SourceFacts]:
    """What the sources say about one ledger: those that have given it something (`known`: the outboxes in it), those
    that know a recorder that writes there, and those that know no recorder at all. `trouble` is what its recorder says
    of itself: a source hears of it with the next receipt, and may still think that what waits is on its way."""
    host = this_place().host
    found = []
    for source in sources:
        here = [told for told in source.receipts if told.folder == str(folder) and told.host == host]
        if not source.outbox or not (here or source.outbox in known or not source.receipts):
            continue
        acknowledged = max((told.acknowledged for told in here), default=None)
        problem = next((told.problem for told in here if told.problem), "")
        why = problem or source.why or trouble
        said = SourceFacts(source.outbox, source.source, source.given, source.base, acknowledged, why)
        found.append(said._replace(since=source.since, where=source.path, alive=source.alive))
    return found


# -- reading


def _session_of(name: str) -> str:
    """The session whose folder has this name (`file_name` escapes what file systems do not take)."""
    session = re.sub("%([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
    return session if file_name(session) == name else name


def _sources_in(folder: Path) -> list[Source]:
    dead = _orphans_in(folder)
    theirs = {source.path for source in dead}
    living = [_living(path) for path in sorted(folder.glob(f"*{SUFFIX}")) if str(path) not in theirs]
    return [*dead, *(source for source in living if source is not None)]


def _living(path: Path) -> Source | None:
    """The outbox of a living process, as its page has it; None where it says nothing yet."""
    match read_page(Path(f"{path}{PAGE}")):
        case {
            "outbox": str(outbox), "source": str(source), "given": int(given), "base": int(base), "bytes": int(size),
            "settled": int(settled),
            "moved": int() | float() as moved, "moved_at": int() | float() as moved_at, "why": str(why), "pid": pid,
            "recorders": list(recorders),
        }:  # fmt: skip
            receipts = _receipts(recorders)
            count = max(0, given - settled)
            problem = next((told.problem for told in receipts if told.problem), "")
            why = problem or why
            if not why and time.monotonic() - moved > _ON_ITS_WAY_S:
                why = "no recorder has acknowledged it"
            return Source(
                source, count, str(path), alive=True, outbox=outbox, given=given, base=base, bytes=size,
                why=why if count else "", since=float(moved_at), pid=pid if isinstance(pid, int) else None,
                receipts=receipts,
            )  # fmt: skip
    return None


def _receipts(recorders: Iterable[object]) -> tuple[ReceiptFacts, ...]:
    found = []
    for told in recorders:
        match told:
            case [str(name), str(host), str(folder), int(acknowledged), str(problem)]:
                found.append(ReceiptFacts(name, host, folder, acknowledged, problem))
    return tuple(found)


def _orphans_in(folder: Path) -> list[Source]:
    found: list[Source] = []
    waiting = adopt(folder)
    while True:
        try:
            file = next(waiting)
        except StopIteration:
            return found
        except OutboxFailed as error:
            found.append(Source(str(error), 0, error.path, alive=False))
            continue
        try:
            found.append(_dead(file))
            file.close()
        except DecodeError as error:
            file.put_aside()
            found.append(Source(f"damaged: {error}", 0, f"{file.path}.damaged", alive=False))


def _dead(file: OutboxFile) -> Source:
    base = file.base
    said = read_page(Path(f"{file.path}{PAGE}")) or {}
    recorders = said.get("recorders")
    receipts = _receipts(recorders if isinstance(recorders, list) else ())
    try:
        since = file.path.stat().st_mtime
    except OSError:
        since = wall_time()
    settled = said.get("settled")
    count = file.last - min(max(base, settled if isinstance(settled, int) else base), file.last)
    return Source(
        file.source, count, str(file.path), alive=False, outbox=file.outbox, given=file.last, base=base,
        bytes=file.size, why=DEAD, since=since, receipts=receipts, ledger=file.ledger,
    )  # fmt: skip
