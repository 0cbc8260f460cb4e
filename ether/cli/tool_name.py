"""The name under which a command is in a session."""

from __future__ import annotations

import os

TOOL = "ether-cli-"
"""What the name of every command in a session begins with."""


def tool_name() -> str:
    """A name of this process alone, so that any number of commands may be in a session."""
    return f"{TOOL}{os.getpid()}-{os.urandom(3).hex()}"
