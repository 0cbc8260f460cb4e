"""A git repository of the test's own, with a package that a program of its own imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from patience import patience

needs_git = pytest.mark.skipif(which("git") is None, reason="git is not installed")

PARTS = '''\
"""Parts of a bench."""

GAIN = 2


class Processor:
    def __init__(self, gain=GAIN, password=None):
        self.gain = gain

    def work(self, value):
        return value * self.gain
'''

_ASK = """
import base64, importlib, json, sys
sys.path.insert(0, sys.argv[1])
for name in json.loads(sys.argv[4]):
    importlib.import_module(name)
module, _, name = sys.argv[2].rpartition(".")
from ether.provenance.context import InstanceFacts, make_context
found = getattr(importlib.import_module(module), name)
context = make_context(InstanceFacts("processor", "birth", 1, sys.argv[2], found, kwargs=json.loads(sys.argv[3])))
kept = [(a.sha256, a.name, base64.b64encode(a.content).decode()) for a in context.artifacts]
print(json.dumps([context.sha256, context.content.decode(), kept]))
"""


@dataclass(frozen=True)
class Asked:
    """A context that another process made."""

    sha256: str
    content: bytes
    told: dict[str, Any]
    artifacts: dict[str, tuple[str, bytes]]
    """SHA-256 to name and content."""

    @property
    def code(self) -> dict[str, Any]:
        code = self.told["code"]
        assert isinstance(code, dict)
        return code

    def text(self, sha256: str) -> str:
        return self.artifacts[sha256][1].decode()

    def named(self, name: str) -> str:
        return next(content.decode() for known, content in self.artifacts.values() if known == name)


def ask_context(
    folder: Path, class_path: str = "parts.Processor", kwargs: dict[str, Any] | None = None,
    imports: tuple[str, ...] = (), **environment: str,
) -> Asked:  # fmt: skip
    """The context of a class in a folder, made by a process that imports it from there."""
    import base64

    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(folder), class_path, json.dumps(kwargs or {}), json.dumps(imports)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sha256, content, kept = json.loads(done.stdout)
    artifacts = {key: (name, base64.b64decode(text)) for key, name, text in kept}
    return Asked(sha256, content.encode(), json.loads(content), artifacts)


class Repository:
    """A repository with one commit that has `parts.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "bench")
        self.git("remote", "add", "origin", "https://ada:hush@example.org/lab.git")
        self.write("parts.py", PARTS)
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def change(self, name: str, before: str, after: str) -> None:
        text = (self.folder / name).read_text()
        assert text.count(before) == 1
        self.write(name, text.replace(before, after))

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a step")
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *words: str) -> str:
        who = {
            f"GIT_{role}_{what}": "lab@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env={**os.environ, **who, **alone},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
