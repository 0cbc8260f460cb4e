"""What is certainly wrong with the classes of a configuration, read from their source files before anything runs.

Promises: no module is imported and nothing is built, so it can be done in any program, while the broker starts. Only
what is certain is a fault: a module that is not on the import path, a class that its file does not define, arguments
that its constructor cannot take. The trap: Python can bind names and change signatures while it runs; wherever the
source uses a way to do so (a decorated class, a metaclass, a base class of a library), nothing is said.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from ether.config import EtherConfig, EtherInstanceConfig
from ether.config.loading import line_at
from ether.config.models import RegistryEntry
from ether.config.names import current_class_path
from ether.errors import ConfigError
from ether.runs.plan.call_rules import Place, PlanFault, constructor_fault, listed, nearest
from ether.runs.plan.class_lookup import ClassSource, SourceMissing, SourceUnclear, class_source
from ether.spec.descriptions import SourceText
from ether.system.limits import narrow_locale_words

_PLAIN_BASES = ("builtins.object",)
_SHOWN_ENTRIES = 3
_NEAR_PATH = 0.85


def instance_faults(config: EtherConfig, script: str | None, *, autorun_only: bool = True) -> dict[str, PlanFault]:
    """For each instance of this machine whose class certainly cannot be found or built, the fault. `script` is the file
    that the program runs: its own classes are not judged."""
    found: dict[str, PlanFault] = {}
    for key, instance in config.instances.items():
        if instance.host is not None or (autorun_only and not instance.autorun) or _of_script(instance, script):
            continue
        fault = _instance_fault(instance, ("instances", key), config)
        if fault is not None:
            found[instance.name_or(key)] = fault
    return found


def _of_script(instance: EtherInstanceConfig, script: str | None) -> bool:
    module = instance.class_path.partition(".")[0]
    return module == "__main__" or (script is not None and module == os.path.splitext(os.path.basename(script))[0])


def _instance_fault(instance: EtherInstanceConfig, place: Place, config: EtherConfig) -> PlanFault | None:
    try:
        source = class_source(current_class_path(instance.class_path))
    except SourceMissing as missing:
        return missing_fault(missing, instance.class_path, (*place, "class_path"), config)
    except SourceUnclear:
        return None
    signature = _signature_of(source)
    if signature is None or instance.build is not None:
        return None
    return constructor_fault(source.statement.name, signature, instance.args, instance.constructor_kwargs, place)


def missing_fault(missing: SourceMissing, class_path: str, place: Place, config: EtherConfig) -> PlanFault:
    """The fault of a class path that leads nowhere, with what was probably meant."""
    parts = class_path.split(".")
    if not missing.is_module:
        wrong = next((part for part in parts if repr(part) in str(missing)), parts[-1])
        return PlanFault(place, class_path, str(missing), nearest(wrong, missing.known))
    return PlanFault(place, class_path, missing_module_text(class_path, config))


def missing_module_text(class_path: str, config: EtherConfig) -> str:
    """That there is no such module, and where it probably is."""
    folder = config.written.folder if config.written else os.getcwd()
    module = class_path.partition(".")[0]
    narrow = narrow_locale_words(class_path)
    return f"there is no module {module!r} on the import path{narrow or _where_else(class_path, folder)}"


def hidden_modules(folder: str) -> list[str]:
    """The modules of the standard library that files or packages in this folder hide."""
    names = [name.removesuffix(".py") for name in _names_in(folder) if name.endswith(".py")]
    names += [name for name in _names_in(folder) if os.path.isfile(os.path.join(folder, name, "__init__.py"))]
    return [name for name in names if name in sys.stdlib_module_names]


def located(fault: PlanFault, config: EtherConfig) -> ConfigError:
    """A fault as the error that names file and line, where the configuration has a file."""
    if config.written is None:
        return ConfigError(fault.text, path=fault.path)
    line = line_at(config, fault.place)
    return ConfigError(fault.text, file=config.written.file, line=line, path=fault.path)


def _where_else(class_path: str, folder: str) -> str:
    """Where a module is that the import path does not lead to: in a folder below, or under a similar name."""
    module, _, rest = class_path.partition(".")
    for below in _folders_below(folder):
        if os.path.isfile(os.path.join(folder, below, f"{module}.py")):
            return f". It is in {below}: write {'.'.join([*below.split(os.sep), module, rest])}"
    names = [name[:-3] for name in _names_in(folder) if name.endswith(".py")]
    names += [name for name in _names_in(folder) if os.path.isfile(os.path.join(folder, name, "__init__.py"))]
    near = nearest(module, names)
    return f". Did you mean {f'{near}.{rest}'!r}?" if near else f", and no file like it in {folder}"


def _folders_below(folder: str) -> Iterator[str]:
    """The folders in a folder, and those in them, as relative paths that can be imported from."""
    for name in _names_in(folder):
        if name.isidentifier() and os.path.isdir(os.path.join(folder, name)):
            yield name
            for inner in _names_in(os.path.join(folder, name)):
                if inner.isidentifier() and os.path.isdir(os.path.join(folder, name, inner)):
                    yield os.path.join(name, inner)


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith((".", "__")))[:500]
    except OSError:
        return []


# -- the constructor


def _signature_of(source: ClassSource) -> inspect.Signature | None:
    """The signature of a class's constructor, without `self`; None where it may be another one at run time."""
    for _ in range(10):
        statement = source.statement
        if statement.decorator_list or statement.keywords:
            return None
        defined = {node.name: node for node in statement.body if isinstance(node, ast.FunctionDef)}
        bound = {target.id for node in ast.walk(statement) for target in _targets(node)}
        if "__new__" in defined or bound & {"__init__", "__new__", "__signature__"}:
            return None
        try:
            bases = [path for path in source.base_paths() if path not in _PLAIN_BASES]
            if (init := defined.get("__init__")) is not None:
                return _signature(init) if _are_plain(bases) else None
            if not bases:
                return inspect.Signature()
            if len(bases) > 1:
                return None
            source = class_source(bases[0])
        except SourceUnclear:
            return None
    return None


