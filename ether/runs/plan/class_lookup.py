"""Finds the file that defines a class, by reading source files, without importing any of them.

`lab.cameras.Basler` may be a class that `lab/cameras.py` defines, or one that it imports from another file; and
`lab.cameras.subprocess.Popen` leads to a library, through a file that only says `import subprocess`. An agent decides
whether a class may run by the files that it comes from, so it has to know them before any of their code has run.

Promise: `places_of` returns the file of the class statement and every file on the way to it, or raises
`SourceUnclear`; no module of the class path, and no package around it, is imported. The trap: a name that is bound in
any other way than by a class statement or a `from … import …` (by an assignment, a function, a star import) is
unclear. It is refused, never guessed.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder

from ether.errors import EtherError

_MOST_STEPS = 10
"""How many imports are followed from file to file, before a circle is assumed."""


class SourceUnclear(EtherError, LookupError):
    """The file that defines a class cannot be determined. A `LookupError`."""


class SourceMissing(SourceUnclear):
    """There is certainly no such module, or its file certainly has no such class. `known` are the names that it has;
    `is_module` says which of the two is missing. A `LookupError`."""

    def __init__(self, text: str, known: Sequence[str] = (), *, is_module: bool = False) -> None:
        self.known, self.is_module = tuple(known), is_module
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A file that defines or imports the class, under the name `class_path`; symbolic links in `file` are resolved."""

    class_path: str
    file: str


@dataclass(frozen=True, slots=True)
class _Module:
    name: str
    file: str
    is_package: bool


@dataclass(frozen=True, slots=True)
class ClassSource:
    """The class statement that a class path leads to, and the module in which it stands. `paths` are all names that the
    class has on the way there."""

    statement: ast.ClassDef
    module: _Module
    paths: tuple[str, ...]

    @property
    def class_path(self) -> str:
        """The name under which the class is defined."""
        return self.paths[-1]

    def base_paths(self) -> list[str]:
        """The class paths of its base classes. Raises `SourceUnclear` for one that is no plain name, or is bound in
        another way than by a class statement or an import."""
        found = []
        for base in self.statement.bases:
            if not isinstance(base, ast.Name):
                raise SourceUnclear(f"a base class of {self.class_path} is no plain name")
            bindings = list(_bindings(_statements(self.module), base.id))
            if len(bindings) > 1 or (not bindings and not hasattr(builtins, base.id)):
                raise SourceUnclear(f"the base class {base.id} of {self.class_path} is not bound once")
            match bindings:
                case []:
                    found.append(f"builtins.{base.id}")
                case [ast.ClassDef()]:
                    found.append(f"{self.module.name}.{base.id}")
                case [str(binding)]:
                    found.append(_absolute(binding, self.module))
                case _:
                    raise SourceUnclear(f"the base class {base.id} of {self.class_path} is no class statement")
        return found


def class_source(class_path: str, more_places: Sequence[str] = ()) -> ClassSource:
    """The class statement that a class path certainly leads to. Raises `SourceMissing` where there certainly is none,
    `SourceUnclear` where nobody can tell without running the code."""
    importlib.invalidate_caches()
    paths: list[str] = []
    while len(paths) < _MOST_STEPS:
        try:
            module, names = _module_of(class_path.split("."), more_places)
        except SourceMissing as missing:
            if not paths:
                raise
            raise SourceUnclear(f"{paths[-1]} is imported from elsewhere: {missing}") from None
        paths.append(f"{module.name}.{'.'.join(names)}")
        if not names:
            raise SourceUnclear(f"{class_path} is a module")
        statements = _statements(module)
        bindings = list(_bindings(statements, names[0]))
        if not bindings:
            raise _without(names[0], module, statements)
        if len(bindings) > 1:
            raise SourceUnclear(f"{names[0]} is bound several times in {module.file}")
        if isinstance(bindings[0], ast.ClassDef):
            _check_inner(bindings[0], names, module)
            return ClassSource(_inner(bindings[0], names), module, tuple(paths))
        if not isinstance(bindings[0], str):
            raise SourceUnclear(f"{names[0]} is not bound by a class statement in {module.file}")
        class_path = ".".join([_absolute(bindings[0], module), *names[1:]])
    raise SourceUnclear(f"{class_path} is imported from file to file without end")


