"""What a launcher and its template process say to each other: JSON values, each one packet of a Unix socket.

    launcher                                     template process
    {"preload": [...], "import_path": [...]}  ->
                                              <- {"ready": true}  or  {"fault": why, "module": name, or null}
    {"name": ..., "mark": ...} and four files ->
                                              <- {"pid": ...} and a handle of the process, or {"error": [number, text]},
                                                 or {"changed": file}: it has imported what this source was before
                                              <- {"ended": pid, "code": ...}

The four files are the instance's standard input, output and error, and its working directory. The socket is the
template process's standard input: its end is the launcher's. The trap: a packet is cut where it is longer than the
buffer that takes it, and a socket takes only packets that fit into its own, hence `LONGEST`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ether.system.descendants import MARK

WORD = "template"
"""What `python -m ether` is told to become one. As long as "instance", whose place it holds: `birth.rename`."""
MARK_WIDTH = 40
"""The width of the mark in the environment of the process; that of an instance is written over it."""
NAME_WIDTH = 64
"""The room on the command line for an instance's name, in bytes."""
LONGEST = 64 * 1024
FILES = 4

Message = dict[str, Any]


def command_words() -> list[str]:
    """The words behind `python -m ether`."""
    return [WORD, "-" * NAME_WIDTH]


def is_template(words: Sequence[str]) -> bool:
    """Whether these words on the command line ask for a template process."""
    return list(words) == command_words()


def placeholder_mark(mark: str) -> dict[str, str]:
    """The mark of a template process, as an environment variable; `mark` is the one that its launcher's group gives."""
    return {MARK: mark.ljust(MARK_WIDTH, "0")}


def send(to: socket.socket, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
    """Send a message, and open files beside it. Raises `OSError` where the other side has ended."""
    socket.send_fds(to, [json.dumps(message).encode()], files)


def receive(of: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message, and the files that came with it; None where the other side has ended."""
    try:
        data, files, _, _ = socket.recv_fds(of, LONGEST, FILES)
    except OSError:
        return None
    for file in files:
        os.set_inheritable(file, False)
    return (json.loads(data), files) if data else None
