"""Keys and credentials as values. No `repr` shows a secret; only `lab_key` touches a file."""

from __future__ import annotations

from ether.security.credentials import Credentials

__all__ = ["Credentials"]
