"""Which machine this is, as a mark in the reply topics of its programs: who shares a clock with whom."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache


def reply_client(source: str) -> str:
    """An unguessable name for a program's reply topic that also says on which machine it runs."""
    return f"{source}-{_mark()}-{os.urandom(8).hex()}"


def is_of_this_machine(reply_topic: str | None) -> bool:
    """True for a reply topic of a program on this machine."""
    return reply_topic is not None and f"-{_mark()}-" in reply_topic


@cache
def _mark() -> str:
    """The same for every program of one boot of one machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            seed = file.read()
    except OSError:  # not Linux
        seed = ""
    return hashlib.blake2b(f"{socket.gethostname()} {seed}".encode(), digest_size=4).hexdigest()
