"""`python -m ether instance`: what the launcher starts for each instance."""

from __future__ import annotations

import sys


def main() -> int:
    """Returns the exit code."""
    if sys.argv[1:] != ["instance"]:
        print(
            "usage: python -m ether instance  (started by ether.tap(), with settings on standard input)",
            file=sys.stderr,
        )
        return 2
    from ether import ether
    from ether.process.child import main as live

    return live(ether.adopt)


if __name__ == "__main__":
    sys.exit(main())
