"""Keys, certificates and permissions as values: nothing here is stored, and nothing is shown by accident."""

from __future__ import annotations

from ether.security.credentials import Credentials

__all__ = ["Credentials"]
