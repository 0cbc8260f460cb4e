"""Runs a command of Ether's on a machine of a test network: `command.py WORDS…`."""

from __future__ import annotations

import sys

from ether.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
