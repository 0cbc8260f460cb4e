"""The logger for users' own code, under the name by which they import it. Nothing else belongs here."""

from __future__ import annotations

from ether.log import get_ether_logger

__all__ = ["get_ether_logger"]
