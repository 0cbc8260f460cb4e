"""The command line: `ether …`. Everything it can do, a program can do with `ether.ether`, too.

The trap: starting must take less than 200 ms. A command's module is imported when that command was asked for, rich
only where something is drawn.
"""
