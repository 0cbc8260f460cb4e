"""The identity of a class's code: its source file, its commit, and the sources that the commit does not have.

In a git repository: commit, branch and remote, and the diff of the tracked files that have changed. Source files become
artifacts: of the modules that the process has imported from the repository, those that differ from the commit or are
not in it; of the class itself, and of its bases in the repository, always, so that it can be read and compared without
the repository. Outside of a repository: all modules that were imported from the same place. A class from a notebook or
a prompt: the text of its cell. A class of an installed package: its own file; its version is in the list of packages.

Promise: `code_identity()` imports nothing, changes nothing, and never raises because of the files that it finds. The
trap: it reads the files as they are now, so it has to be called while the instance is built, before an edit.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from ether.ledger.objects import Artifact, artifact
from ether.provenance.git_state import FILE_MAX, GitState, NoGit, difference, git_state, tracked
from ether.provenance.secrets import without_url_passwords

FILES_MAX = 200
"""Source files that are recorded for one class."""

BYTES_MAX = 8 * 1024 * 1024
"""Bytes of these files together."""

_SUFFIXES = (".py", ".pyw")
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """The description for a context, and the artifacts that it refers to."""

    described: dict[str, Any]
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class _Project:
    """The folder that the code of a class belongs to: the root of a repository, or the folder on the import path."""

    root: str
    git: GitState | None
    why_no_git: str = ""


def code_identity(class_path: str, found: type | None = None) -> CodeIdentity:
    """The code of a class that this process has imported. Without `found`, the class is looked up by its path among the
    loaded modules. The class path `__main__` means the running program."""
    own = found if found is not None else _loaded_class(class_path)
    module = own.__module__ if own is not None else _loaded_module(class_path)
    file = _source_file(module)
    if file is None:
        return _cell_identity(own)
    if _is_installed(file):
        return _installed_identity(file)
    project = _project_of(file, module)
    bases = [_source_file(base.__module__) for base in own.__mro__] if own is not None else []
    return _project_identity(file, [file, *filter(None, bases)], project)


# -- a file in a project


def _project_of(file: str, module: str) -> _Project:
    folder = os.path.dirname(file)
    state = git_state(folder)
    if isinstance(state, GitState):
        return _Project(os.path.realpath(state.root), state)
    # Without git: go up from the file as many folders as the module's name has packages.
    depth = 0 if module == "__main__" else module.count(".")
    for _ in range(depth + 1 if os.path.basename(file) == "__init__.py" and depth else depth):
        folder = os.path.dirname(folder)
    return _Project(folder, None, state.why if isinstance(state, NoGit) else "")


def _project_identity(file: str, own_files: Iterable[str], project: _Project) -> CodeIdentity:
    """`file` is the class's own file; `own_files` are it and the files of its bases."""
    imported = {name: path for path in _imported_files() if (name := _inside(path, project.root)) is not None}
    imported |= {name: path for path in own_files if (name := _inside(path, project.root)) is not None}
    name = _inside(file, project.root) or os.path.basename(file)
    described: dict[str, Any] = {"file": name, "root": project.root, "sha256": _digest_of(file), "git": None}
    more: list[Artifact] = []
    if project.git is None:
        described["why_no_git"], wanted = project.why_no_git, imported
    else:
        known = tracked(project.git, sorted(imported))
        own = {_inside(path, project.root) for path in own_files}
        wanted = {
            name: path
            for name, path in imported.items()
            if name not in known or name in project.git.changed or name in own
        }
        described["git"] = _git_described(project.git, sorted(imported.keys() - known), more)
    sources = _SourceFiles()
    # The class's own file first, so that the limit never leaves it out.
    for source_name, path in sorted(wanted.items(), key=lambda item: (item[1] != file, item[0])):
        sources.add(source_name, path)
    return CodeIdentity({**described, **sources.described()}, (*more, *sources.artifacts))


def _git_described(state: GitState, untracked: list[str], more: list[Artifact]) -> dict[str, Any]:
    """The repository's part of the description; the diff is added to `more`."""
    described: dict[str, Any] = {
        "commit": state.commit, "branch": state.branch, "remote": state.remote,
        "dirty": bool(state.changed or untracked or state.commit is None),
        "changed": list(state.changed[:FILES_MAX]), "untracked": untracked[:FILES_MAX], "diff": None,
    }  # fmt: skip
    if not state.changed:
        return described
    diff = difference(state)
    if diff.content:
        more.append(artifact("changes.diff", diff.content))
        described["diff"] = more[-1].sha256
    notes = {"diff_cut_bytes": diff.cut, "diff_left_out": list(diff.left_out), "diff_problem": diff.problem}
    return {**described, **{key: value for key, value in notes.items() if value}, "diff_masked": diff.masked}