_MAKES_NAMES = ("globals(", "vars(", "setattr(", "exec(", "sys.modules", "locals(")


def _without(name: str, module: _Module, statements: Sequence[ast.stmt]) -> SourceUnclear:
    """The error for a name that no statement of a module binds: certainly missing, unless the module can make names in
    other ways."""
    stars = any(isinstance(s, ast.ImportFrom) and s.names[0].name == "*" for s in _all_statements(statements))
    makes = any(isinstance(s, ast.FunctionDef) and s.name == "__getattr__" for s in statements)
    text = _text_of(module)
    if stars or makes or any(way in text for way in _MAKES_NAMES):
        return SourceUnclear(f"{module.file} may bind {name!r} while it runs")
    known = [s.name for s in statements if isinstance(s, ast.ClassDef)]
    known += [a.asname or a.name for s in statements if isinstance(s, ast.ImportFrom) for a in s.names]
    if module.is_package:
        folder = os.path.dirname(module.file)
        known += sorted({os.path.splitext(file)[0] for file in os.listdir(folder) if file.isidentifier()
                         or file.endswith(".py")} - {"__init__", "__pycache__"})  # fmt: skip
        return SourceMissing(f"the package {module.name} ({folder}) has no {name!r}", known)
    return SourceMissing(f"{module.name} ({module.file}) has no class {name!r}", known)


def _all_statements(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.stmt))


def _inner(statement: ast.ClassDef, names: Sequence[str]) -> ast.ClassDef:
    for name in names[1:]:
        statement = next(s for s in statement.body if isinstance(s, ast.ClassDef) and s.name == name)
    return statement


def places_of(class_path: str, more_places: Sequence[str]) -> list[SourcePlace]:
    """The file that defines the class, and the files that import it on the way there. Where a file chooses between
    several sources (`try … except ImportError`), those of each. `more_places` are folders that are searched after the
    import path. Raises `SourceUnclear`."""
    importlib.invalidate_caches()
    return _places(class_path, more_places, _MOST_STEPS)


def _places(class_path: str, more_places: Sequence[str], steps: int) -> list[SourcePlace]:
    if steps == 0:
        raise SourceUnclear(f"{class_path} is imported from file to file without end")
    module, names = _module_of(class_path.split("."), more_places)
    here = SourcePlace(f"{module.name}.{'.'.join(names)}", module.file)
    found: list[SourcePlace] = []
    for binding in _bindings(_statements(module), names[0]):
        if isinstance(binding, ast.ClassDef):
            _check_inner(binding, names, module)
            found.append(here)
        elif isinstance(binding, str):
            origin = _absolute(binding, module)
            found += [here, *_places(".".join([origin, *names[1:]]), more_places, steps - 1)]
        else:
            raise SourceUnclear(
                f"{names[0]} is bound in {module.file}, line {binding.lineno}, but not by a class statement"
            )
    if not found:
        raise SourceUnclear(f"{module.file} has no class {names[0]!r}")
    return found


# -- the module


def _module_of(parts: list[str], more_places: Sequence[str]) -> tuple[_Module, list[str]]:
    """The deepest module of a class path, as an import would find it, and the rest of the path: names of classes."""
    spec: ModuleSpec | None = None
    places: list[str] | None = None
    length = 0
    for length in range(1, len(parts)):
        deeper = _spec(".".join(parts[:length]), places, more_places)
        if deeper is None:
            length -= 1
            break
        spec, places = deeper, _places_in(deeper, places, more_places)
        if places is None:
            break
    if parts[0] == "__main__":
        raise SourceUnclear("the script that runs is read when it is needed")
    if spec is None:
        raise SourceMissing(f"there is no module {parts[0]!r} on the import path", is_module=True)
    file = spec.origin
    if file is None or not file.endswith(".py") or not os.path.isfile(file):
        raise SourceUnclear(f"{spec.name} has no file with its source ({file or 'a folder without __init__.py'})")
    return _Module(spec.name, os.path.realpath(file), places is not None), parts[length:]


