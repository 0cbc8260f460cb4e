"""The rules of the house that no other tool checks, as functions over a source tree. `python tests/house_rules.py`.

Import directions are checked by import-linter, complexity and parameters by ruff (both in pyproject.toml). Here:
circles, crowded packages, long functions, pure modules, single owners, late imports, names with two meanings, vague
names. docs/decisions/0032-rules-of-the-house.md says why each rule is there; tests/test_house.py plants a violation of
each one.

Promise: a tree is parsed, never imported, so a planted violation can be checked in a folder of its own. The trap: an
import by name (`importlib.import_module("ether.x")`) is a string, and no rule sees it.
"""

from __future__ import annotations

import ast
import gc
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
OWNERS = {
    "sqlite3": ("ether", ("ether.ledger.sqlite",)),
    "psutil": ("ether", ("ether.system.processes", "ether.system.health")),
}
"""Library: the package for which the rule holds, and the modules (or packages) that may import it."""
SYNC_CALLS = ("fsync", "fdatasync", "F_FULLFSYNC")
SYNC_OWNER = "ether.ledger.durable"
CLOCK_OWNER = "ether.system.clock"
LATE_IMPORTS = (
    "broker.__main__",  # a broker loads its engine alone: tests/brokers/test_broker_process.py
    # TLS and WebSockets are loaded where a listener needs them: test_a_plain_broker_loads_neither_tls_nor_websockets.
    "broker.engines.amqtt_engine",
    "ether.__main__",  # an instance's process loads no command line: tests/test_house.py
    "ether.api",  # `import ether` loads nothing heavy: tests/test_house.py
    # SQLite is loaded with the first durable call, or not at all: tests/recording/test_saving.py,
    # test_a_session_that_saves_nothing_has_no_recorder_and_one_that_does_gets_it.
    "ether.calls.durable_retry",
    "ether.calls.durable_server",
    "ether.cli.completion",  # what a TAB looks up is loaded by a TAB alone: tests/cli/test_cli_completion.py
    "ether.cli.lab.dashboard",  # what the extra brings may be missing, and is said in a sentence
    "ether.api.page_process",  # no launcher for a page that nobody asked for
    "ether.cli.lab.joined",  # what joins nothing loads no connection: tests/cli/test_cli_offline.py
    "ether.config.broker_url",  # pydantic for an error's text alone: tests/config/test_import_weight.py
    "ether.config.loading",  # YAML for files alone: tests/config/test_import_weight.py
    "ether.launch.broker",  # no certificates for a session of this machine alone: test_encrypted_broker
    # Each instance's process loads it; most processes never make a context: tests/launch/test_child_imports.py.
    "ether.launch.process_records",
    # A program that records nothing makes no context either.
    "ether.launch.recording_setup",
    "ether.launch.simulated.lab",
    "ether.ledger.signatures",  # certificates for a ledger that is signed alone: test_signed_batches
    "ether.pytest_plugin",  # every run of pytest loads it
    # Reading loads no pandas, pyarrow, NumPy or h5py: test_reading_loads_no_table_library, test_csv_needs_no_library.
    "ether.reading.data",
    "ether.reading.export",
    "ether.recording.signatures",  # certificates where there is a lab alone: test_signed_batches
    "ether.recording.writer",  # no SQLite before there is something to save: tests/recording/test_saving.py, `burden`
    "ether.session.renewal",  # certificates where one is due alone: test_child_imports
    "ether.transport.__init__",  # paho is loaded by the first connection: test_transport_parts
    "ether.transport.endpoint",  # a child reads no URL: test_transport_parts
    "ether.transport.opening",  # ssl and websockets, for TLS and WebSockets alone: test_tls, test_websocket
    "hardware_adapters.simulate.lab",  # pyvisa is optional: test_a_simulated_lab_needs_no_pyvisa
)
"""Modules, or packages, that may import the house's own modules inside functions, because a test weighs what they load.
`package.__init__` stands for its own module alone."""


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
    modules: dict[str, ast.Module] = field(default_factory=dict, repr=False)
    files: dict[str, Path] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        # A million small objects, none of which is garbage: looking for some would take three quarters of the time.
        collects = gc.isenabled()
        gc.disable()
        try:
            for package in self.packages:
                for file in sorted((self.root / package).rglob("*.py")):
                    parts = file.relative_to(self.root).with_suffix("").parts
                    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                    self.modules[name] = ast.parse(file.read_text(), str(file))
                    self.files[name] = file
        finally:
            if collects:
                gc.enable()

    def where(self, module: str, line: int) -> str:
        """A place, as compilers write it."""
        return f"{self.files[module].relative_to(self.root)}:{line}"

    def lines(self, module: str) -> list[str]:
        """The text of a module, with its comments."""
        return self.files[module].read_text().splitlines()

    @cached_property
    def names(self) -> dict[str, list[tuple[str, str, int]]]:
        """For each module the dotted names that it imports, each with its kind and line. `from a import b` gives `a.b`;
        the dots of a relative import are resolved."""
        return {
            module: list(imported_names(parsed, module if self._is_package(module) else module.rpartition(".")[0]))
            for module, parsed in self.modules.items()
        }

    def _is_package(self, module: str) -> bool:
        return self.files[module].name == "__init__.py"

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of one of the modules by another, late and TYPE_CHECKING ones included."""
        return [
            Import(module, found, kind, line)
            for module, names in self.names.items()
            for name, kind, line in names
            if (found := self._module_of(name)) is not None and found != module
        ]

    @cached_property
    def _lazy_homes(self) -> dict[str, str]:
        """For each name that a package looks up on first use, the name that it stands for: `ether.config.load_config`
        for `ether.config.loading.load_config`. The package itself imports it for type checkers alone."""
        return {
            f"{package}.{name.rpartition('.')[2]}": name
            for package, names in self.names.items()
            if self._is_package(package)
            for name, kind, _ in names
            if kind == "type"
        }

    def _module_of(self, name: str) -> str | None:
        """The module that an imported name loads: the longest part of the name that is a module of the tree."""
        name = self._lazy_homes.get(name, name)
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name or None


def imported_names(node: ast.AST, package: str, kind: str = "top") -> Iterator[tuple[str, str, int]]:
    """The dotted names that are imported in a piece of code of `package`, each with its kind and line."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, kind, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        source = ".".join([*above, node.module] if node.module else above)
        yield from ((f"{source}.{alias.name}", kind, node.lineno) for alias in node.names)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and kind == "top":
        kind = "late"
    typed = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):  # an expression holds no import
            yield from imported_names(child, package, "type" if child in typed else kind)


