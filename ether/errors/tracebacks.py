"""How an error is shown: the frames of the user's code and the sentence, without Ether's inside.

The exception itself keeps its whole traceback and its causes: debuggers and `logging` see everything. What is shown of
an `EtherError` (by `sys.excepthook` in scripts, `_render_traceback_` in notebooks, Ether's log lines, the answer to a
caller) ends at the user's line, and a cause that is Ether's own is left out, because the sentence says it.
`ETHER_TRACEBACK=full` in the environment shows all of it.

The trap: between Ether's frames may stand the user's: a condition that `ether.wait_for()` calls. So frames are judged
one by one. Those of libraries count as the user's, unless Ether has called them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ether.secret_values import hidden

if TYPE_CHECKING:
    import threading
    from traceback import TracebackException

_OWN_CODE = str(Path(__file__).resolve().parents[1]) + os.sep
FULL = "full"
OWN = "_ends_at_users_line"
"""The attribute that every `EtherError` has."""


def shows_all() -> bool:
    """Whether the environment asks for whole tracebacks."""
    return os.environ.get("ETHER_TRACEBACK", "").lower() == FULL


def _is_own(error: BaseException) -> bool:
    return getattr(type(error), OWN, False) is True


def lines_of(error: BaseException) -> list[str]:
    """An error as it is shown, as `traceback.format_exception` returns it; never with Ether's frames, unless
    `ETHER_TRACEBACK=full`."""
    return [hidden(line) for line in _described(error).format()]


def user_traceback(error: BaseException) -> TracebackType | None:
    """The traceback of an exception of user code, without the frames through which Ether has called it; of an
    `EtherError` the user's frames alone. None where there are no others; an exception of somebody else's class is shown
    whole then, unless it names a line of the user's itself."""
    if shows_all():
        return error.__traceback__
    kept = list(_frames(error.__traceback__))
    if not kept and isinstance(error, SyntaxError) and _is_users_file(error.filename):
        return None  # the file could not be compiled: it has no frame, and the text of the error has its line
    if not _is_own(error):
        return _from_the_first(error.__traceback__, kept)
    built: TracebackType | None = None
    for each in reversed(kept):
        built = TracebackType(built, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return built


def line_of(traceback: TracebackType | None) -> tuple[str, int] | None:
    """File and line of a traceback's last frame; None without one."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return None if traceback is None else (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)


def _from_the_first(traceback: TracebackType | None, kept: list[TracebackType]) -> TracebackType | None:
    """An exception of somebody else's class is shown with all that follows its first frame outside of Ether."""
    while kept and traceback is not None and traceback is not kept[0]:
        traceback = traceback.tb_next
    return traceback


def _frames(traceback: TracebackType | None) -> Iterator[TracebackType]:
    """The frames that are neither Ether's, nor of libraries that Ether has called, nor of those that have called the
    user's program (`runpy`, IPython)."""
    libraries, inside, begun = _libraries(), False, False
    while traceback is not None:
        name = os.path.normcase(traceback.tb_frame.f_code.co_filename)
        if name.startswith(_OWN_CODE) or (inside and name.startswith("<")):  # code that was made of text
            inside = True
        elif not name.startswith(libraries):
            inside, begun = False, True
            yield traceback
        elif begun and not inside:
            yield traceback
        traceback = traceback.tb_next


def _is_users_file(name: str | None) -> bool:
    name = os.path.normcase(name or "<>")
    return not name.startswith(("<", _OWN_CODE, *_libraries()))


@cache
def _libraries() -> tuple[str, ...]:
    """What the names of files of installed libraries begin with; `<frozen …>` are modules of the interpreter."""
    import sysconfig

    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(os.path.normcase(folder) + os.sep for folder in folders), "<frozen")


def _described(error: BaseException) -> TracebackException:
    from traceback import TracebackException

    if shows_all():
        return TracebackException.from_exception(error)
    described = TracebackException(type(error), error, user_traceback(error), compact=True)
    _leave_out_own(described, error, {id(error)})
    return described


def _leave_out_own(described: Any, error: BaseException, seen: set[int]) -> None:
    """Leave the heading of a traceback without frames out, and the causes of an `EtherError` that have no frame of the
    user's."""
    if not described.stack:
        described.stack = None
    own = _is_own(error)
    described.__cause__ = _shown_cause(error.__cause__, seen, own)
    described.__context__ = None if error.__suppress_context__ else _shown_cause(error.__context__, seen, own)


def _shown_cause(cause: BaseException | None, seen: set[int], own: bool) -> TracebackException | None:
    from traceback import TracebackException

    if cause is None or id(cause) in seen or (own and not any(_frames(cause.__traceback__))):
        return None
    seen.add(id(cause))
    described = TracebackException(type(cause), cause, user_traceback(cause), compact=True)
    _leave_out_own(described, cause, seen)
    return described


# -- scripts


def show_at_the_users_line() -> None:
    """Let an `EtherError` that ends the program, or one of its threads, be shown so. Does nothing where that is so
    already. Hooks that the user has set go on being called, also for these errors."""
    import threading

    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)
    if not isinstance(threading.excepthook, _ThreadHook):
        threading.excepthook = _ThreadHook(threading.excepthook)


class _Hook:
    """A `sys.excepthook` that shows an `EtherError` shortly, and leaves all others to the one before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if _is_own(error) and self._before is sys.__excepthook__ and sys.stderr is not None:
            sys.stderr.write("".join(lines_of(error)))
            sys.stderr.flush()
        else:
            self._before(kind, error, traceback)


class _ThreadHook:
    """The same for threads."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        import threading

        error = args.exc_value
        if error is not None and _is_own(error) and self._before is threading.__excepthook__ and sys.stderr:
            name = args.thread.name if args.thread is not None else "?"
            sys.stderr.write(f"Exception in thread {name}:\n{''.join(lines_of(error))}")
            sys.stderr.flush()
        else:
            self._before(args)


_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)


def sentence_of_traceback(text: str) -> str:
    """What a traceback's text says, in one sentence: the error, and the last line of code that it names."""
    frames = list(_FRAME.finditer(text))
    lines = [line for line in text.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else "nobody knows why"
    if not frames:
        return lines[0].strip() if lines else last
    return f"{last} ({Path(frames[-1]['file']).name}:{frames[-1]['line']})"
