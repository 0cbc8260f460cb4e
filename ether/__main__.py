"""`python -m ether instance` is the process of one instance, which its launcher starts; all else is the command line.

The trap: each of the two must not load what only the other needs, so both are imported late.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    if sys.argv[1:] != ["instance"]:
        from ether.cli.main import main as command_line

        return command_line()
    from ether import ether
    from ether.launch.child_main import main as live

    return live(ether.adopt)


if __name__ == "__main__":
    sys.exit(main())
