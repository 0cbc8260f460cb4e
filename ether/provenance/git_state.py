"""The git repository of a folder: its commit, and how the files differ from it.

git runs as a program of its own, without a shell and with a deadline; without locks, so that it disturbs no other git;
and without hooks, pagers and the filters that the repository itself configures: nothing that a folder brings with it
is run, in submodules neither.

Promise: `git_state()` and `difference()` never raise and never take longer than a few deadlines; where git gives no
answer, the result gives the reason. The trap: files larger than `FILE_MAX` are left out of the diff, which then names
them, and a diff longer than `DIFF_MAX` is cut. The content of such files is not recorded.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ether.provenance.secrets import masked_settings, without_url_passwords
from ether.provenance.settings_files import kind_of, without_secrets_both

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
    "--ignore-submodules=dirty",
    "--src-prefix=a/", "--dst-prefix=b/", "--unified=3",
)  # fmt: skip
_STATUS = (
    "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=no", "--no-renames", "--ignore-submodules=dirty",
)  # fmt: skip
_FILTER = re.compile(r"(filter\..+)\.(?:clean|smudge|process|required)", re.DOTALL | re.IGNORECASE)
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
    """The output of `git diff HEAD`. `left_out`: paths of files that are too large, and of
    settings that cannot be understood; `cut`: its full length in bytes if
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
    off = _filters_off(root)
    if isinstance(off, NoGit):
        return off
    status = _git(root, *_STATUS, settings=off)
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
    settings = {path: kind for path in small if (kind := kind_of(path)) is not None}
    sections, left_out = _settings_sections(state.root, settings)
    out, others = b"", [path for path in small if path not in settings]
    if others:
        off = _filters_off(state.root)
        if isinstance(off, NoGit):
            return Difference(left_out=large, problem=off.why)
        # Without paths git compares everything; the paths are named only to leave out the others.
        answer = _git(state.root, *_DIFF, "--", *(others if len(others) < len(state.changed) else ()), settings=off)
        if answer.problem:
            return Difference(left_out=large, problem=answer.problem)
        out = answer.out
    diff = without_secrets(out) + b"".join(section for section, _ in sections)
    cut = None if len(diff) <= DIFF_MAX else len(diff)
    was_masked = without_secrets(out) != out or any(hides for _, hides in sections)
    return Difference(diff[:DIFF_MAX], (*large, *left_out), cut, was_masked)


def _settings_sections(root: str, settings: Mapping[str, str]) -> tuple[list[tuple[bytes, bool]], list[str]]:
    """The differences of files of settings, each with whether a secret was masked in it, and the paths of those that
    are left out: what cannot be understood might be a secret."""
    sections, left_out = [], []
    for path, kind in settings.items():
        section = _settings_section(root, path, kind)
        if section is None:
            left_out.append(path)
        else:
            sections.append(section)
    return sections, left_out


def _settings_section(root: str, path: str, kind: str) -> tuple[bytes, bool] | None:
    place = os.path.join(root, path)
    if os.path.islink(place):
        return None
    before = _git(root, "cat-file", "blob", f"HEAD:{path}")
    try:
        with open(place, "rb") as file:
            after: bytes | None = file.read()
    except FileNotFoundError:
        after = None
    except OSError:
        return None
    try:
        old, new = before.out.decode(), (after or b"").decode()
    except UnicodeDecodeError:
        return None
    both = without_secrets_both(kind, old, new)
    if both is None:
        return None
    names = "/dev/null" if before.problem else f"a/{path}", "/dev/null" if after is None else f"b/{path}"
    masked_old, masked_new = (each.splitlines(keepends=True) for each in both)
    lines = difflib.unified_diff(masked_old, masked_new, *names)
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    if not text:
        text = "(what differs is secret, or how it is written)\n"
    return f"diff --git a/{path} b/{path}\n{text}".encode("utf-8", "surrogateescape"), both != (old, new)


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


def _filters_off(root: str) -> tuple[str, ...] | NoGit:
    """Settings that turn off the filters which the repository itself configures: they are programs that git would run,
    and a folder from elsewhere brings its own `.git/config`. Filters of the user's settings (git-lfs) stay."""
    said = _git(root, "config", "--local", "--includes", "-z", "--name-only", "--get-regexp", r"^filter\.")
    names = {found[1] for key in os.fsdecode(said.out).split("\0") if (found := _FILTER.fullmatch(key))}
    if strange := next((name for name in sorted(names) if "=" in name or "\n" in name), None):
        return NoGit(f"{root} configures a filter that cannot be turned off: {strange!r:.80}")
    off = (f"{name}.{key}=" for name in sorted(names) for key in ("clean", "smudge", "process"))
    return tuple(word for setting in off for word in ("-c", setting)) + tuple(
        word for name in sorted(names) for word in ("-c", f"{name}.required=false")
    )


def _git(folder: str, *words: str, settings: Sequence[str] = ()) -> _Output:
    """The output of git in a folder. It goes through files and not through pipes: a child of git that hangs and holds a
    pipe open would keep us waiting beyond the deadline."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"):
        environment.pop(name, None)  # a git hook that runs this process sets them, for another repository
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                [*_GIT, *settings, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, timeout=_DEADLINE_S, check=False,
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