def circles(tree: Tree) -> list[str]:
    """Modules that import each other, directly or through others."""
    graph: dict[str, set[str]] = defaultdict(set)
    for each in tree.imports:
        graph[each.importer].add(each.imported)
    return [f"circle: {' <-> '.join(sorted(each))}" for each in components(graph) if len(each) > 1]


def components(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components, by two depth-first walks (Kosaraju): the second walk follows the arrows
    backwards, and begins with the node that the first one left last; so it cannot leave a component."""
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
    """The nodes that are reached from `start` and not yet seen, in the order in which the walk leaves them. A stack
    instead of a recursion, because a chain of imports may be longer than Python's recursion limit."""
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
    """Packages with more modules directly in them than a reader can take in; `__init__` is not counted."""
    counts: dict[Path, int] = defaultdict(int)
    for file in tree.files.values():
        counts[file.parent] += file.name != "__init__.py"
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
        for module, names in tree.names.items()
        if module.startswith("ether.protocol.") or module.endswith("_rules")
        for name, _, line in names
        if name.partition(".")[0] in PURE
    ]


def foreign_owners(tree: Tree) -> list[str]:
    """Imports of a library outside the module that owns it."""
    return [
        f"{tree.where(module, line)}: {name.partition('.')[0]} belongs to {', '.join(owners)}"
        for module, names in tree.names.items()
        for name, _, line in names
        if (rule := OWNERS.get(name.partition(".")[0])) is not None
        for package, owners in [rule]
        if module.split(".")[0] == package and not any(_is_in(module, owner) for owner in owners)
    ]