def _spec(name: str, places: list[str] | None, more_places: Sequence[str]) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which would import the packages around the module."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        everywhere = [*sys.path, *more_places] if finder is PathFinder and places is None else places
        if isinstance(spec := find(name, everywhere), ModuleSpec):
            return spec
    return None


def _places_in(spec: ModuleSpec, around: list[str] | None, more_places: Sequence[str]) -> list[str] | None:
    """The folders that contain a package's modules; None for a module that is no package."""
    if spec.submodule_search_locations is None:
        return None
    if spec.origin is not None:
        return list(spec.submodule_search_locations)
    # A namespace package, without __init__.py. To iterate over its search locations would make Python look up the
    # parent package in `sys.modules`, where it is not, because nothing was imported. So the folders are found here.
    tail = spec.name.rpartition(".")[2]
    folders = [os.path.join(place, tail) for place in around or [*sys.path, *more_places]]
    return [folder for folder in folders if os.path.isdir(folder)]


# -- the statements of a file


def _statements(module: _Module) -> list[ast.stmt]:
    try:
        return _parsed(module.file, os.stat(module.file).st_mtime_ns)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise SourceUnclear(f"{module.file} cannot be read: {error}") from error


@functools.lru_cache(32)
def _parsed(file: str, changed_ns: int) -> list[ast.stmt]:
    """The statements of a file, read once as long as it does not change."""
    with open(file, "rb") as opened:
        return ast.parse(opened.read(), file).body


def _text_of(module: _Module) -> str:
    with open(module.file, encoding="utf-8", errors="replace") as opened:
        return opened.read()


def _bindings(statements: Sequence[ast.stmt], name: str) -> Iterator[ast.ClassDef | str | ast.stmt]:
    """Every statement at the top level of a file that binds the name. Yields a class statement as itself, a `from`
    import as its source (`.basler:Basler`, with the leading dots), any other binding as the statement that makes it.

    All bindings are yielded, not the last one alone: which of them takes effect is decided when the file runs."""
    for statement in statements:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if statement.name == name:
                    yield statement
            case ast.ImportFrom():
                yield from (
                    f"{'.' * statement.level}{statement.module or ''}:{alias.name}"
                    for alias in statement.names
                    if (alias.asname or alias.name) == name
                )
            case ast.Import():
                if any((alias.asname or alias.name.partition(".")[0]) == name for alias in statement.names):
                    yield statement
            case _:
                yield from _bindings_in(statement, name)


def _bindings_in(statement: ast.stmt, name: str) -> Iterator[ast.ClassDef | str | ast.stmt]:
    """The bindings that any other statement makes: by itself (an assignment, `for`, `with`, `except … as`, a match
    pattern, `:=`) or in the blocks below it (`if`, `try`, …)."""
    inner = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)]
    for part in ast.iter_child_nodes(statement):
        if isinstance(part, (ast.ExceptHandler, ast.match_case)):
            inner += part.body
            if getattr(part, "name", None) == name:
                yield statement
        elif not isinstance(part, ast.stmt) and _binds(part, name):
            yield statement
    yield from _bindings(inner, name)


def _binds(part: ast.AST, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load) for node in ast.walk(part)
    )


def _absolute(binding: str, module: _Module) -> str:
    """The absolute name: `.basler:Basler` in the package `lab.cameras` is `lab.cameras.basler.Basler`."""
    source, _, name = binding.partition(":")
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    try:
        origin = importlib.util.resolve_name(source, package) if source.startswith(".") else source
    except ImportError as error:
        raise SourceUnclear(f"{module.file} imports {name} from beyond its package: {error}") from error
    return f"{origin}.{name}"


def _check_inner(statement: ast.ClassDef, names: Sequence[str], module: _Module) -> None:
    """Raise `SourceUnclear` unless each name of a path such as `Outer.Inner` is bound once, by a class statement."""
    for name in names[1:]:
        found = list(_bindings(statement.body, name))
        inner = found[0] if len(found) == 1 else None
        if not isinstance(inner, ast.ClassDef):
            raise SourceUnclear(f"{'.'.join(names)} is not a class statement in {module.file}")
        statement = inner
