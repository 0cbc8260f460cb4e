"""`python -m ether instance` is what the launcher starts for each instance; anything else is the command line."""

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
