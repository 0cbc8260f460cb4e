"""From a class path to the class, found as the main program would find it.

A class that is defined in the script that the main program runs is a special case: importing the script as a module
would run it again. So the module is made from the script's source, of those statements alone that the class needs
(`module_from_script`).

The trap: which statements a class needs is read from the compiled code: the names that a statement binds, and the names
that it loads. A name that is looked up by a string at run time is not found this way.
"""

from __future__ import annotations

import ast
import dis
import importlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from ether.config.names import current_class_path
from ether.errors import ConfigError
from ether.instance.notebook_cells import CELLS


def find_class(class_path: str, script: str | None) -> type:
    """The class at `package.module.Class` (or `….Outer.Inner`).

    `script` is the file that the main program runs; None where it runs none. Raises `ConfigError` where there is no
    such module or class, and whatever the user's module raises when it is imported.
    """
    found = find_target(class_path, script)
    if not isinstance(found, type):
        raise ConfigError(f"is a {type(found).__name__}, not a class", path=current_class_path(class_path))
    return found


def find_target(class_path: str, script: str | None) -> object:
    """What stands at `package.module.name`: a class, a function that makes an object, an object. As `find_class`."""
    class_path = current_class_path(class_path)
    parts = class_path.split(".")
    module, length = _deepest_module(parts, script)
    if module is None:
        raise ConfigError(f"there is no module {parts[0]!r} on the import path: {_places()}", path=class_path)
    return _target_in(module, parts[length:], class_path)


def find_maker(class_path: str, script: str | None) -> Callable[..., object]:
    """The class, or the function that makes the object, at a class path. As `find_class`."""
    found = find_target(class_path, script)
    if not callable(found):
        raise ConfigError(
            f"is a {type(found).__name__}, neither a class nor a function that makes an object",
            path=current_class_path(class_path),
        )
    return found


def _deepest_module(parts: list[str], script: str | None) -> tuple[ModuleType | None, int]:
    """The module that a class path leads to, and the number of its parts that name the module.

    The search goes from the outside in. The other way round it would ask for `script.Class` as a module first, and
    for that Python imports, and so runs, the script.
    """
    found = 0
    for length in range(1, len(parts)):
        name = ".".join(parts[:length])
        spec = None if name == "__main__" else _spec(name)
        if _is_script(name, spec, script):
            return _from_script(name, script, parts[length]), length
        if spec is None:
            break
        found = length
        if spec.submodule_search_locations is None:
            break
    return (importlib.import_module(".".join(parts[:found])) if found else None), found


def _from_script(name: str, script: str | None, attribute: str) -> ModuleType:
    if script is None:
        raise ConfigError(
            "a class defined at a prompt cannot run in a process of its own: put it in a file, or use a notebook",
            path=f"{name}.{attribute}",
        )
    return module_from_script(name, script, attribute)


