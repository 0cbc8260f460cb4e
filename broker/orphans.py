"""A child that cannot outlive this process, whatever kills this process.

For: the one place that knows how each operating system does it. One of three sibling modules is chosen here.

| system  | how | cost |
| ---     | --- | --- |
| Linux   | the kernel sends SIGKILL to the child when its parent dies | none |
| Windows | a job object that ends its members when its last handle is closed | none |
| others  | a shell that waits for the end of a pipe which only this process holds open, then kills | one small
process |

The trap: this is for the case that this process dies. In a normal end the caller stops its child itself, then calls
`release`.
"""

import sys

if sys.platform == "linux":
    from broker.orphans_linux import release, spawn
elif sys.platform == "win32":
    from broker.orphans_windows import release, spawn
else:
    from broker.orphans_posix import release, spawn

__all__ = ["release", "spawn"]
