"""Windows: the child is put into a job object that ends its members when its last handle is closed.

This code never closes the handle: the system closes it when this process dies, however it dies. Written after the Win32
reference (CreateJobObjectW, JOBOBJECT_EXTENDED_LIMIT_INFORMATION); the automatic tests run on Linux only.
"""

import ctypes
import subprocess
from typing import Any

_EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
_KILL_ON_JOB_CLOSE = 0x2000
_NEW_PROCESS_GROUP = 0x0200

_jobs: dict[int, Any] = {}


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


def spawn(command: list[str], folder: str) -> subprocess.Popen[bytes]:
    """Start the command in the folder, without stdin, stderr as a pipe, in a process group and a job of its own."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        creationflags=_NEW_PROCESS_GROUP,
    )
    _jobs[process.pid] = _job_of(process)
    return process


def release(process: subprocess.Popen[bytes]) -> None:
    """Forget the job of a child that has ended; the system closes its handle with this process."""
    _jobs.pop(process.pid, None)


def _job_of(process: subprocess.Popen[bytes]) -> Any:
    kernel: Any = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009 (absent elsewhere)
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    limits = _ExtendedLimits()
    limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
    kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
    handle = ctypes.c_void_p(int(getattr(process, "_handle")))  # noqa: B009 (the only access to the handle there is)
    kernel.AssignProcessToJobObject(job, handle)
    return job
