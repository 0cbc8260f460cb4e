"""The git repository of a folder: its commit, and how the files differ from it.

git runs as a program of its own, without a shell and with a deadline; without locks, so that it disturbs no other git;
and without the hooks, pagers and filters of the user's settings, so that its answer depends on the repository alone.

Promise: `git_state()` and `difference()` never raise and never take longer than a few deadlines; where git gives no
answer, the result gives the reason. The trap: files larger than `FILE_MAX` are left out of the diff, which then names
them, and a diff longer than `DIFF_MAX` is cut. The content of such files is not recorded.
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
"""Bytes of a diff that are recorded."""

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
    """The output of `git diff HEAD`. `left_out`: paths of files that are too large; `cut`: its full length in bytes if
    it was cut, else None; `masked`: whether secrets were masked in it; `problem`: the reason where there is none."""

    content: bytes = b""
    left_out: tuple[str, ...] = ()
    cut: int | None = None
    masked: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NoGit:
    """git gave no answer; `why` is the reason."""

    why: str


@dataclass(frozen=True, slots=True)
class _Output:
    """What git printed; `problem` is the reason where it failed."""

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
    """How the tracked files differ from the commit."""
    large = tuple(path for path in state.changed if _size(os.path.join(state.root, path)) > FILE_MAX)
    small = [path for path in state.changed if path not in large]
    if state.commit is None or not small:
        return Difference(left_out=large)
    # Without paths git compares everything; the paths are named only to leave out the large files.
    answer = _git(state.root, *_DIFF, "--", *(small if large else ()))
    if answer.problem:
        return Difference(left_out=large, problem=answer.problem)
    diff = without_secrets(answer.out)
    cut = None if len(diff) <= DIFF_MAX else len(diff)
    return Difference(diff[:DIFF_MAX], large, cut, diff != answer.out)


def tracked(state: GitState, paths: Sequence[str]) -> set[str]:
    """Those of the paths, relative to the root, that the repository tracks."""
    found: set[str] = set()
    for begin in range(0, len(paths), _CHUNK):
        answer = _git(state.root, "ls-files", "-z", "--", *paths[begin : begin + _CHUNK])
        found.update(os.fsdecode(answer.out).split("\0"))
    return found & set(paths)


def without_secrets(diff: bytes) -> bytes:
    """A diff without secrets: passwords of URLs are masked in all files, settings with a secret's name in files of
    settings."""
    return b"".join(map(_masked_section, _SECTION.split(diff)))


def _masked_section(section: bytes) -> bytes:
    text = section.decode("utf-8", "surrogateescape")
    masked = masked_settings(text) if _SETTINGS_FILE.match(section) else without_url_passwords(text)
    return masked.encode("utf-8", "surrogateescape")


def _parsed(status: str) -> tuple[dict[str, str], list[str]]:
    """The headers of `git status --porcelain=v2 -z`, and the paths that changed. A line `1 …` is a changed file, `u …`
    one with a merge conflict; their paths are the 9th and the 11th field, and may have spaces in them."""
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
    answer = _git(root, "config", "--get", f"remote.{name}.url")
    url = os.fsdecode(answer.out).strip()
    return re.sub(r"://[^/@\s]*@", "://", url) or None


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # deleted: its content is in the commit
        return 0


def _git(folder: str, *words: str) -> _Output:
    """The output of git in a folder. It goes through files and not through pipes: a child of git that hangs and holds a
    pipe open would keep us waiting beyond the deadline."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"):
        environment.pop(name, None)  # a git hook that runs this process sets them, for another repository
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                [*_GIT, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                timeout=_DEADLINE_S, check=False,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            message = err.read(2000).decode(errors="replace").strip() or f"git ended with code {done.returncode}"
            return _Output(out.read(), "" if done.returncode == 0 else message)
    except FileNotFoundError as error:
        there = os.path.isdir(folder)
        return _Output(problem="git is not installed" if there else f"there is no folder {folder}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _Output(problem=f"git {words[0]} did not answer within {_DEADLINE_S:g} s")
    except OSError as error:
        return _Output(problem=f"git cannot be run: {error}")
