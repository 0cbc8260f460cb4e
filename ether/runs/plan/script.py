"""What a program says to Ether, read from its source: it is never run.

Promises: pure, and nothing is guessed. A value is known where it is written as a literal, or is a name that the file
binds once, to a literal; any other one is `UNKNOWN`, and what depends on it is left out. The trap: names that are made
while the program runs (`ether.instance(f"pump{n}")`) are not seen at all; their lines are told.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_CALLS = ("get", "save", "get_later", "save_later", "aget", "asave")
_PROXIES = ("instance", "service")
_PARAMS = 2
"""The place of a call's parameters, behind service and method."""


class _Unknown:
    def __repr__(self) -> str:
        return "what is only known when the program runs"


UNKNOWN = _Unknown()
"""Stands for a value that cannot be read."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A place where a program speaks of a part of the lab. `service` is an instance or a class."""

    line: int
    service: str
    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    payload: bool = False
    """True: `args[0]` is a payload, as with `ether.get`; False: arguments, as with a proxy."""
    checked: bool = True
    """False: only that the method is there can be said, because the arguments cannot be read."""


@dataclass(frozen=True, slots=True)
class TopicMention:
    """A topic that a program waits for, or a sync topic that it calls with `arguments`."""

    line: int
    topic: str
    sync: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Program:
    """All that was read. `planned` are the runs whose trials are `run.planned()`; `unread` the lines of calls whose
    service, method or topic is only known when the program runs."""

    mentions: list[Mention] = field(default_factory=list)
    topics: list[TopicMention] = field(default_factory=list)
    publishes: set[str] = field(default_factory=set)
    planned: list[tuple[int, str]] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)


def read_program(source: bytes, file: str) -> Program:
    """Read a program; raises `SyntaxError` and `ValueError` for what is none."""
    tree = ast.parse(source, file)
    return _Reader(tree).read()