def foreign_syncs(tree: Tree) -> list[str]:
    """Files that are synced outside the one module that knows how each system does it."""
    return [
        f"{tree.where(module, line)}: {name} belongs to {SYNC_OWNER}"
        for module, parsed in tree.modules.items()
        if module.startswith("ether.") and module != SYNC_OWNER
        for name, line in [
            *((node.attr, node.lineno) for node in ast.walk(parsed) if isinstance(node, ast.Attribute)),
            *((name.rpartition(".")[2], line) for name, _, line in tree.names[module]),
        ]
        if name in SYNC_CALLS
    ]


def foreign_clocks(tree: Tree) -> list[str]:
    """Readings of the time of day outside the one module that may: ages and deadlines that go by it are found out only
    when somebody sets a clock."""
    return [
        f"{tree.where(module, node.lineno)}: the time of day belongs to {CLOCK_OWNER}"
        for module, parsed in tree.modules.items()
        if module.startswith("ether.") and module != CLOCK_OWNER
        for node in ast.walk(parsed)
        if isinstance(node, (ast.Attribute, ast.Call, ast.ImportFrom)) and _reads_time_of_day(node)
    ]


def _reads_time_of_day(node: ast.Attribute | ast.Call | ast.ImportFrom) -> bool:
    match node:
        case ast.ImportFrom(module="time"):
            return any(name.name in ("time", "time_ns") for name in node.names)
        case ast.Attribute(ast.Name("time"), "time" | "time_ns"):
            return True
        case ast.Call(ast.Attribute(ast.Name("time"), "strftime"), _, []):
            return len(node.args) < 2
        case ast.Call(ast.Attribute(ast.Name("time"), "localtime" | "gmtime" | "ctime"), [], []):
            return True
        case ast.Call(ast.Attribute(source, "now" | "utcnow" | "today"), _, []):
            return "date" in ast.unparse(source)
    return False


def late_imports(tree: Tree) -> list[str]:
    """Imports of the house's own modules inside functions, where no test weighs what is loaded; and permissions for
    such imports that nothing needs any more."""
    late = [each for each in tree.imports if each.kind == "late"]
    found = [
        f"{tree.where(each.importer, each.line)}: late import of {each.imported}"
        for each in late
        if not any(_is_in(each.importer, place) for place in LATE_IMPORTS)
    ]
    unused = [
        f"{place}: no late import is left, take it out of LATE_IMPORTS"
        for place in LATE_IMPORTS
        if place in tree.modules and not any(_is_in(each.importer, place) for each in late)
    ]
    return [*dict.fromkeys(found), *unused]


def _is_in(module: str, place: str) -> bool:
    """Whether a module is `place`, or lies in the package `place`."""
    return f"{module}.__init__" == place or f"{module}.".startswith(f"{place}.")


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


# -- rules of the tests

BARE_FROM_S = 1.0
"""Shorter waits are pauses between two looks, or the number that is tested."""
BARE = "# bare:"
"""Begins a comment that says why the number of its line does not go through `patience`."""
_CLOCKS = ("monotonic", "perf_counter")
_WAITS = ("wait", "join", "result", "open", "flush", "close", "get")
"""Methods whose first argument is a number of seconds, where it is a number at all."""
_LIMITS = ("timeout", "timeout_s", "within_s")


