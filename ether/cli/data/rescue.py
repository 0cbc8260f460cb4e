"""`ether rescue`: what was saved and is on no recorder's disk, because all processes of its session are gone.

For each session a program is started that does nothing but record: it takes over the outboxes of the dead, as any next
program of the session would. So each entry is recorded once, also where a rescue is killed and started again, and an
outbox of a living process is left alone.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ether.api import Ether
from ether.cli.exits import Exit
from ether.cli.options import Json
from ether.cli.output import print_json, print_line
from ether.errors import EtherError, NoLedger
from ether.ledger.places import find_ledger
from ether.recording.sources import Source, orphaned_outboxes, send_orphans_to, sessions_with_orphans
from ether.session.discovery.local_sessions import read_records

Sessions = Annotated[
    list[str] | None, typer.Argument(metavar="SESSION", help="Of these sessions; left out, of all on this machine.")
]
Into = Annotated[
    Path | None,
    typer.Option("--into", metavar="FOLDER", help="Into the ledger in this folder; left out, into the session's own."),
]
Look = Annotated[bool, typer.Option("--list", help="Show what there is, and leave it where it is.")]


@dataclass(frozen=True)
class Rescue:
    """What became of one session's outboxes. `brought` and `left` are numbers of entries; `why` says why some are
    left."""

    session: str
    ledger: str
    brought: int
    left: int
    why: str = ""


def rescue(session: Sessions = None, into: Into = None, look: Look = False, json: Json = False) -> int:
    """Bring home what ended programs have saved and no recorder has taken; code 1 where something is left."""
    waiting = {name: orphaned_outboxes(name) for name in session} if session else sessions_with_orphans()
    waiting = {name: outboxes for name, outboxes in waiting.items() if outboxes}
    if look:
        return _show(waiting, as_json=json)
    running = {record.session for record in read_records()}
    done = [
        _rescue(name, ledger, outboxes, into, runs=name in running)
        for name, of_session in waiting.items()
        for ledger, outboxes in _by_ledger(name, of_session, into).items()
    ]
    if json:
        print_json([asdict(each) for each in done])
    elif not done:
        print_line("nothing waits on this machine: all that was saved is in its ledger")
    for each in [] if json else done:
        print_line(f"{each.session}: {each.brought:,} entries brought into {each.ledger}")
        if each.left:
            print_line(f"  {each.left:,} are left: {each.why}")
    return Exit.FAILED if any(each.left or each.why for each in done) else Exit.OK


def _show(waiting: dict[str, list[Source]], *, as_json: bool) -> int:
    if as_json:
        print_json({name: [asdict(outbox) for outbox in outboxes] for name, outboxes in waiting.items()})
        return Exit.OK
    for name, outboxes in waiting.items():
        for outbox in outboxes:
            print_line(f"{name}: {outbox.count:,} entries of {outbox.source!r} in {outbox.path}")
    if not waiting:
        print_line("nothing waits on this machine: all that was saved is in its ledger")
    return Exit.OK


def _by_ledger(session: str, outboxes: list[Source], into: Path | None) -> dict[Path, list[Source]]:
    """The outboxes by the ledger that they belong into: `into`, or the one that their program's configuration named, or
    the session's own."""
    found: dict[Path, list[Source]] = {}
    for outbox in outboxes:
        named = None if outbox.ledger is None else Path(outbox.ledger)
        found.setdefault(into.absolute() if into else named or _ledger_of(session), []).append(outbox)
    return found


def _rescue(session: str, ledger: Path, outboxes: list[Source], into: Path | None, *, runs: bool) -> Rescue:
    count = sum(outbox.count for outbox in outboxes)
    if runs:
        return Rescue(session, str(ledger), 0, count, "the session runs: its own programs bring them home")
    config: dict[str, Any] = {
        "session": session,
        "broker": {"engine": "amqtt"},  # a broker of its own, wherever ETHER_BROKER points
        "record": {"topics": "all", "folder": str(ledger), "logs": False},
    }
    why = ""
    own = Ether()
    try:
        if into is not None:
            send_orphans_to(session, ledger)
        own.tap(config)
        own.shutdown()
    except EtherError as error:
        why = str(error)
    theirs = {outbox.path for outbox in outboxes}
    left = [outbox for outbox in orphaned_outboxes(session) if outbox.path in theirs]
    remaining = sum(outbox.count for outbox in left)
    unread = "; ".join(outbox.source for outbox in left if not outbox.outbox)
    return Rescue(session, str(ledger), count - remaining, remaining, why or unread)


def _ledger_of(session: str) -> Path:
    """Where the session's values belong where their program has named no ledger."""
    try:
        return find_ledger(session, os.environ)
    except NoLedger as error:
        return error.place
