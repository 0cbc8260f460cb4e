"""Ether: ordinary Python classes as parts of a running lab.

    from ether import ether, ether_pub, ether_sub

`ether` is the one object; the decorators only mark. Importing does nothing else: no thread, no socket, no file.
"""

from ether.api import Ether
from ether.decorators import (
    ether_cleanup,
    ether_every,
    ether_get,
    ether_init,
    ether_pub,
    ether_save,
    ether_save_all,
    ether_shutdown,
    ether_start,
    ether_sub,
    ether_sync,
)
from ether.version import VERSION

__version__ = VERSION

ether = Ether()
"""This program's way into a session."""

__all__ = [
    "Ether",
    "__version__",
    "ether",
    "ether_cleanup",
    "ether_every",
    "ether_get",
    "ether_init",
    "ether_pub",
    "ether_save",
    "ether_save_all",
    "ether_shutdown",
    "ether_start",
    "ether_sub",
    "ether_sync",
]
