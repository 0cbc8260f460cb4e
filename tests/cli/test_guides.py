"""The guides: their files are saved, their commands are typed, and print what the page says.

A block that begins with `# NAME.py` or `# NAME.yaml` is that file. Blocks of `console` are typed; those of `sh`, `r`,
`matlab`, and Python without a name, need what a test does not have.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ETHER
from commands_here import ether_here
from ledgers import BEGAN, Source, make_ledger
from patience import patience

from ether.ledger.places import default_folder

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
LONG = os.environ.get("ETHER_LONG") == "1"
TYPED = [page for page in sorted(GUIDES.glob("*.md")) if "```console" in page.read_text()]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language of each block and its text."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def typed(block: str) -> Iterator[tuple[list[str], str]]:
    """The commands of a console block, and what each prints."""
    for command, printed in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        yield shlex.split(command), printed


def run(words: list[str], folder: Path) -> str:
    """What the command prints, on either stream."""
    if words[0] == "ether" and words[1] != "up":
        done = ether_here(folder, *words[1:])
        assert done.code == 0, (words, done)
        return done.out + done.err
    # what `ether up -d` starts must not become a child of the tests
    command = [sys.executable, *(ETHER if words[0] == "ether" else ()), *words[1:]]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=patience(60), check=False)
    assert ran.returncode == 0, (words, ran.stderr)
    return ran.stdout


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the guides read: the session `bench`, recorded."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    probe = Source("probe")
    for number in range(4):
        probe.add("room/temperature", {"celsius": 20.5 + number / 2}, BEGAN + number)
    make_ledger(default_folder("bench", os.environ), [probe])
    return tmp_path


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.stem)
def test_a_guide_can_be_followed(page: Path, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "phone" and not LONG:
        pytest.skip("it starts a session, as another guide does: ETHER_LONG=1 runs it")
    folder, checker, count = bench / "here", doctest.OutputChecker(), 0
    folder.mkdir()
    for kind, text in blocks(page.read_text()):
        if named := re.match(r"# ([\w.-]+\.(?:py|yaml))\n", text):
            (folder / named[1]).write_text(text)
        for words, wanted in typed(text) if kind == "console" else ():
            if words[0] == "cd":
                folder = folder / words[1]
                continue
            monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
            given = run(words, folder)
            assert checker.check_output(wanted, given, FLAGS), f"{shlex.join(words)} printed\n{given}\nnot\n{wanted}"
            count += 1
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(bench)):
            del sys.modules[name]
    assert count >= 1
    assert not os.listdir(os.environ["XDG_RUNTIME_DIR"]), "a session goes on"
