"""A mark of this machine in the reply topics of its programs, by which a callee knows that the caller shares its clock.

The trap: the mark is compared by programs of different versions of Ether, so its form stays.
"""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache

NAMED = "-2"
"""The end of the name of a program that wants each answer on a topic that names who answers. Programs of the wire's
version 1 have another end, and get their answers on the topic itself."""


def reply_client(source: str) -> str:
    """An unguessable name for a program's reply topic, with the mark of this machine in it."""
    return f"{source}-{_mark()}-{os.urandom(8).hex()}{NAMED}"


def is_of_this_machine(reply_topic: str | None) -> bool:
    """Whether a reply topic is that of a program on this machine."""
    return reply_topic is not None and f"-{_mark()}-" in reply_topic


@cache
def _mark() -> str:
    """Eight hexadecimal digits, the same for every program of one boot of one machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            seed = file.read()
    except OSError:  # not Linux
        seed = ""
    return hashlib.blake2b(f"{socket.gethostname()} {seed}".encode(), digest_size=4).hexdigest()
