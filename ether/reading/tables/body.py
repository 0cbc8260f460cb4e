"""Cells of no type that a table has, as bytes."""

from __future__ import annotations

from ether.wire.binary import CONTENT_TYPE, join
from ether.wire.codec import decode
from ether.wire.values import flatten


def body_of(cell: object) -> bytes:
    """Any value that can be sent, as a binary body: also one that JSON could carry, so that a column has one form."""
    return join(*flatten(cell))


def value_of(body: bytes) -> object:
    """The value again."""
    return decode(body, CONTENT_TYPE)