def _are_plain(bases: Sequence[str]) -> bool:
    """Whether no base class has a metaclass, a decorator or a `__new__`, which may change how it is called. Raises
    `SourceUnclear`."""
    for path in bases:
        base = class_source(path)
        names = {node.name for node in base.statement.body if isinstance(node, ast.FunctionDef)}
        if base.statement.decorator_list or base.statement.keywords or names & {"__new__", "__init_subclass__"}:
            return False
        if not _are_plain([path for path in base.base_paths() if path not in _PLAIN_BASES]):
            return False
    return True


def _targets(node: ast.AST) -> Iterator[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    yield from (target for target in targets if isinstance(target, ast.Name))


def _signature(init: ast.FunctionDef) -> inspect.Signature | None:
    """The signature of an `__init__`, with defaults and hints as they are written."""
    if init.decorator_list:
        return None
    given, kinds = init.args, inspect.Parameter
    found: list[inspect.Parameter] = []
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for at, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        kind = kinds.POSITIONAL_ONLY if at < len(given.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD
        found.append(_parameter(argument, kind, default))
    if not found and given.vararg is None:
        return None
    found = found[1:]
    if given.vararg is not None:
        found.append(_parameter(given.vararg, kinds.VAR_POSITIONAL, None))
    found += [
        _parameter(argument, kinds.KEYWORD_ONLY, default)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg is not None:
        found.append(_parameter(given.kwarg, kinds.VAR_KEYWORD, None))
    return inspect.Signature(found)


def _parameter(argument: ast.arg, kind: inspect._ParameterKind, default: ast.expr | None) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    hint = empty if argument.annotation is None else SourceText(ast.unparse(argument.annotation))
    return inspect.Parameter(
        argument.arg, kind, default=empty if default is None else SourceText(ast.unparse(default)), annotation=hint
    )


# -- the registry


def registry_faults(config: EtherConfig) -> tuple[list[PlanFault], list[str]]:
    """Entries of the registry that fit nothing. A fault: the module is here, and the class or the method is not. A
    warning: the entry fits no instance, and its module is not here (a shared registry names classes of other labs), or
    an instance's class has nearly its name."""
    used = {current_class_path(instance.class_path): instance for instance in config.instances.values()}
    reached, all_known = _reached(used)
    faults: list[PlanFault] = []
    warnings: list[str] = []
    foreign: list[str] = []
    for path, entry in config.registry.items():
        place: Place = ("registry", path)
        try:
            source = class_source(current_class_path(path))
        except SourceMissing as missing:
            if not missing.is_module:
                faults.append(PlanFault(place, path, str(missing), _nearest_path(path, missing, used)))
            elif path not in reached:
                near = _namesake(path, used)
                (foreign if near is None else warnings).append(path if near is None else _fits_nothing(path, near))
            continue
        except SourceUnclear:
            source = None
        if source is not None and not _is_made_elsewhere(path, entry, config):
            faults += _method_faults(source, entry.methods, place)
        if all_known and path not in reached and not reached.intersection(source.paths if source else ()):
            near = _namesake(path, used)
            if near is not None:
                warnings.append(_fits_nothing(path, near))
    if foreign:
        more = f" and {len(foreign) - _SHOWN_ENTRIES} more" if len(foreign) > _SHOWN_ENTRIES else ""
        warnings.append(
            f"registry: no instance is of these classes, and their modules are not here, so their entries have no"
            f" effect: {', '.join(foreign[:_SHOWN_ENTRIES])}{more}"
        )
    return faults, warnings


def _fits_nothing(path: str, near: str) -> str:
    return f"registry: the entry {path} has no effect: no instance is of that class. Did you mean {near!r}?"


def _reached(used: Mapping[str, EtherInstanceConfig]) -> tuple[set[str], bool]:
    """All class paths by which an entry of the registry applies to an instance: names of its class and of its base
    classes. The second value says whether these are all."""
    found, all_known, todo = set(used), True, list(used)
    while todo:
        try:
            source = class_source(todo.pop())
            todo += [path for path in source.base_paths() if path not in found and not path.startswith("builtins.")]
            found |= {*source.paths, *todo}
        except SourceUnclear:
            all_known = False
    return found, all_known


def _namesake(path: str, used: Mapping[str, object]) -> str | None:
    """The class of an instance that was probably meant: of the same name in another module, or of nearly this path."""
    name = path.rpartition(".")[2]
    same = [other for other in used if other.rpartition(".")[2] == name and other != path]
    return next(iter([*same, *difflib.get_close_matches(path, used, n=1, cutoff=_NEAR_PATH)]), None)


def _nearest_path(path: str, missing: SourceMissing, used: Mapping[str, object]) -> str | None:
    wrong = path.rpartition(".")
    near = nearest(wrong[2], missing.known)
    return f"{wrong[0]}.{near}" if near else _namesake(path, used)


def _is_made_elsewhere(path: str, entry: RegistryEntry, config: EtherConfig) -> bool:
    """Whether what is described may be of another class: a factory, or entering, returns it."""
    named = [instance for instance in config.instances.values() if instance.class_path == path]
    return entry.enter or any(instance.build is not None or instance.enter for instance in named)


def _method_faults(source: ClassSource, methods: Mapping[str, object], place: Place) -> Iterator[PlanFault]:
    """Methods that neither the class nor one of its bases defines."""
    names = _attributes(source)
    if names is not None and "__new__" in names:
        return
    for method in methods if names is not None else ():
        if names is not None and method.isidentifier() and method not in names:
            own = sorted(name for name in names if not name.startswith("_"))
            valid = f"{source.statement.name} ({source.module.file}) has: {listed(own)}"
            yield PlanFault((*place, "methods", method), f"the method {method!r}, which the class does not have", valid,
                            nearest(method, own))  # fmt: skip


def _attributes(source: ClassSource) -> set[str] | None:
    """The names that a class and its bases bind; None where they may have others."""
    if source.statement.decorator_list or source.statement.keywords:
        return None
    names: set[str] = set()
    for node in source.statement.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names.update(target.id for target in _targets(node))
        elif not isinstance(node, (ast.Expr, ast.Pass)):
            return None
    if names & {"__getattr__", "__getattribute__"}:
        return None
    try:
        for path in source.base_paths():
            if path not in _PLAIN_BASES:
                more = _attributes(class_source(path))
                if more is None:
                    return None
                names |= more
    except SourceUnclear:
        return None
    return names