class _SourceFiles:
    """Collects source files as artifacts, up to the limits."""

    def __init__(self) -> None:
        self.artifacts: list[Artifact] = []
        self._files: dict[str, str] = {}
        self._left_out: list[str] = []
        self._bytes = 0

    def add(self, name: str, path: str) -> None:
        """Add one file, without passwords of URLs."""
        content = _content(path)
        full = len(self._files) >= FILES_MAX
        if full or content is None or len(content) > FILE_MAX or self._bytes + len(content) > BYTES_MAX:
            self._left_out.append(name)
        else:
            made = artifact(name, _without_secrets(content))
            self._files[name] = made.sha256
            self._bytes += len(content)
            self.artifacts.append(made)

    def described(self) -> dict[str, Any]:
        """The hashes of the files by name, and the names of the files that were left out."""
        described: dict[str, Any] = {"files": self._files}
        return {**described, "left_out": self._left_out[:FILES_MAX]} if self._left_out else described


# -- a class that has no file in a project


def _cell_identity(own: type | None) -> CodeIdentity:
    """A class from a notebook or a prompt: the text of its cell, which `linecache` has under the file name of the
    class's methods."""
    for function in _functions(own):
        lines = linecache.getlines(function.__code__.co_filename)
        if lines:
            made = artifact(function.__code__.co_filename, _without_secrets("".join(lines).encode()))
            described: dict[str, Any] = {"file": made.name, "root": None, "sha256": made.sha256, "git": None}
            described |= {"why_no_git": "not from a file", "files": {made.name: made.sha256}}
            return CodeIdentity(described, (made,))
    return CodeIdentity({"file": None, "root": None, "sha256": None, "git": None, "why_no_git": "no source was found"})


def _installed_identity(file: str) -> CodeIdentity:
    sources = _SourceFiles()
    sources.add(os.path.basename(file), file)
    why = "an installed package"
    described = {"file": file, "root": None, "sha256": _digest_of(file), "git": None, "why_no_git": why}
    return CodeIdentity({**described, **sources.described()}, tuple(sources.artifacts))


def _functions(own: type | None) -> Iterator[FunctionType]:
    """The functions of a class, also those inside of class methods, static methods, properties and decorators."""
    for value in vars(own).values() if own is not None else ():
        inner = getattr(value, "__func__", getattr(value, "fget", value))
        inner = getattr(inner, "__wrapped__", inner)
        if isinstance(inner, FunctionType):
            yield inner


# -- files


def _loaded_module(class_path: str) -> str:
    """The deepest module of a class path that is loaded; "" where none is."""
    parts = class_path.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in sys.modules), "")


def _loaded_class(class_path: str) -> type | None:
    """The class at a path whose module is loaded."""
    module = _loaded_module(class_path)
    found: object = sys.modules.get(module)
    for name in class_path[len(module) :].split(".")[1:]:
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None


def _source_file(module: str) -> str | None:
    """The .py file of a loaded module. The file of a program may have any name."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str) or not (module == "__main__" or file.endswith(_SUFFIXES)) or not os.path.isfile(file):
        return None
    return os.path.realpath(file)


def _imported_files() -> set[str]:
    """The source files of this process's modules, without those of installed packages."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = {file for file in files if isinstance(file, str) and file.endswith(_SUFFIXES)}
    return {os.path.realpath(file) for file in own if not _is_installed(file) and os.path.isfile(file)}


def _is_installed(file: str) -> bool:
    """Whether the file belongs to an installed package, to Python or to Ether: their version identifies it."""
    parts = file.replace(os.sep, "/").split("/")
    return any(name in parts for name in _INSTALLED) or file.startswith(_versioned_places())


@cache
def _versioned_places() -> tuple[str, ...]:
    ether = os.path.dirname(os.path.dirname(__file__))
    places = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_path("scripts"), ether)
    return tuple({os.path.join(place, "") for given in places for place in (given, os.path.realpath(given))})


def _inside(path: str, root: str) -> str | None:
    """The path relative to a root, with slashes; None for a path outside of it."""
    begin = os.path.join(root, "")
    return path[len(begin) :].replace(os.sep, "/") if path.startswith(begin) else None


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(FILE_MAX + 1)
    except OSError:
        return None


def _digest_of(path: str) -> str | None:
    content = _content(path)
    return None if content is None else hashlib.sha256(content).hexdigest()


def _without_secrets(content: bytes) -> bytes:
    return without_url_passwords(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
