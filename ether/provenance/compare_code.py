"""The changes of code between two runs, line by line, from the sources and diffs that their contexts refer to.

A file that was recorded for both runs is compared directly. A file that was recorded for one run alone was equal to its
commit in the other; then the part of the recorded `git diff` is the change. Between two commits only recorded files can
be compared; for the rest there is a hint that names the git command.

Promise: a difference that is shown is one that was recorded. The trap: an empty diff between two commits does not prove
that their code is equal.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ether.ledger.reader import LedgerReader

_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)
_NAMED = re.compile(r"diff --git a/(?P<path>.*) b/(?P=path)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Revision:
    """The revision of a run's code: the commit (None without git), and whether it had uncommitted changes (`dirty`)."""

    commit: str | None
    dirty: bool
    branch: str | None
    remote: str | None

    def __str__(self) -> str:
        if self.commit is None:
            return "no commit"
        return self.commit[:10] + (" with changes" if self.dirty else "")


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """The difference in the code of some instances. `diff` is a unified diff, "" where no recorded file differs; `hint`
    names what was not recorded, and where it is."""

    instances: tuple[str, ...]
    before: Revision
    after: Revision
    diff: str
    hint: str = ""


def code_differences(
    reader_a: LedgerReader, reader_b: LedgerReader, pairs: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
) -> Iterator[CodeDifference]:
    """The differences between the `code` parts of contexts, as (instance, before, after). Instances with the same
    difference share one result."""
    pairs = list(pairs)
    files_before, files_after = _files_by_tree(before for _, before, _ in pairs), _files_by_tree(x for _, _, x in pairs)
    found: dict[tuple[Revision, Revision, str, str], list[str]] = {}
    for name, before, after in pairs:
        if _state(before) == _state(after):
            continue
        sides = _Side(reader_a, before, files_before), _Side(reader_b, after, files_after)
        diff = "".join(_file_diffs(*sides))
        revisions = revision(before), revision(after)
        found.setdefault((*revisions, diff, _hint(*revisions, diff)), []).append(name)
    for (was, now, diff, hint), names in found.items():
        yield CodeDifference(tuple(names), was, now, diff, hint)


def revision(code: Mapping[str, Any]) -> Revision:
    """The revision in the `code` part of a context."""
    git = code.get("git") or {}
    return Revision(git.get("commit"), bool(git.get("dirty")), git.get("branch"), git.get("remote"))


def sections(diff: str) -> dict[str, str]:
    """The parts of a `git diff` by path."""
    parts = (part for part in _SECTION.split(diff) if part.startswith("diff --git "))
    return {(named["path"] if (named := _NAMED.match(part)) else part.partition("\n")[0]): part for part in parts}


_FilesByTree = Mapping[tuple[object, object], Mapping[str, str]]
"""By state of the working tree (commit and diff) the hash of each recorded file."""


def _files_by_tree(codes: Iterable[Mapping[str, Any]]) -> _FilesByTree:
    """The recorded files of all instances of a run. Instances that ran from one state of the tree share their files.
    So a changed file is compared as a file for all of them, also for an instance that has recorded only the diff."""
    files: dict[tuple[object, object], dict[str, str]] = {}
    for code in codes:
        files.setdefault(_tree(code), {}).update(code.get("files") or {})
    return files


def _tree(code: Mapping[str, Any]) -> tuple[object, object]:
    git = code.get("git") or {}
    return git.get("commit"), git.get("diff")


class _Side:
    """The recorded code of one run; the content of a file is read when it is needed."""

    def __init__(self, reader: LedgerReader, code: Mapping[str, Any], files: _FilesByTree) -> None:
        self._reader = reader
        git = code.get("git") or {}
        own: Mapping[str, str] = code.get("files") or {}
        self.files = {**files.get(_tree(code), {}), **own} if git.get("commit") else own
        self.commit = git.get("commit")
        self.sections = sections(self.text(git["diff"])) if git.get("diff") else {}

    def text(self, sha256: str) -> str:
        content = self._reader.artifact(sha256)
        return "" if content is None else content.decode(errors="replace")


def _state(code: Mapping[str, Any]) -> tuple[object, ...]:
    """The parts by which two states of the code differ. The folder that it stood in is not one of them."""
    git = code.get("git") or {}
    return code.get("file"), code.get("sha256"), code.get("files"), git.get("commit"), git.get("diff")


def _file_diffs(old: _Side, new: _Side) -> Iterator[str]:
    paths = sorted({*old.files, *new.files, *old.sections, *new.sections})
    for path in paths:
        yield _file_diff(path, old, new)


def _file_diff(path: str, old: _Side, new: _Side) -> str:
    """The change of one file, from the best that was recorded of it."""
    if path in old.files and path in new.files:
        return "" if old.files[path] == new.files[path] else _unified(path, _text(old, path), _text(new, path))
    # At most one side has the file itself; their diffs are against their commits.
    before, after = old.sections.get(path, ""), new.sections.get(path, "")
    if before and after:
        return "" if before == after else _unified(path, before, after)
    if before or after:  # on the other side the file was as in the commit: the change was made, or undone
        return after or reversed_diff(before)
    if path in old.files and old.commit != new.commit:
        return ""  # it may be a part of the later commit: the hint says how to see that
    return _unified(path, _text(old, path), _text(new, path))


def _text(side: _Side, path: str) -> str:
    return side.text(side.files[path]) if path in side.files else ""


def _unified(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


_HUNK = re.compile(r"@@ -(?P<old>[0-9,]+) \+(?P<new>[0-9,]+) @@")


def reversed_diff(section: str) -> str:
    """The diff of one file that undoes this one. Removed lines stand before added ones, as in every diff. For a binary
    file there is only the heading."""
    head, *hunks = re.split(r"^(?=@@ )", section, flags=re.MULTILINE)
    if not hunks:
        return f"{head.splitlines()[0]}\nthe change of this file was undone\n"
    return "".join([_reversed_head(head), *map(_reversed_hunk, hunks)])


def _reversed_head(head: str) -> str:
    old = next((line for line in head.splitlines() if line.startswith("+++ ")), "+++ /dev/null")
    new = next((line for line in head.splitlines() if line.startswith("--- ")), "--- /dev/null")
    return f"{head.splitlines()[0]}\n--- {_side('a', old)}\n+++ {_side('b', new)}\n"


def _side(letter: str, line: str) -> str:
    path = line[4:]
    return path if path == "/dev/null" else f"{letter}/{path.partition('/')[2]}"


def _reversed_hunk(hunk: str) -> str:
    title, *lines = hunk.splitlines(keepends=True)
    return "".join([_HUNK.sub(r"@@ -\g<new> +\g<old> @@", title), *_reversed_lines(lines)])


def _reversed_lines(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a hunk with + and - exchanged. What was added is removed now, so each block of changes is collected,
    and its removed lines are put first. A line `\\ No newline at end of file` belongs to the line before it."""
    removed: list[str] = []
    added: list[str] = []
    for line in lines:
        if line.startswith("-"):
            added.append("+" + line[1:])
        elif line.startswith("+"):
            removed.append("-" + line[1:])
        elif line.startswith("\\"):
            (removed or added).append(line)
        else:
            yield from (*removed, *added, line)
            removed, added = [], []
    yield from (*removed, *added)


def _hint(before: Revision, after: Revision, diff: str) -> str:
    if before.commit is None or after.commit is None or before.commit == after.commit:
        return "" if diff else "what differs was not kept: files that were too large, or beyond the limit"
    return f"the rest of what the commits differ in: git diff {before.commit[:10]} {after.commit[:10]}"
