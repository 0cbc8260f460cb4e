"""What changed in the code between two runs, line by line, out of what their contexts have kept.

Files that both have kept are compared as they are. Of a file that only one has kept, because at the other it was as in
the commit, that one's part of `git diff` says what changed. Of two commits only what was kept can be compared; the rest
is in the repository, and is pointed to.
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
    """Where a run's code stood: the commit (None without git), and whether it had changes that are in no commit."""

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
    """How the code of some instances differs. `diff` is a unified diff, "" where nothing that was kept differs; `hint`
    says where the rest is."""

    instances: tuple[str, ...]
    before: Revision
    after: Revision
    diff: str
    hint: str = ""


def code_differences(
    reader_a: LedgerReader, reader_b: LedgerReader, pairs: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]
) -> Iterator[CodeDifference]:
    """The differences between the `code` of instances' contexts, each once, with the instances that have it."""
    pairs = list(pairs)
    kept_before, kept_after = _kept_by_tree(before for _, before, _ in pairs), _kept_by_tree(x for _, _, x in pairs)
    found: dict[tuple[Revision, Revision, str, str], list[str]] = {}
    for name, before, after in pairs:
        if _said(before) == _said(after):
            continue
        sides = _Side(reader_a, before, kept_before), _Side(reader_b, after, kept_after)
        diff = "".join(_file_diffs(*sides))
        revisions = revision(before), revision(after)
        found.setdefault((*revisions, diff, _hint(*revisions, diff)), []).append(name)
    for (was, now, diff, hint), names in found.items():
        yield CodeDifference(tuple(names), was, now, diff, hint)


def revision(code: Mapping[str, Any]) -> Revision:
    """Where this code stood."""
    git = code.get("git") or {}
    return Revision(git.get("commit"), bool(git.get("dirty")), git.get("branch"), git.get("remote"))


def sections(diff: str) -> dict[str, str]:
    """The parts of a `git diff` by path."""
    parts = (part for part in _SECTION.split(diff) if part.startswith("diff --git "))
    return {(named["path"] if (named := _NAMED.match(part)) else part.partition("\n")[0]): part for part in parts}


_Kept = Mapping[tuple[object, object], Mapping[str, str]]
"""Files by the state of the tree in which they were: its commit and its diff."""


def _kept_by_tree(codes: Iterable[Mapping[str, Any]]) -> _Kept:
    """What all instances of a run have kept: who shares a state of the tree shares the files, and a change of one shows
    as itself with all of them, and not as a difference between two diffs."""
    kept: dict[tuple[object, object], dict[str, str]] = {}
    for code in codes:
        kept.setdefault(_tree(code), {}).update(code.get("files") or {})
    return kept


def _tree(code: Mapping[str, Any]) -> tuple[object, object]:
    git = code.get("git") or {}
    return git.get("commit"), git.get("diff")


class _Side:
    """What one run has kept of its code, read when it is asked for."""

    def __init__(self, reader: LedgerReader, code: Mapping[str, Any], kept: _Kept) -> None:
        self._reader = reader
        git = code.get("git") or {}
        own: Mapping[str, str] = code.get("files") or {}
        self.files = {**kept.get(_tree(code), {}), **own} if git.get("commit") else own
        self.commit = git.get("commit")
        self.sections = sections(self.text(git["diff"])) if git.get("diff") else {}

    def text(self, sha256: str) -> str:
        content = self._reader.artifact(sha256)
        return "" if content is None else content.decode(errors="replace")


def _said(code: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells one state of the code from another; where its folder is does not."""
    git = code.get("git") or {}
    return code.get("file"), code.get("sha256"), code.get("files"), git.get("commit"), git.get("diff")


def _file_diffs(old: _Side, new: _Side) -> Iterator[str]:
    paths = sorted({*old.files, *new.files, *old.sections, *new.sections})
    for path in paths:
        yield _file_diff(path, old, new)


def _file_diff(path: str, old: _Side, new: _Side) -> str:
    if path in old.files and path in new.files:
        return "" if old.files[path] == new.files[path] else _unified(path, _kept(old, path), _kept(new, path))
    before, after = old.sections.get(path, ""), new.sections.get(path, "")
    if before and after:
        return "" if before == after else _unified(path, before, after)
    if before or after:
        return after or reversed_diff(before)
    if path in old.files and old.commit != new.commit:
        return ""  # it may be a part of the later commit: the hint says how to see that
    return _unified(path, _kept(old, path), _kept(new, path))


def _kept(side: _Side, path: str) -> str:
    return side.text(side.files[path]) if path in side.files else ""


def _unified(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


_HUNK = re.compile(r"@@ -(?P<old>[0-9,]+) \+(?P<new>[0-9,]+) @@")


def reversed_diff(section: str) -> str:
    """The part of a diff that undoes this one. Removed lines stay before added ones. Of a binary file only the heading
    is told."""
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
