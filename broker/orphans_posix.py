"""macOS and other POSIX systems: a shell guards the child.

The shell waits for the end of a pipe whose other end only this process holds. However this process dies, the system
closes that end, and the shell kills the child. The trap: the shell kills a process id. The guard must be gone before
the system can give that id to another process, so `release` comes right after the child has been waited for.
"""

import os
import subprocess

_guards: dict[int, tuple[subprocess.Popen[bytes], int]] = {}


def spawn(command: list[str], folder: str) -> subprocess.Popen[bytes]:
    """Start the command in the folder, without stdin, stderr as a pipe, in a process group of its own, under guard."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    _guards[process.pid] = _guard(process.pid)
    return process


def release(process: subprocess.Popen[bytes]) -> None:
    """End the guard of a child that has ended."""
    shell, ours = _guards.pop(process.pid)
    shell.kill()
    shell.wait()
    os.close(ours)


def _guard(pid: int) -> tuple[subprocess.Popen[bytes], int]:
    theirs, ours = os.pipe()  # neither is inherited, except as the guard's stdin
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f"read _; kill -9 {pid}"],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    os.close(theirs)
    return shell, ours
