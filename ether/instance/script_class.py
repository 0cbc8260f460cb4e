"""A class out of the script that is running, without running the script again.

The script's top level is cut down to what the class needs: its own statement and, transitively, every top-level
statement that binds a name which those use (imports, functions, constants, other classes), in their order. Calls
such as `ether.tap()` or `main()` bind nothing that a class needs, so they do not run; a script needs no
`if __name__ == "__main__"` guard.

The trap: a name that is only reached by `globals()["name"]` or `eval` is not seen. Such code belongs in a module.
"""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, ModuleType

from ether.errors import ConfigError

_LOADS = frozenset({"LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS"})
_BINDS = frozenset({"STORE_NAME", "STORE_GLOBAL", "DELETE_NAME"})


@dataclass(frozen=True, slots=True)
class _Statement:
    node: ast.stmt
    binds: frozenset[str]
    uses: frozenset[str]
    everything: bool
    """True for what can bind any name (`from x import *`) or changes how the rest is compiled (`__future__`)."""


def module_from_script(name: str, path: str, wanted: str) -> ModuleType:
    """The module `name`, made of what `wanted` needs of the script at `path`; registered in `sys.modules`.

    Raises `ConfigError` where the script binds no such name, and whatever its statements raise.
    """
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__ether_script__", None) == path and hasattr(module, wanted):
        return module
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    statements = [_analysed(node, path) for node in tree.body]
    _check_bound(statements, wanted, name, path)
    body = [statement.node for statement in _needed(statements, wanted)]
    module = ModuleType(name, ast.get_docstring(tree))
    module.__file__ = path
    module.__dict__["__ether_script__"] = path
    sys.modules[name] = module
    exec(compile(ast.Module(body, type_ignores=[]), path, "exec", dont_inherit=True), module.__dict__)
    return module


def _check_bound(statements: list[_Statement], wanted: str, name: str, path: str) -> None:
    bound = {bound for statement in statements for bound in statement.binds}
    if wanted in bound or any(statement.everything for statement in statements if _is_star(statement.node)):
        return
    import difflib

    nearest = difflib.get_close_matches(wanted, bound, n=1)
    raise ConfigError(f"the script {path} defines no {wanted!r}", path=name, nearest=nearest[0] if nearest else None)


def _needed(statements: list[_Statement], wanted: str) -> list[_Statement]:
    chosen = {index for index, statement in enumerate(statements) if statement.everything}
    names: set[str] = set()
    new = {wanted} | {name for index in chosen for name in statements[index].uses}
    while new:
        names |= new
        added = {i for i, statement in enumerate(statements) if statement.binds & new} - chosen
        chosen |= added
        new = {name for index in added for name in statements[index].uses} - names
    return [statements[index] for index in sorted(chosen)]


def _analysed(node: ast.stmt, path: str) -> _Statement:
    code = compile(ast.Module([node], type_ignores=[]), path, "exec", dont_inherit=True)
    binds = {i.argval for i in dis.get_instructions(code) if i.opname in _BINDS} | set(_changed_in_place(node))
    uses = {i.argval for part in _nested(code) for i in dis.get_instructions(part) if i.opname in _LOADS}
    uses |= set(_annotated(node))
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    return _Statement(node, frozenset(binds), frozenset(uses), future or _is_star(node))


def _is_star(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _changed_in_place(node: ast.stmt) -> Iterator[str]:
    """Names whose object an assignment changes: `SETTINGS["rate"] = 5` belongs to `SETTINGS`."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        while isinstance(target, (ast.Attribute, ast.Subscript)):
            target = target.value
            if isinstance(target, ast.Name):
                yield target.id


def _annotated(node: ast.AST) -> Iterator[str]:
    """Names in type hints, also in those that are written as strings: they are resolved later, by name."""
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
                continue  # a string that is no expression, as in Literal["a b"]