class _Reader:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._found = Program()
        bound = _bindings(tree)
        self._literals = {name: nodes[0] for name, nodes in bound.items() if len(nodes) == 1 and _is_literal(nodes[0])}
        self._ether = _ether_names(tree)
        self._proxies = _agreed({name: [self._proxied(node) for node in nodes] for name, nodes in bound.items()})
        self._runs = {
            name: {node.lineno: self._run_of(node) for node in nodes}
            for name, nodes in bound.items()
            if all(self._is_run(node) for node in nodes)
        }

    def read(self) -> Program:
        called = {id(node.func) for node in ast.walk(self._tree) if isinstance(node, ast.Call)}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.Attribute) and id(node) not in called:
                self._reference(node)
        found = self._found
        found.mentions.sort(key=lambda mention: mention.line)
        found.topics.sort(key=lambda mention: mention.line)
        found.unread = sorted(set(found.unread))
        return found

    # -- what a node means

    def value(self, node: ast.expr) -> Any:
        """The value that is written there."""
        if isinstance(node, ast.Name) and node.id in self._literals:
            node = self._literals[node.id]
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return UNKNOWN

    def _text(self, node: ast.expr | None) -> str | None:
        value = UNKNOWN if node is None else self.value(node)
        return value if isinstance(value, str) else None

    def _on_ether(self, node: ast.expr) -> str | None:
        """`get` for `ether.get`."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._ether:
            return node.attr
        return None

    def _proxied(self, node: ast.expr) -> str | None:
        """The service of `ether.instance("camera1")`."""
        if isinstance(node, ast.Call) and self._on_ether(node.func) in _PROXIES and node.args:
            return self._text(node.args[0])
        return None

    def _service_of(self, node: ast.expr) -> str | None:
        return self._proxies.get(_key(node)) or self._proxied(node)

    def _is_run(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and self._on_ether(node.func) == "run"

    def _run_of(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Call) and self._on_ether(node.func) == "run" and node.args:
            return self._text(node.args[0])
        return None

    # -- what is done with it

    def _call(self, node: ast.Call) -> None:
        verb = self._on_ether(node.func)
        if verb in _CALLS:
            self._direct(node)
        elif verb in _PROXIES and self._proxied(node) is None:
            self._found.unread.append(node.lineno)
        elif verb == "sync":
            self._sync(node)
        elif verb in ("wait_for", "subscribe"):
            self._topic(node, _argument(node, 0, "topic"))
        elif verb == "pub":
            self._pub(node)
        elif verb == "run":
            self._interlocks(node)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func)

    def _direct(self, node: ast.Call) -> None:
        """`ether.get("stage", "move", {"x": 1})`."""
        service, method = (self._text(_argument(node, at, name)) for at, name in enumerate(("service", "method")))
        if service is None or method is None:
            self._found.unread.append(node.lineno)
            return
        params = _argument(node, _PARAMS, "params")
        payload = None if params is None else self._mapping(params)
        self._found.mentions.append(Mention(node.lineno, service, method, (payload,), {}, True, payload is not UNKNOWN))

    def _mapping(self, node: ast.expr) -> Any:
        """A dict whose values are partly known."""
        if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
            keys = [self.value(key) for key in node.keys if key is not None]
            if all(isinstance(key, str) for key in keys):
                return dict(zip(keys, map(self.value, node.values), strict=True))
        return self.value(node)

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        if (runs := self._runs.get(_key(function.value))) is not None:
            self._of_run(node, function.attr, runs)
            return
        service = self._service_of(function.value)
        if service is None:
            return
        starred = any(isinstance(arg, ast.Starred) for arg in node.args) or any(k.arg is None for k in node.keywords)
        args = () if starred else tuple(map(self.value, node.args))
        kwargs = {} if starred else {k.arg: self.value(k.value) for k in node.keywords if k.arg is not None}
        self._found.mentions.append(Mention(node.lineno, service, function.attr, args, kwargs, False, not starred))

    def _of_run(self, node: ast.Call, verb: str, runs: Mapping[int, str | None]) -> None:
        """`runs` are those that the name stands for, by the line from which on it does."""
        if verb == "planned":
            run = next((runs[line] for line in sorted(runs, reverse=True) if line <= node.lineno), None)
            if run is None:
                self._found.unread.append(node.lineno)
            else:
                self._found.planned.append((node.lineno, run))
        elif verb == "scan":
            self._scan(node)

    def _scan(self, node: ast.Call) -> None:
        """`run.scan(stage.move, [0, 1, 2])`: each value is an argument."""
        setter, values = _argument(node, 0, "setter"), _argument(node, 1, "values")
        if not isinstance(setter, ast.Attribute) or (service := self._service_of(setter.value)) is None:
            self._found.unread.append(node.lineno)
            return
        written = UNKNOWN if values is None else self._mapping(values)
        for args, kwargs in _scanned(written):
            self._found.mentions.append(Mention(node.lineno, service, setter.attr, args, kwargs))

    def _reference(self, node: ast.Attribute) -> None:
        """`stage.position`, handed on."""
        if (service := self._service_of(node.value)) is not None and isinstance(node.ctx, ast.Load):
            self._found.mentions.append(Mention(node.lineno, service, node.attr, checked=False))

    def _sync(self, node: ast.Call) -> None:
        if not node.args:
            return  # the decorator
        arguments = {k.arg: self.value(k.value) for k in node.keywords if k.arg not in (None, "timeout_s")}
        self._topic(node, node.args[0], sync=True, arguments={str(name): value for name, value in arguments.items()})

    def _pub(self, node: ast.Call) -> None:
        topic = self._text(_argument(node, 1, "topic"))
        if topic is not None:
            self._found.publishes.add(topic)

    def _interlocks(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg == "suspend_while" and isinstance(keyword.value, ast.Dict):
                for key in keyword.value.keys:
                    self._topic(node, key)

    def _topic(
        self,
        node: ast.Call,
        written: ast.expr | None,
        *,
        sync: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        topic = self._text(written)
        if topic is not None:
            self._found.topics.append(TopicMention(node.lineno, topic, sync, arguments or {}))
        else:
            self._found.unread.append(node.lineno)


def _argument(node: ast.Call, at: int, name: str) -> ast.expr | None:
    if at < len(node.args) and not any(isinstance(arg, ast.Starred) for arg in node.args[: at + 1]):
        return node.args[at]
    return next((keyword.value for keyword in node.keywords if keyword.arg == name), None)


def _scanned(values: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """One call for each value; of several parameters, one for each value of each, beside unknown others."""
    if isinstance(values, (list, tuple)):
        yield from (((value,), {}) for value in values)
    elif isinstance(values, dict):
        for name, each in values.items():
            others = {other: UNKNOWN for other in values if other != name}
            yield from (
                ((), {**others, name: value}) for value in (each if isinstance(each, (list, tuple)) else [UNKNOWN])
            )
    else:
        yield (UNKNOWN,), {}


def _key(node: ast.expr) -> str:
    """`stage`, `self.stage`; "" for what is bound in no such way."""
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def _bindings(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What each name is bound to, where that is always by an assignment or a `with`: no loop, and no parameter."""
    stored: Counter[str] = Counter()
    bound: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
                stored[_key(node)] += 1
            case ast.arguments():
                stored.update(arg.arg for arg in _all_of(node))
            case ast.Assign(targets=[ast.Name() | ast.Attribute() as target], value=value):
                bound.setdefault(_key(target), []).append(value)
            case ast.AnnAssign(target=ast.Name() | ast.Attribute() as target, value=ast.expr() as value):
                bound.setdefault(_key(target), []).append(value)
            case ast.withitem(context_expr=value, optional_vars=ast.Name() | ast.Attribute() as target):
                bound.setdefault(_key(target), []).append(value)
    return {name: values for name, values in bound.items() if stored[name] == len(values)}


def _agreed(found: Mapping[str, Sequence[str | None]]) -> dict[str, str]:
    """The names that mean the same wherever they are bound."""
    return {name: said[0] for name, said in found.items() if said[0] is not None and len(set(said)) == 1}


def _all_of(arguments: ast.arguments) -> list[ast.arg]:
    more = [arguments.vararg, arguments.kwarg]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *(arg for arg in more if arg is not None)]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _ether_names(tree: ast.Module) -> set[str]:
    """What the file calls the one object: `from ether import ether as e`; the `lab` of `with ether.tap(…) as lab`."""
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "ether"
        for alias in node.names if alias.name == "ether"
    }  # fmt: skip
    for node in ast.walk(tree):
        match node:
            case ast.withitem(
                context_expr=ast.Call(func=ast.Attribute(value=value, attr="tap")), optional_vars=ast.Name(id=name)
            ) if isinstance(value, (ast.Name, ast.Call)):
                names.add(name)
    return names
