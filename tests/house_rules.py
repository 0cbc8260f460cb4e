"""The rules of the house that no other tool checks, as functions over a source tree. `python tests/house_rules.py`.

Import directions are import-linter's, complexity and parameters are ruff's (both in pyproject.toml). Here: circles,
crowded packages, long functions, pure modules, single owners, late imports, names with two meanings.

Promise: a tree is only read, never imported, so that a planted violation can be checked in a folder of its own.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ether", "broker", "hardware_adapters")

MODULES_PER_PACKAGE = 25
LINES_PER_FUNCTION = 60
PURE = ("threading", "socket", "asyncio", "subprocess", "time", "queue")
"""What a module of decisions must not import: `now` is an argument."""
VAGUE = ("utils", "helpers", "common", "manager", "misc")
ALLOWED_VAGUE = ("ether.utils",)
"""Users import `get_ether_logger` from it."""
OWNERS = {"sqlite3": ("ether", ("ether.ledger.sqlite",)), "psutil": ("ether", ("ether.system",))}
"""Library: the package for which the rule holds, and the modules (or packages) that may import it."""
SYNC_CALLS = ("fsync", "fdatasync", "F_FULLFSYNC")
SYNC_OWNER = "ether.ledger.durable"
LATE_IMPORTS = (
    "ether.__main__", "ether.api", "ether.cli", "ether.config", "ether.pytest_plugin", "broker.__main__",
    "broker.engines.amqtt_engine",  # a missing amqtt is an exit code: test_a_missing_amqtt_is_a_failure_of_its_own
    "hardware_adapters.simulate.lab",  # pyvisa is optional: test_a_simulated_lab_needs_no_pyvisa
)  # fmt: skip
"""Where an import inside a function is the rule: what these load is weighed by tests."""


@dataclass(frozen=True)
class Import:
    """One import of one module of the tree by another. `kind` is `top`, `late` or `type`."""

    importer: str
    imported: str
    kind: str
    line: int


@dataclass
class Tree:
    """The modules below a root, parsed."""

    root: Path
    packages: tuple[str, ...] = PACKAGES
    modules: dict[str, ast.Module] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for package in self.packages:
            for file in sorted((self.root / package).rglob("*.py")):
                parts = file.relative_to(self.root).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                self.modules[name] = ast.parse(file.read_text(), str(file))
                self.files[name] = file

    def where(self, module: str, line: int) -> str:
        """A place, as compilers write it."""
        return f"{self.files[module].relative_to(self.root)}:{line}"

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of one of the modules by another, late and TYPE_CHECKING ones included."""
        return [
            Import(module, found, kind, line)
            for module, tree in self.modules.items()
            for name, kind, line in imported_names(tree)
            if (found := self._module_of(name)) is not None and found != module
        ]

    def _module_of(self, name: str) -> str | None:
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name or None


def imported_names(tree: ast.AST, kind: str = "top") -> Iterator[tuple[str, str, int]]:
    """The dotted names that a module imports, each with its kind and line. `from a import b` gives `a.b`."""
    for node in ast.iter_child_nodes(tree):
        inner = kind
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and kind == "top":
            inner = "late"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inner = "type"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, kind, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", kind, node.lineno
        yield from imported_names(node, inner)


def circles(tree: Tree) -> list[str]:
    """Modules that import each other, directly or through others."""
    graph: dict[str, set[str]] = defaultdict(set)
    for each in tree.imports:
        graph[each.importer].add(each.imported)
    return [f"circle: {' <-> '.join(sorted(each))}" for each in components(graph) if len(each) > 1]


