"""Log lines: one format for the main program and every instance.

    2025-01-16 11:28:42.765 - Ether:51475 - INFO - Starting Ether session: bench...

Loggers are the standard library's; `get_ether_logger` attaches nothing and writes nothing. The owner of the process
installs a console: `ether.tap()` in the main program, the child's main in an instance. In the main program the console
falls silent as soon as the user configures logging: records then go where the user sends them, once.

The trap: several threads log at once, and several processes share a terminal. So each record is written by a single
call, traceback included, and no other line comes between its own.

A second trap: any handler on the root logger makes `logging.basicConfig()` do nothing, and silences the console. So a
handler of Ether's that shows nothing is an `UnseenHandler`, which the console ignores.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache
from typing import Any, TextIO

from ether.errors import ConfigError
from ether.errors.tracebacks import lines_of
from ether.secret_values import hidden

ROOT_NAME = "Ether"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def get_ether_logger(name: str = ROOT_NAME, log_level: int | str | None = None) -> logging.Logger:
    """A standard logger below Ether's own, shown in log lines as `name`.

    `log_level` is a number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL; None leaves the level as it is (INFO by
    default). Raises `ConfigError`, a `ValueError`, for another word.
    """
    is_framework = name in ("", ROOT_NAME) or name.startswith(f"{ROOT_NAME}.")
    logger = logging.getLogger((name or ROOT_NAME) if is_framework else f"{ROOT_NAME}.{name}")
    if log_level is not None:
        logger.setLevel(_checked_level(log_level))
    return logger


def install_console(process_name: str | None = None, stream: TextIO | None = None) -> None:
    """Show Ether's records, from INFO up, on `stream` (default: what `sys.stderr` is at that moment).

    `process_name` replaces `Ether` in the lines. Calling again replaces the console. While the root logger has
    handlers, the console shows nothing, because the user's own configuration shows the records; an explicit `stream` is
    written to in any case.
    """
    console = _Console(_NamedLines(process_name or ROOT_NAME), stream)
    if stream is None:
        console.addFilter(_no_other_handler_shows)
    _install(logging.getLogger(ROOT_NAME), console, respect_level=True)


def install_instance_console(instance_name: str, stream: TextIO | None = None) -> None:
    """Show every record of this process under `instance_name`: Ether's and the user's from INFO up, those of installed
    libraries from WARNING up. For the process of an instance."""
    console = _Console(_InstanceLines(instance_name), stream)
    console.addFilter(LibrariesFromWarning())
    _install(logging.getLogger(), console, respect_level=False)


def set_level(level: int | str, logger: str = "") -> str:
    """Set a logger's level while the program runs; returns the name of the level that it had.

    `logger` is a name as the log lines show it; "" means all loggers that have no level of their own. The logger of a
    library that is named is shown from this level up, also below WARNING. Raises `ConfigError` for an unknown level.
    """
    checked = _checked_level(level)
    target = _logger_shown_as(logger)
    before = logging.getLevelName(target.level)
    target.setLevel(checked)
    if target.parent is None:  # the root: a level that a console has set for Ether's own logger would hide the change
        own = logging.getLogger(ROOT_NAME)
        if own.level != logging.NOTSET:
            own.setLevel(checked)
    for handler in logging.getLogger().handlers:
        for found in handler.filters:
            if isinstance(found, LibrariesFromWarning):
                found.let_pass(target.name)
    return before


def loggers_with_a_level() -> dict[str, str]:
    """The loggers that have a level of their own, by the names that log lines show, Ether's main one left out."""
    known = {name: found for name, found in logging.root.manager.loggerDict.items() if name != ROOT_NAME}
    return {
        _short(name): logging.getLevelName(found.level)
        for name, found in sorted(known.items())
        if isinstance(found, logging.Logger) and found.level != logging.NOTSET
    }


def uninstall_console() -> None:
    """Undo the two functions above, levels included. Does nothing without a console."""
    for logger in (logging.getLogger(), logging.getLogger(ROOT_NAME)):
        for handler in [handler for handler in logger.handlers if isinstance(handler, _Console)]:
            logger.removeHandler(handler)
            logger.setLevel(handler.level_before)
            handler.close()


class UnseenHandler(logging.Handler):
    """A handler that shows nothing to the user: the console does not fall silent for it."""


