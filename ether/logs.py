"""Log lines: one format for the main program and every instance.

    2025-01-16 11:28:42.765 - Ether:51475 - INFO - Starting Ether session: bench...

Loggers are the standard library's; `get_ether_logger` attaches nothing and writes nothing. A console is installed
by whoever owns the process: `ether.tap()` in the main program, the child's main in an instance. In the main program
it stays silent as soon as the user configures logging: then records go where the user sends them, once.

The trap: several threads log at once and several processes share a terminal. A record is therefore written by
a single call, traceback included, so that no other line comes between its own.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from ether.errors import ConfigError

ROOT_NAME = "Ether"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def get_ether_logger(name: str = ROOT_NAME, log_level: int | str | None = None) -> logging.Logger:
    """A standard logger below Ether's own, shown in log lines as `name`.

    `log_level` is a number or one of DEBUG, INFO, WARNING, ERROR, CRITICAL; None leaves the level as it is (INFO,
    where nobody chose one). Raises `ConfigError`, a `ValueError`, for another word.
    """
    is_framework = name in ("", ROOT_NAME) or name.startswith(f"{ROOT_NAME}.")
    logger = logging.getLogger((name or ROOT_NAME) if is_framework else f"{ROOT_NAME}.{name}")
    if log_level is not None:
        logger.setLevel(_checked_level(log_level))
    return logger


def install_console(process_name: str | None = None, stream: TextIO | None = None) -> None:
    """Show Ether's records, from INFO up, on `stream` (default: what `sys.stderr` is at that moment).

    `process_name` stands in for `Ether` in the lines. Calling again replaces the console. Where logging's root has
    handlers, now or later, nothing is shown here, because the user's own configuration shows it; a `stream` that
    was given explicitly is written to in any case.
    """
    console = _Console(_NamedLines(process_name or ROOT_NAME), stream)
    if stream is None:
        console.addFilter(_nobody_else_listens)
    _install(logging.getLogger(ROOT_NAME), console, respect_level=True)


def install_instance_console(instance_name: str, stream: TextIO | None = None) -> None:
    """Show every record of this process under `instance_name`: Ether's and the user's from INFO up, those of
    installed libraries from WARNING up. For the process of an instance, which is Ether's own."""
    console = _Console(_InstanceLines(instance_name), stream)
    console.addFilter(_LibrariesFromWarning())
    _install(logging.getLogger(), console, respect_level=False)


def uninstall_console() -> None:
    """Take away what the two functions above installed, levels included. Without a console, nothing happens."""
    for logger in (logging.getLogger(), logging.getLogger(ROOT_NAME)):
        for handler in [handler for handler in logger.handlers if isinstance(handler, _Console)]:
            logger.removeHandler(handler)
            logger.setLevel(handler.level_before)
            handler.close()


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


class _Lines(logging.Formatter):
    """The format of a line; subclasses say whose line it is."""

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
    """The main program: each logger under its own name, Ether's own under the name of the process."""

    def __init__(self, process_name: str) -> None:
        super().__init__()
        self._process_name = process_name

    def name_and_message(self, record: logging.LogRecord) -> tuple[str, str]:
        name = self._process_name if record.name == ROOT_NAME else _short(record.name)
        return name, record.message


class _InstanceLines(_Lines):
    """An instance: each line under the instance's name, a logger of another name in brackets."""

    def __init__(self, instance_name: str) -> None:
        super().__init__()
        self._unmarked = {ROOT_NAME, "root", instance_name}
        self._instance_name = instance_name

    def name_and_message(self, record: logging.LogRecord) -> tuple[str, str]:
        logger = _short(record.name)
        message = record.message if logger in self._unmarked else f"[{logger}] {record.message}"
        return self._instance_name, message


class _LibrariesFromWarning(logging.Filter):
    """Keeps installed libraries quiet below WARNING, told from the user's code by where their files are."""

    def __init__(self) -> None:
        super().__init__()
        import sysconfig  # 2 ms, and of use in instances only

        paths = sysconfig.get_paths()
        folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        # "<frozen …>": the parts of the standard library that are built into the interpreter
        self._prefixes = (*(os.path.normcase(folder) + os.sep for folder in folders), "<frozen")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING or record.name.partition(".")[0] == ROOT_NAME:
            return True
        return not os.path.normcase(record.pathname).startswith(self._prefixes)


def _install(logger: logging.Logger, console: _Console, *, respect_level: bool) -> None:
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Console)]:
        logger.removeHandler(handler)
        logger.setLevel(handler.level_before)
    console.level_before = logger.level
    if logger.level == logging.NOTSET or not respect_level:
        logger.setLevel(logging.INFO)
    logger.addHandler(console)


def _nobody_else_listens(record: logging.LogRecord) -> bool:
    return not logging.getLogger().handlers


def _short(name: str) -> str:
    return name.removeprefix(f"{ROOT_NAME}.")


def _checked_level(level: int | str) -> int | str:
    if isinstance(level, int):
        return level
    if level.upper() not in _LEVELS:
        raise ConfigError(f"found the log level {level!r:.40}; expected a number or one of {', '.join(_LEVELS)}.")
    return level.upper()