def _spec(name: str) -> ModuleSpec | None:
    """A module's spec, found without running the module; None where there is no such module."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module made by hand, without a spec
        return ModuleSpec(name, None)


def _is_script(name: str, spec: ModuleSpec | None, script: str | None) -> bool:
    if name == "__main__":
        return True
    if script is None or script == CELLS:
        return False
    if spec is None:
        return name == os.path.splitext(os.path.basename(script))[0]
    return spec.origin is not None and os.path.exists(spec.origin) and os.path.samefile(spec.origin, script)


def _target_in(module: ModuleType, names: list[str], class_path: str) -> object:
    found: object = module
    for name in names:
        if not hasattr(found, name):
            raise ConfigError(_no_such_class(module, found, name), path=class_path)
        found = getattr(found, name)
    return found


def _no_such_class(module: ModuleType, holder: object, name: str) -> str:
    import difflib

    classes = [key for key, value in vars(holder).items() if isinstance(value, type)]
    nearest = difflib.get_close_matches(name, classes, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"{module.__name__} ({getattr(module, '__file__', 'built in')}) has no class {name!r}.{hint}"


def _places() -> str:
    return ", ".join(place or "." for place in sys.path)


_LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS"})
_BINDS = frozenset({"STORE_NAME", "STORE_GLOBAL", "DELETE_NAME"})


@dataclass(frozen=True, slots=True)
class _Statement:
    """One statement at the top level of a script."""

    node: ast.stmt
    binds: frozenset[str]
    uses: frozenset[str]
    always: bool
    """True for a statement that every module needs: it can bind any name (`from x import *`), or it changes how the
    rest is compiled (`__future__`)."""


def module_from_script(name: str, path: str, wanted: str) -> ModuleType:
    """The module `name`, made of those statements of the script at `path` that `wanted` needs, and registered in
    `sys.modules`. Raises `ConfigError` where the script binds no such name, and whatever the statements raise."""
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__ether_script__", None) == path and hasattr(module, wanted):
        return module
    tree = ast.parse(_source(path), path)
    statements = [_analysed(node, path) for node in tree.body]
    _check_bound(statements, wanted, name, path)
    needed = sorted(_needed(statements, wanted), key=lambda statement: not _is_future(statement.node))
    body = [statement.node for statement in needed]
    module = ModuleType(name, ast.get_docstring(tree))
    if path != CELLS:
        module.__file__ = path
    module.__dict__["__ether_script__"] = path
    sys.modules[name] = module
    exec(compile(ast.Module(body, type_ignores=[]), path, "exec", dont_inherit=True), module.__dict__)
    return module


def _source(path: str) -> str | bytes:
    if path == CELLS:
        return "".join(linecache.getlines(path))
    with open(path, "rb") as file:
        return file.read()


def _check_bound(statements: list[_Statement], wanted: str, name: str, path: str) -> None:
    bound = {bound for statement in statements for bound in statement.binds}
    if wanted in bound or any(_is_star(statement.node) for statement in statements):
        return
    import difflib

    nearest = difflib.get_close_matches(wanted, bound, n=1)
    raise ConfigError(f"the script {path} defines no {wanted!r}", path=name, nearest=nearest[0] if nearest else None)


def _needed(statements: list[_Statement], wanted: str) -> list[_Statement]:
    """The statements that `wanted` needs, directly or through others, in the order of the script.

    `new` holds the names whose binding statements are still to be found. Each round adds those statements, and the
    names that they use become the next round's `new`; `names` keeps circular definitions from going on for ever.
    """
    chosen = {index for index, statement in enumerate(statements) if statement.always}
    names: set[str] = set()
    new = {wanted} | {name for index in chosen for name in statements[index].uses}
    while new:
        names |= new
        added = {i for i, statement in enumerate(statements) if statement.binds & new} - chosen
        chosen |= added
        new = {name for index in added for name in statements[index].uses} - names
    return [statements[index] for index in sorted(chosen)]


def _analysed(node: ast.stmt, path: str) -> _Statement:
    """The names that a statement binds and uses, read from its byte code. The names that nested functions and classes
    use count, too: their code runs later, but looks the names up in the module."""
    code = compile(ast.Module([node], type_ignores=[]), path, "exec", dont_inherit=True)
    binds = {i.argval for i in dis.get_instructions(code) if i.opname in _BINDS} | set(_changed_in_place(node))
    uses = {i.argval for part in _nested(code) for i in dis.get_instructions(part) if i.opname in _LOADS}
    uses |= set(_annotated(node))
    return _Statement(node, frozenset(binds), frozenset(uses), _is_future(node) or _is_star(node))


def _is_future(node: ast.stmt) -> bool:
    """Whether it has to stand before all others; in a notebook it stands in any cell."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_star(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _changed_in_place(node: ast.stmt) -> Iterator[str]:
    """The names whose objects an assignment changes: `SETTINGS["rate"] = 5` belongs to `SETTINGS`."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        while isinstance(target, (ast.Attribute, ast.Subscript)):
            target = target.value
            if isinstance(target, ast.Name):
                yield target.id


def _annotated(node: ast.AST) -> Iterator[str]:
    """The names in type hints, also in hints that are strings, because those are resolved later, by name."""
    for part in ast.walk(node):
        for hint in (getattr(part, "annotation", None), getattr(part, "returns", None)):
            if isinstance(hint, ast.AST):
                yield from _names_in_hint(hint)


def _names_in_hint(hint: ast.AST) -> Iterator[str]:
    for part in ast.walk(hint):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            try:
                yield from _names_in_hint(ast.parse(part.value, mode="eval"))
            except SyntaxError:
                continue  # the string is no expression, as in Literal["a b"]
