"""The template process, from which instances are forked: one for each program that starts some, on Linux.

`server` is the process, `client` its launcher's side, `protocol` what they say to each other. `preload` imports what a
configuration asks for, and looks for what would harm; `birth` makes a forked process what an instance's process is.
"""
