"""Archives: closed volumes are compressed, and stay readable by `data`, `why` and `verify`.

The database becomes `ledger.db.gz`, and each large payload that gains by it `objects/ab/abcdef….gz`; `gunzip` gives
back what was there, to the bit. As with a deletion, the volume is written beside the old one and takes its place when
it is whole; it is unpacked again and compared before that.

The trap: a reader unpacks the database of an archived volume into the system's temporary files each time (payloads one
by one, as they are asked for). So what is read often is better left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ether.errors import LedgerDamaged
from ether.ledger.durable import PART, make_folder, write_whole
from ether.ledger.head import NAME as HEAD
from ether.ledger.life.delete import Maintenance, check_seal
from ether.ledger.objects import FOLDER as OBJECTS
from ether.ledger.objects import PACKED, Objects, digest_of
from ether.ledger.packing import pack
from ether.ledger.rotation import finish_volume, link_or_copy
from ether.ledger.sqlite import DATABASE, ledger_errors
from ether.ledger.volumes import ARCHIVED, Closed, name_of, read_facts, remove_tree, size_of, write_facts

_WORTH = 0.95
"""A payload that stays above this part of its size is left as it is: pictures are mostly compressed already."""


class Archived(NamedTuple):
    """One volume that was compressed: its bytes before and after."""

    volume: int
    before: int
    after: int


def archive(maintenance: Maintenance, upto: float | None = None) -> Iterator[Archived]:
    """Compress the closed volumes that are not, one after the other. `upto`: only those whose last row came before
    (unix seconds). Raises `LedgerDamaged`, `LedgerFull`, `LedgerFailed`; the volumes before that one are done."""
    for closed in maintenance.closed():
        facts = read_facts(closed.folder)
        if (closed.folder / ARCHIVED).exists() or (facts and upto is not None and facts.received[1] >= upto):
            continue
        with ledger_errors(closed.folder):
            yield archived(closed)


def archived(closed: Closed) -> Archived:
    """Compress one closed volume. For who holds the lock of the volumes. Raises `LedgerDamaged`, `OSError`."""
    facts, digest = read_facts(closed.folder), digest_of(closed.folder / DATABASE)
    if facts is None:
        raise LedgerDamaged(closed.folder, "volume", "it cannot be read")
    check_seal(closed, digest, None)
    before = size_of(closed.folder)
    target = closed.folder.with_name(name_of(closed.number, closed.generation + 1))
    part = target.with_name(f"{target.name}{PART}")
    remove_tree(part)
    part.mkdir(mode=0o700)
    pack(closed.folder / DATABASE, part / ARCHIVED, digest)
    for path in Objects(closed.folder).files():
        same = part / OBJECTS / path.parent.name / path.name
        make_folder(same.parent)
        packed = same.with_name(f"{same.name}{PACKED}")
        pack(path, packed, path.name)
        if packed.stat().st_size > _WORTH * path.stat().st_size:
            packed.unlink()
            link_or_copy(path, same)
    write_whole(part / HEAD, [(closed.folder / HEAD).read_bytes()])
    write_facts(part, facts._replace(database=digest))
    finish_volume(part, target)
    remove_tree(closed.folder)
    return Archived(closed.number, before, size_of(target))
