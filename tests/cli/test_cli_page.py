"""The session on the page about the command line runs, and prints what the page says."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from command_line import ETHER
from patience import patience

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def steps(page: str) -> Iterator[tuple[list[str], str]]:
    """The commands of its console blocks, and what each prints."""
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for step in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            yield step[0].split(), step[1]


def run(words: list[str], folder: Path) -> str:
    assert words[0] == "ether"
    done = subprocess.run(
        [sys.executable, *ETHER, *words[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout)
    return done.stdout


def test_the_session_on_the_page(tmp_path: Path) -> None:
    folder, checker = tmp_path, doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = list(steps(PAGE.read_text()))
    assert len(found) >= 9
    for words, wanted in found:
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        given = run(words, folder)
        assert checker.check_output(wanted, given, flags), f"{' '.join(words)} printed\n{given}\nnot\n{wanted}"
    assert not os.listdir(os.environ["XDG_RUNTIME_DIR"])
