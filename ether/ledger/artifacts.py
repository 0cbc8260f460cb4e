"""What contexts refer to by its SHA-256: source files, differences, lists of packages, configurations. Kept once."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Artifact(NamedTuple):
    """A text or file; `name` says what it is, for people."""

    sha256: str
    name: str
    content: bytes


def artifact(name: str, content: bytes) -> Artifact:
    """The artifact of this content."""
    return Artifact(hashlib.sha256(content).hexdigest(), name, content)