class _Console(logging.StreamHandler[TextIO]):
    """Writes each record with one call, and follows `sys.stderr`, which notebooks and test runners replace."""

    level_before = logging.NOTSET

    def __init__(self, lines: logging.Formatter, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follows_stderr = stream is None
        self.setFormatter(lines)

    def emit(self, record: logging.LogRecord) -> None:
        if self._follows_stderr:
            self.stream = sys.stderr
        super().emit(record)


class UserTracebacks(logging.Formatter):
    """Shows exceptions as `ether.errors.tracebacks` does: the user's frames, without Ether's inside.

    The trap: formatters leave their text in the record for the next one, so it is made anew here, and not left."""

    def format(self, record: logging.LogRecord) -> str:
        theirs = record.exc_text
        if record.exc_info:
            record.exc_text = None
        try:
            return hidden(super().format(record))
        finally:
            record.exc_text = theirs

    def formatException(self, ei: Any) -> str:  # noqa: N802 (the standard library's name)
        return "".join(lines_of(ei[1])).rstrip("\n") if ei[1] is not None else super().formatException(ei)


class _Lines(UserTracebacks):
    """The format of a line; subclasses choose the name in it."""

    default_msec_format = "%s.%03d"

    def usesTime(self) -> bool:  # noqa: N802 (the standard library's name)
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the standard library's name)
        name, message = self.name_and_message(record)
        # logging.logProcesses = False leaves the pid out of the record
        pid = record.process or os.getpid()
        return f"{record.asctime} - {name}:{pid} - {record.levelname} - {message}"

    def name_and_message(self, record: logging.LogRecord) -> tuple[str, str]:
        raise NotImplementedError


class _NamedLines(_Lines):
    """For the main program: each logger under its own name, Ether's main one under the name of the process."""

    def __init__(self, process_name: str) -> None:
        super().__init__()
        self._process_name = process_name

    def name_and_message(self, record: logging.LogRecord) -> tuple[str, str]:
        name = self._process_name if record.name == ROOT_NAME else _short(record.name)
        return name, record.message


class _InstanceLines(_Lines):
    """For an instance: each line under the instance's name, a logger of another name in brackets."""

    def __init__(self, instance_name: str) -> None:
        super().__init__()
        self._unmarked = {ROOT_NAME, "root", instance_name}
        self._instance_name = instance_name

    def name_and_message(self, record: logging.LogRecord) -> tuple[str, str]:
        logger = _short(record.name)
        message = record.message if logger in self._unmarked else f"[{logger}] {record.message}"
        return self._instance_name, message


class LibrariesFromWarning(logging.Filter):
    """Drops records below WARNING of installed libraries, which it recognises by the folders of their files."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes = _library_prefixes()
        self._let_pass: tuple[str, ...] = ()

    def let_pass(self, logger: str) -> None:
        """Let every record of this logger and the loggers below it pass; the root logger is ignored."""
        if logger != logging.getLogger().name and f"{logger}." not in self._let_pass:
            self._let_pass = (*self._let_pass, f"{logger}.")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or record.name.partition(".")[0] == ROOT_NAME:
            return True
        if self._let_pass and f"{record.name}.".startswith(self._let_pass):
            return True
        return not os.path.normcase(record.pathname).startswith(self._prefixes)


@cache
def _library_prefixes() -> tuple[str, ...]:
    import sysconfig  # 2 ms, and needed in instances only

    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    # "<frozen …>": modules of the standard library that are built into the interpreter
    return (*(os.path.normcase(folder) + os.sep for folder in folders), "<frozen")


def _install(logger: logging.Logger, console: _Console, *, respect_level: bool) -> None:
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Console)]:
        logger.removeHandler(handler)
        logger.setLevel(handler.level_before)
    console.level_before = logger.level
    if logger.level == logging.NOTSET or not respect_level:
        logger.setLevel(logging.INFO)
    logger.addHandler(console)


def _no_other_handler_shows(record: logging.LogRecord) -> bool:
    return all(isinstance(handler, UnseenHandler) for handler in logging.getLogger().handlers)


def _logger_shown_as(name: str) -> logging.Logger:
    """The logger that log lines show under this name: a plain one, or one below Ether's."""
    known = logging.root.manager.loggerDict
    if name not in known and f"{ROOT_NAME}.{name}" in known:
        name = f"{ROOT_NAME}.{name}"
    return logging.getLogger(name or None)


def _short(name: str) -> str:
    return name.removeprefix(f"{ROOT_NAME}.")


def _checked_level(level: int | str) -> int | str:
    if isinstance(level, int):
        return level
    if level.upper() not in _LEVELS:
        raise ConfigError(f"found the log level {level!r:.40}; expected a number or one of {', '.join(_LEVELS)}.")
    return level.upper()
