"""`python -m ether instance` is the process of one instance, which its launcher starts, `python -m ether template` one
that forks such processes; all else is the command line.

The trap: each of them must not load what only the others need, so they are imported late. Instances that are forked go
the same way as those that are not: `serve` returns in them.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    if len(sys.argv) == 3 and sys.argv[1] == "template":
        from ether.launch.template.server import serve

        if not serve():
            return 0
    if sys.argv[1:] != ["instance"]:
        from ether.cli.main import main as command_line

        return command_line()
    from ether import ether
    from ether.launch.child_main import main as live

    return live(ether.adopt)


if __name__ == "__main__":
    sys.exit(main())
