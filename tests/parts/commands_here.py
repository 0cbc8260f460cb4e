"""`ether` in the test's own process: the same code as in a shell from the words of the command line on.

It takes a tenth of the time of a process of its own, most of which is the start of a Python. The trap: what is about
that process (signals, what is imported, users' classes in its folder, what is logged on a terminal) needs one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ether.cli.main import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output, one JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_mistake(self, code: int, *said: str) -> None:
        """The user's mistake: this code, one line on standard error with these texts, no traceback."""
        assert self.code == code, self
        assert self.err.startswith("ether: "), self
        assert self.err.count("\n") == 1, self
        assert "Traceback" not in self.err, self
        for text in said:
            assert text in self.err, self


def ether_here(folder: Path, *words: str, **environment: str) -> Done:
    """Run one command in a folder, in this process. What is logged meanwhile goes to the test runner."""
    out, err = io.BytesIO(), io.BytesIO()
    shown = [io.TextIOWrapper(said, encoding="utf-8", write_through=True) for said in (out, err)]
    with pytest.MonkeyPatch.context() as patch, open(os.devnull) as nothing:
        patch.chdir(folder)
        patch.setattr(sys, "stdin", nothing)
        patch.setattr(sys, "path", list(sys.path))
        for name, value in {"COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        with _logging_as_it_was(), redirect_stdout(shown[0]), redirect_stderr(shown[1]):
            code = main(words)
    return Done(int(code), *(said.getvalue().decode() for said in (out, err)))


def offers(folder: Path, line: str, **environment: str) -> list[str]:
    """What the shell offers for a line whose cursor is at its end; nothing else may be printed."""
    words = line.split(" ")
    asked = {"_ETHER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in {**environment, **asked}.items():
            patch.setenv(name, value)
        try:
            with _logging_as_it_was(), redirect_stdout(out), redirect_stderr(err), contextlib.suppress(SystemExit):
                main([])
        finally:
            logging.disable(logging.NOTSET)
    assert err.getvalue() == ""
    return out.getvalue().split()


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """A command shows what Ether logs, in place of what this process has for that; this process goes on."""
    loggers = [logging.getLogger(name) for name in ("", "Ether")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
