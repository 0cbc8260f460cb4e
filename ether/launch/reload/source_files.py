"""Which source files a class is made of: its module's, and those that it imports, as far as they lie in the user's own
folders.

Read from the files, without importing anything: an import inside a function counts, too, and a file that does not
compile keeps the imports that it had before. The trap: what a module imports by a name that is made at run time is not
found this way.
"""

from __future__ import annotations

import ast
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_NOT_THE_USERS = ("ether", "broker")


class _Import(NamedTuple):
    module: str
    level: int
    """How many dots stand before it."""
    names: tuple[str, ...]


class SourceFiles:
    """The files below some folders, and what they import. Files are read again when they have changed."""

    def __init__(self, folders: Sequence[str]) -> None:
        """`folders` are an import path; installed packages and the standard library are left out."""
        paths = sysconfig.get_paths()
        installed = {os.path.realpath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
        places = dict.fromkeys(os.path.realpath(folder or ".") for folder in folders)
        self._folders = [
            Path(place) for place in places if place not in installed and os.path.isdir(place) and not _inside(place)
        ]
        self._imports: dict[Path, tuple[tuple[int, int] | None, list[_Import]]] = {}

    def of_class(self, class_path: str) -> frozenset[Path]:
        """The files of the class at `package.module.Class`; none where it does not lie in these folders."""
        parts = class_path.split(".")
        if parts[0] in _NOT_THE_USERS:
            return frozenset()
        found: dict[Path, str] = {}
        waiting = [".".join(parts[:length]) for length in range(1, len(parts))]
        while waiting:
            name = waiting.pop()
            for module, path in self._modules(name):
                if path not in found:
                    found[path] = module
                    waiting += self._imported(path, module)
        return frozenset(found)

    def _modules(self, name: str) -> Iterator[tuple[str, Path]]:
        """A module, and the packages around it, with their files."""
        parts = name.split(".")
        for folder in self._folders:
            if (folder / parts[0]).is_dir() or (folder / f"{parts[0]}.py").is_file():
                place = folder
                for length, part in enumerate(parts, 1):
                    for path in (place / part / "__init__.py", place / f"{part}.py"):
                        if path.is_file():
                            yield ".".join(parts[:length]), path
                            break
                    place = place / part
                return

    def _imported(self, path: Path, module: str) -> Iterator[str]:
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        for each in self._imports_of(path):
            base = package[: len(package) - each.level + 1] if each.level else []
            whole = ".".join([*base, each.module] if each.module else base)
            if whole.partition(".")[0] in _NOT_THE_USERS:
                continue
            yield from filter(None, [whole, *(f"{whole}.{name}" if whole else name for name in each.names)])

    def _imports_of(self, path: Path) -> list[_Import]:
        state = state_of(path)
        known, imports = self._imports.get(path, (None, []))
        if state is None or state == known:
            return imports
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return imports
        imports = [*_imports_in(tree)]
        self._imports[path] = state, imports
        return imports


def _imports_in(tree: ast.AST) -> Iterator[_Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _Import(node.module or "", node.level, tuple(alias.name for alias in node.names))


def _inside(place: str) -> bool:
    """Whether a folder is an environment's own."""
    return bool({"site-packages", "dist-packages"}.intersection(Path(place).parts))


def state_of(path: Path) -> tuple[int, int] | None:
    """When a file was changed last, and its size; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
