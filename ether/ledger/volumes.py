"""The volumes of a ledger: which there are, where each is, and where its rows begin and end.

    FOLDER/                      the current volume, to which the writer appends; a ledger that was never rotated has
                                 only this one
    FOLDER/volumes/000001/       a closed, sealed volume: a ledger's folder itself, with a file `volume` more
    FOLDER/volumes/000002-1/     the same, written anew (rows deleted, or compressed): the highest number behind the
                                 hyphen counts

Rows are numbered through all volumes, and so is the chain of links: the first link of a volume follows on the last link
of the volume before. The database of the current volume says which number it has; the closed volumes are those below.

Promise: at each moment exactly one folder counts for each number, so a reader finds the whole ledger while volumes are
closed and replaced. The trap: a folder whose number is not below that of the current volume is the rest of a rotation
that was not finished; the current volume has the same rows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ether.ledger.durable import PART, sync_folder, write_whole
from ether.ledger.rows import first_link

FOLDER = "volumes"
FACTS = "volume"
"""A file of a closed volume: its `VolumeFacts` as JSON."""
ARCHIVED = "ledger.db.gz"
"""The compressed database of an archived volume; it has no `ledger.db` then."""
BACKUPS = "backups"
"""A file of the ledger: which backups have been made of it."""
ROTATE_NOW = "rotate-now"
"""A file that asks the ledger's writer to close the current volume; the writer removes it."""

_NAME = re.compile(r"(?P<number>\d{6,})(?:-(?P<generation>\d+))?")


class Beginning(NamedTuple):
    """Where a volume begins in its ledger."""

    volume: int
    """Its number, from 1."""
    first: int
    """The number of its first row."""
    follows: bytes
    """The link before its first row: the last one of the volume before, or what `first_link` says."""


def beginning_of(meta: Mapping[str, str]) -> Beginning:
    """Where the volume with this `meta` begins."""
    if "volume" not in meta:
        return Beginning(1, 1, first_link(meta.get("session", ""), meta.get("created", "")))
    return Beginning(int(meta["volume"]), int(meta["first"]), bytes.fromhex(meta["follows"]))


class VolumeFacts(NamedTuple):
    """What is known of a closed volume without opening its database."""

    volume: int
    first: int
    last: int
    """Its first and last row, also where these were deleted."""
    follows: str
    link: str
    """The link before its first row, and that of its last one, in hexadecimal."""
    created: float
    closed: float
    """Unix seconds by the recorder's clock, as `received`."""
    received: tuple[float, float] = (0.0, 0.0)
    """When its first and its last row came."""
    database: str = ""
    """The SHA-256 of the database before it was compressed; "" where it was not."""
    rows: int = 0
    """How many rows it has; fewer than it had where some were deleted."""


class Closed(NamedTuple):
    """A closed volume."""

    number: int
    generation: int
    folder: Path


def is_current(folder: Path) -> bool:
    """Whether the folder is that of a ledger, with its current volume, and not that of a closed one."""
    return not (folder / FACTS).exists()


def name_of(number: int, generation: int = 0) -> str:
    """The name of a closed volume's folder."""
    return f"{number:06d}-{generation}" if generation else f"{number:06d}"


def closed_volumes(ledger: Path, below: int | None = None) -> list[Closed]:
    """The closed volumes that count, by number. `below`: the number of the current volume."""
    found: dict[int, Closed] = {}
    for each in _folders(ledger, _names(ledger)):
        if (below is None or each.number < below) and each >= found.get(each.number, each):
            found[each.number] = each
    return [found[number] for number in sorted(found)]


def closed_volume(ledger: Path, number: int) -> Closed | None:
    """The folder that counts for a number; None where there is none. Each volume of a ledger is looked for when it is
    opened, so this has to be quick where there are thousands."""
    first = name_of(number)
    found = _folders(ledger, (name for name in _names(ledger) if name.startswith(first)))
    return max((each for each in found if each.number == number), default=None)


def _folders(ledger: Path, names: Iterable[str]) -> list[Closed]:
    matches = [(name, _NAME.fullmatch(name)) for name in names]
    return [
        Closed(int(match["number"]), int(match["generation"] or 0), ledger / FOLDER / name)
        for name, match in matches
        if match
    ]


def _names(ledger: Path) -> list[str]:
    try:
        return os.listdir(ledger / FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _paths(ledger: Path) -> list[Path]:
    return [ledger / FOLDER / name for name in sorted(_names(ledger))]


def remove_unfinished_rotation(ledger: Path, current: int) -> None:
    """Remove what a rotation that was not finished has left: the current volume has the same rows. For the ledger's
    writer. Raises `OSError`."""
    for path in _paths(ledger):
        match = _NAME.fullmatch(path.name.removesuffix(PART))
        if match and match["generation"] is None and int(match["number"]) >= current:
            remove_tree(path)


def remove_replaced(ledger: Path, current: int) -> list[str]:
    """Remove generations that were replaced, and new ones that were not finished; returns their names. For who holds
    the lock of the volumes. Raises `OSError`."""
    counted = {each.folder for each in closed_volumes(ledger)}
    gone = []
    for path in _paths(ledger):
        match = _NAME.fullmatch(path.name.removesuffix(PART))
        if match and int(match["number"]) < current and path not in counted:
            remove_tree(path)
            gone.append(path.name)
    return gone


def remove_tree(folder: Path) -> None:
    """Remove a folder, or a file, with everything in it; it may be gone already. Raises `OSError`."""
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    if folder.parent.is_dir():
        sync_folder(folder.parent)


def write_facts(folder: Path, facts: VolumeFacts) -> None:
    """Write the file `volume`. Raises `OSError`."""
    write_whole(folder / FACTS, [json.dumps(facts._asdict()).encode() + b"\n"])


def read_facts(folder: Path) -> VolumeFacts | None:
    """The facts of a closed volume; None where the file is missing or damaged."""
    try:
        told = json.loads((folder / FACTS).read_text("utf-8"))
        facts = VolumeFacts(**{name: told[name] for name in VolumeFacts._fields if name in told})
        return facts._replace(received=(float(facts.received[0]), float(facts.received[1])), last=int(facts.last))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None


def size_of(folder: Path, *, without: str = "") -> int:
    """How many bytes the files in a folder have; `without`: the name of a folder in it that is left out."""
    sizes = 0
    for path in folder.rglob("*"):
        if path.relative_to(folder).parts[0] != without:
            try:
                sizes += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:
                continue
    return sizes
