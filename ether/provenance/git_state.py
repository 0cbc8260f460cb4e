"""What git says of a folder: which commit, and what is not in it.

git is asked as a program, by words and not through a shell, with a deadline; without locks, so that it disturbs no
git of the user's; without hooks, pagers and filters of the user's settings, so that its answer depends on the
repository alone.

Promise: `git_state()` and `difference()` never raise and never take longer than a few deadlines; where git gives no
answer they say why. The trap: files larger than `FILE_MAX` are left out of the difference and named instead, and a
difference longer than `DIFF_MAX` is cut: who has such files under git has to keep them by himself.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field

from ether.provenance.secrets import masked_settings, without_url_passwords

DIFF_MAX = 4 * 1024 * 1024
"""Bytes of a difference that are kept."""

FILE_MAX = DIFF_MAX
_DEADLINE_S = 5.0
_GIT = (
    "git", "--no-pager", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.quotepath=false", "-c", "core.hooksPath=/dev/null",
)  # fmt: skip
_DIFF = (
    "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames",
    "--src-prefix=a/", "--dst-prefix=b/", "--unified=3",
)  # fmt: skip
_SECTION = re.compile(rb"^(?=diff --git )", re.MULTILINE)
_SETTINGS_FILE = re.compile(rb"diff --git .*\.(?:ya?ml|toml|ini|cfg|conf|json|env|properties)\r?\n")
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class GitState:
    """A repository as it is now. `changed`: tracked paths, relative to `root`, that differ from the commit."""

    root: str
    commit: str | None
    branch: str | None
    remote: str | None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """What `git diff HEAD` says. `left_out`: paths of files that are too large; `cut`: how long it was, None where it
    is whole; `problem` says why there is none."""

    content: bytes = b""
    left_out: tuple[str, ...] = ()
    cut: int | None = None
    masked: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NoGit:
    """There is no answer, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class _Said:
    out: bytes = b""
    problem: str = field(default="")


def git_state(folder: str) -> GitState | NoGit:
    """The repository that holds a folder."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top.problem:
        return NoGit(top.problem)
    root = os.fsdecode(top.out).rstrip("\r\n")
    status = _git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--no-renames")
    if status.problem:
        return NoGit(status.problem)
    heads, changed = _parsed(os.fsdecode(status.out))
    commit, branch = heads.get("branch.oid"), heads.get("branch.head")
    return GitState(
        root,
        None if commit == "(initial)" else commit,
        None if branch == "(detached)" else branch,
        _remote(root, heads.get("branch.upstream", "")),
        tuple(sorted(changed)),
    )


def difference(state: GitState) -> Difference:
    """What the tracked files say that the commit does not."""
    large = tuple(path for path in state.changed if _size(os.path.join(state.root, path)) > FILE_MAX)
    small = [path for path in state.changed if path not in large]
    if state.commit is None or not small:
        return Difference(left_out=large)
    said = _git(state.root, *_DIFF, "--", *(small if large else ()))
    if said.problem:
        return Difference(left_out=large, problem=said.problem)
    kept = without_secrets(said.out)
    cut = None if len(kept) <= DIFF_MAX else len(kept)
    return Difference(kept[:DIFF_MAX], large, cut, kept != said.out)


def tracked(state: GitState, paths: Sequence[str]) -> set[str]:
    """Which of these paths, relative to the root, the repository keeps."""
    found: set[str] = set()
    for begin in range(0, len(paths), _CHUNK):
        said = _git(state.root, "ls-files", "-z", "--", *paths[begin : begin + _CHUNK])
        found.update(os.fsdecode(said.out).split("\0"))
    return found & set(paths)


def without_secrets(diff: bytes) -> bytes:
    """A difference without passwords: of URLs everywhere, of named settings in files of settings."""
    return b"".join(map(_masked_section, _SECTION.split(diff)))


def _masked_section(section: bytes) -> bytes:
    text = section.decode("utf-8", "surrogateescape")
    masked = masked_settings(text) if _SETTINGS_FILE.match(section) else without_url_passwords(text)
    return masked.encode("utf-8", "surrogateescape")


def _parsed(status: str) -> tuple[dict[str, str], list[str]]:
    """The headers of `git status --porcelain=v2 -z`, and the paths that changed."""
    heads: dict[str, str] = {}
    changed = []
    for line in status.split("\0"):
        if line.startswith("# "):
            name, _, value = line[2:].partition(" ")
            heads[name] = value
        elif line.startswith("1 "):
            changed.append(line.split(" ", 8)[8])
        elif line.startswith("u "):
            changed.append(line.split(" ", 10)[10])
    return heads, changed


def _remote(root: str, upstream: str) -> str | None:
    """The URL of the branch's remote, else of `origin`, without user and password."""
    name = upstream.partition("/")[0] or "origin"
    said = _git(root, "config", "--get", f"remote.{name}.url")
    url = os.fsdecode(said.out).strip()
    return re.sub(r"://[^/@\s]*@", "://", url) or None


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # deleted: what is left of it is in the commit
        return 0


def _git(folder: str, *words: str) -> _Said:
    """What git prints there. Its output goes through a file, so that a hung one is ended by its deadline."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"):
        environment.pop(name, None)  # set by a hook that runs us, they speak of another repository
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                [*_GIT, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                timeout=_DEADLINE_S, check=False,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            said = err.read(2000).decode(errors="replace").strip()
            return _Said(out.read(), "" if done.returncode == 0 else said or f"git ended with code {done.returncode}")
    except FileNotFoundError as error:
        there = os.path.isdir(folder)
        return _Said(problem="git is not installed" if there else f"there is no folder {folder}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _Said(problem=f"git {words[0]} did not answer within {_DEADLINE_S:g} s")
    except OSError as error:
        return _Said(problem=f"git cannot be run: {error}")