def components(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components, by two depth-first walks (Kosaraju): the second one, over the reversed
    arrows in the reverse order of finishing, cannot leave a component."""
    backwards: dict[str, set[str]] = defaultdict(set)
    for source, targets in graph.items():
        for target in targets:
            backwards[target].add(source)
    seen: set[str] = set()
    finished = [node for start in list(graph) for node in _walked(start, graph, seen)]
    seen = set()
    found = [set(_walked(start, backwards, seen)) for start in reversed(finished)]
    return [each for each in found if each]


def _walked(start: str, graph: dict[str, set[str]], seen: set[str]) -> list[str]:
    """The nodes that are reached from `start` and not yet seen, in the order in which the walk leaves them."""
    if start in seen:
        return []
    seen.add(start)
    left: list[str] = []
    stack = [(start, iter(sorted(graph.get(start, ()))))]
    while stack:
        node, targets = stack[-1]
        target = next((each for each in targets if each not in seen), None)
        if target is None:
            stack.pop()
            left.append(node)
        else:
            seen.add(target)
            stack.append((target, iter(sorted(graph.get(target, ())))))
    return left


def crowded_packages(tree: Tree) -> list[str]:
    """Packages with more modules directly in them than a reader can take in."""
    counts: dict[Path, int] = defaultdict(int)
    for file in tree.files.values():
        counts[file.parent] += 1
    return [
        f"{folder.relative_to(tree.root)}: {count} modules, {MODULES_PER_PACKAGE} is the limit"
        for folder, count in sorted(counts.items())
        if count > MODULES_PER_PACKAGE
    ]


def long_functions(tree: Tree) -> list[str]:
    """Functions that do not fit on a screen."""
    return [
        f"{tree.where(module, node.lineno)}: {node.name} has {length} lines, {LINES_PER_FUNCTION} is the limit"
        for module, parsed in tree.modules.items()
        for node in ast.walk(parsed)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LINES_PER_FUNCTION
    ]


def impure_rules(tree: Tree) -> list[str]:
    """Modules of decisions that import what waits, sends or looks at a clock."""
    return [
        f"{tree.where(module, line)}: {module} decides without I/O, and must not import {name.partition('.')[0]}"
        for module, parsed in tree.modules.items()
        if module.startswith("ether.protocol.") or module.endswith("_rules")
        for name, _, line in imported_names(parsed)
        if name.partition(".")[0] in PURE
    ]


def foreign_owners(tree: Tree) -> list[str]:
    """Libraries that somebody else than their owner imports."""
    return [
        f"{tree.where(module, line)}: {name.partition('.')[0]} belongs to {', '.join(owners)}"
        for module, parsed in tree.modules.items()
        for name, _, line in imported_names(parsed)
        if (rule := OWNERS.get(name.partition(".")[0])) is not None
        for package, owners in [rule]
        if module.split(".")[0] == package and not any(f"{module}.".startswith(f"{owner}.") for owner in owners)
    ]


def foreign_syncs(tree: Tree) -> list[str]:
    """Files that are synced elsewhere than in the one place that knows how each system does it."""
    return [
        f"{tree.where(module, node.lineno)}: {node.attr} belongs to {SYNC_OWNER}"
        for module, parsed in tree.modules.items()
        if module.startswith("ether.") and module != SYNC_OWNER
        for node in ast.walk(parsed)
        if isinstance(node, ast.Attribute) and node.attr in SYNC_CALLS
    ]


def late_imports(tree: Tree) -> list[str]:
    """Imports of the house's own modules inside of functions, where no test weighs what is loaded."""
    return [
        f"{tree.where(each.importer, each.line)}: late import of {each.imported}"
        for each in tree.imports
        if each.kind == "late" and not any(f"{each.importer}.".startswith(f"{place}.") for place in LATE_IMPORTS)
    ]


def names_with_two_meanings(tree: Tree) -> list[str]:
    """Public classes of one name in several modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, parsed in tree.modules.items():
        for node in parsed.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    return [f"class {name} means several things: {', '.join(at)}" for name, at in sorted(homes.items()) if len(at) > 1]


def vague_names(tree: Tree) -> list[str]:
    """Modules whose name says nothing."""
    return [
        f"{module}: a name that says nothing"
        for module in tree.modules
        if module.rpartition(".")[2] in VAGUE and module not in ALLOWED_VAGUE
    ]


RULES: tuple[Callable[[Tree], list[str]], ...] = (
    circles,
    crowded_packages,
    long_functions,
    impure_rules,
    foreign_owners,
    foreign_syncs,
    late_imports,
    names_with_two_meanings,
    vague_names,
)


def violations(root: Path) -> list[str]:
    """Everything that the rules find below a root."""
    tree = Tree(root)
    return [found for rule in RULES for found in rule(tree)]


def main() -> int:
    """Print what was found; 1 where something was."""
    found = violations(ROOT)
    print("\n".join(found) if found else "the house keeps its rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
