"""Linux: the kernel kills the child when its parent dies (PR_SET_PDEATHSIG).

The traps: the signal is tied to the *thread* that forked, so only the main thread may spawn; a child that changes its
user loses the setting, so the engine must run as the user that started it.
"""

import ctypes
import os
import signal
import subprocess

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: after it, an import could deadlock


def spawn(command: list[str], folder: str) -> subprocess.Popen[bytes]:
    """Start the command in the folder, without stdin, stderr as a pipe, in a process group of its own.

    The group keeps a terminal's Ctrl-C away from it.
    """
    parent = os.getpid()
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
        preexec_fn=lambda: _die_with(parent),  # spawned while this process has one thread, or threads without locks
    )


def release(process: subprocess.Popen[bytes]) -> None:
    """Nothing to give back."""


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died between the fork and the call
        os._exit(1)
