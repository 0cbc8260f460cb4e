"""The file `head`: how many records a ledger has, and the last link of its chain.

A chain of hashes shows that none of its links was changed; it cannot show that its end was cut off. So the count and
the last link are written here after each commit, and synced before anything is acknowledged.

The file has two slots, which are written in turn. Promise: a torn write damages only the slot that it went to; the
other slot holds the state before. The trap: after a power loss the head may be one commit behind the records, but never
ahead of them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from ether.ledger.durable import sync_descriptor, sync_folder
from ether.wire.json_text import dumps, loads

NAME = "head"
SLOT_BYTES = 512
SLOTS = 2
_TEXT_BYTES = SLOT_BYTES - 65  # 64 hexadecimal digits and a newline


class Head(NamedTuple):
    """The state of a ledger. `turn` counts the writes of the file, so the slot with the higher one is the newer."""

    turn: int
    records: int
    link: str
    """The last link of the chain, in hexadecimal."""


class HeadFile:
    """The head file, open for writing. Raises `OSError`."""

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        self._turn = max((head.turn for head in read_slots(folder) if head), default=0)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            if os.fstat(self._descriptor).st_size != SLOTS * SLOT_BYTES:
                self._fill(folder)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _fill(self, folder: Path) -> None:
        """Give the file its full length. Later syncs then need no change of its length or place on the disk."""
        os.ftruncate(self._descriptor, SLOTS * SLOT_BYTES)
        sync_descriptor(self._descriptor)
        sync_folder(folder)

    def write(self, records: int, link: bytes, *, sync: bool = True) -> None:
        """Write the state of the ledger to the older slot, and sync it. Without `sync` a power cut may leave the head
        some commits behind the records, whose own log is synced before: never ahead of them."""
        head = Head(self._turn + 1, records, link.hex())
        os.lseek(self._descriptor, (head.turn % SLOTS) * SLOT_BYTES, os.SEEK_SET)
        written = os.write(self._descriptor, packed(head))
        if written != SLOT_BYTES:
            raise OSError(f"only {written} of {SLOT_BYTES} bytes went to {NAME}")
        if sync:
            sync_descriptor(self._descriptor)
        self._turn = head.turn

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def packed(head: Head) -> bytes:
    """One slot: JSON, spaces, its SHA-256 in hexadecimal, a newline."""
    text = dumps(list(head)).ljust(_TEXT_BYTES)
    return text + hashlib.sha256(text).hexdigest().encode() + b"\n"


def unpacked(slot: bytes) -> Head | None:
    """The state in a slot, None where its hash does not fit."""
    text, digest = slot[:_TEXT_BYTES], slot[_TEXT_BYTES:]
    if digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
        return None
    match loads(text.decode(), strict=True):
        case [int(turn), int(records), str(link)]:
            return Head(turn, records, link)
    return None


def slots_of(folder: Path) -> list[bytes]:
    """The bytes of the file's slots, none where there is no file."""
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return []
    return [content[at : at + SLOT_BYTES] for at in range(0, len(content), SLOT_BYTES)]


def read_slots(folder: Path) -> list[Head | None]:
    """The state in each slot, None for a slot that is damaged or was never written."""
    return [unpacked(slot) for slot in slots_of(folder)]


def read_head(folder: Path) -> Head | None:
    """The newest state in the file, None where there is none."""
    return max((head for head in read_slots(folder) if head), default=None)