def bare_waits(tree: Tree) -> list[str]:
    """Waits and bounds of tests whose number of seconds does not go through `patience()`. What is expected to run out
    (`pytest.raises`) is a number that is tested; so is what a comment says to be one."""
    patient = patient_functions(tree)
    return [
        f"{tree.where(module, number.lineno)}: {number.value} s do not go through patience() (docs/testing.md)"
        for module, parsed in tree.modules.items()
        for number in _bare_numbers(parsed, patient)
        if BARE not in tree.lines(module)[number.lineno - 1]
    ]


def patient_functions(tree: Tree) -> set[str]:
    """The functions of the tests that put a parameter of theirs through `patience`, themselves or by another one."""
    functions = [
        node
        for parsed in tree.modules.values()
        for node in ast.walk(parsed)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _limits(node.args)
    ]
    patient, before = {"patience"}, 0
    while len(patient) > before:
        before = len(patient)
        patient |= {node.name for node in functions if _passes_on(node, patient)}
    return patient


def _limits(arguments: ast.arguments) -> set[str]:
    """The parameters that limit a time."""
    return {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}.intersection(
        _LIMITS
    )


def _passes_on(function: ast.FunctionDef | ast.AsyncFunctionDef, patient: set[str]) -> bool:
    limits = _limits(function.args)
    return any(
        isinstance(name, ast.Name) and name.id in limits
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and _called(call) in patient
        for value in (*call.args, *(keyword.value for keyword in call.keywords))
        for name in ast.walk(value)
    )


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _bare_numbers(module: ast.Module, patient: set[str]) -> Iterator[ast.Constant]:
    """The numbers of a module that are seconds to wait, also those that have a name there."""
    named = {
        target.id: node.value
        for node in module.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found = [named.get(each.id) if isinstance(each, ast.Name) else each for each in _seconds(module, patient)]
    yield from dict.fromkeys(
        number
        for number in found
        if isinstance(number, ast.Constant) and type(number.value) in (int, float) and number.value >= BARE_FROM_S
    )


def _seconds(node: ast.AST, patient: set[str]) -> Iterator[ast.expr]:
    """What stands in a piece of code for seconds to wait, and is no part of a `patience()`."""
    if isinstance(node, (ast.With, ast.AsyncWith)) and any(
        isinstance(item.context_expr, ast.Call) and _called(item.context_expr) == "raises" for item in node.items
    ):
        return
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Call) and _called(node.left) in _CLOCKS:
        yield node.right
    elif isinstance(node, ast.Call) and _called(node) not in patient:
        yield from (keyword.value for keyword in node.keywords if keyword.arg in _LIMITS)
        if isinstance(node.func, ast.Attribute) and _called(node) in _WAITS:
            yield from node.args[:1]
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _passes_on(node, patient):
        yield from _defaults(node.args)
    for child in ast.iter_child_nodes(node):
        yield from _seconds(child, patient)


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    """The default values of parameters that limit a time."""
    positional = [*arguments.posonlyargs, *arguments.args]
    positional = positional[len(positional) - len(arguments.defaults) :]
    for names, values in ((positional, arguments.defaults), (arguments.kwonlyargs, arguments.kw_defaults)):
        for argument, value in zip(names, values, strict=True):
            if argument.arg in _LIMITS and value is not None:
                yield value


RULES: tuple[Callable[[Tree], list[str]], ...] = (
    circles,
    crowded_packages,
    long_functions,
    impure_rules,
    foreign_owners,
    foreign_syncs,
    foreign_clocks,
    late_imports,
    names_with_two_meanings,
    vague_names,
)
TEST_RULES: tuple[Callable[[Tree], list[str]], ...] = (bare_waits,)


def violations(root: Path) -> list[str]:
    """What all rules find below a root."""
    house, tests = Tree(root), Tree(root, ("tests",))
    return [found for tree, rules in ((house, RULES), (tests, TEST_RULES)) for rule in rules for found in rule(tree)]


def main() -> int:
    """Print what was found; returns 1 where something was, else 0."""
    found = violations(ROOT)
    print("\n".join(found) if found else "the house keeps its rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
