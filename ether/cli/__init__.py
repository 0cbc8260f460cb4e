"""The command line: `ether …`. A program can do everything that it does with `ether.ether`, too.

Rooms: `lab` (a running session), `data` (what was recorded), `runs`, `machines` (this computer and its services) and
`make` (files). The trap: starting must take less than 200 ms. So `ether.cli.main` imports the module of one command
alone, and rich is imported only where something is drawn.
"""
