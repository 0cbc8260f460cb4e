"""What a system's refusal means for people: which limit is exhausted, how high it is, and how to raise it."""

from __future__ import annotations

import errno
import importlib
import sys


def limit_words(error: OSError) -> str:
    """Behind the text of an error: the limit that is exhausted, and what to do; empty for another error."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f": this program may not open more files{_value('RLIMIT_NOFILE')}; `ulimit -n 4096` allows more"
    if error.errno == errno.EAGAIN:
        return f": this user may not have more processes{_value('RLIMIT_NPROC')}; `ulimit -u` shows and raises that"
    if error.errno == errno.ENOMEM:
        return ": no memory is left for another process"
    return ""


def _value(name: str) -> str:
    """How high a limit is; empty where the system has none of the kind."""
    try:
        resource = importlib.import_module("resource")
        soft = resource.getrlimit(getattr(resource, name))[0]
    except (ImportError, AttributeError, OSError, ValueError):
        return ""
    return f" than {soft:,}" if soft >= 0 else ""


def narrow_locale_words(text: str) -> str:
    """Why a name with letters beyond ASCII is not found on this system; empty where that is not the cause."""
    if text.isascii() or sys.getfilesystemencoding().lower() not in ("ascii", "us-ascii"):
        return ""
    return ". The locale of this terminal is C, which has no letters beyond ASCII: set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
