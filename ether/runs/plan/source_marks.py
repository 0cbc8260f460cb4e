"""What the source of a class says of the values that it publishes by itself, read without importing anything: topic,
period, whether they are saved, and the size of an array that the return hint spells out.

    @ether_every("5Hz")
    @ether_pub(topic="camera/frame")
    def frame(self) -> Annotated[np.ndarray, ArraySpec("uint16", (512, 512))]: ...

Promise: what is not written down literally (or by a number that the module names) is None, never a guess. The trap:
inherited methods are those of another file, and are not seen.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ether.runs.plan.class_lookup import SourceUnclear, places_of

_PLAIN_BYTES = {"float": 18.0, "int": 8.0, "bool": 5.0}
"""About what a plain value takes as JSON."""


@dataclass(frozen=True, slots=True)
class PublishedBySource:
    """One `ether_pub` of a method. `topic` "" is the default one; `every` is the text of its period, None where it is
    not called by itself; `bytes` is the size of a value, None where that is not known, and `shape` says why it is."""

    method: str
    topic: str
    save: bool
    every: str | None
    bytes: float | None
    shape: str = ""


def published_by(class_path: str, more_places: Sequence[str] = ()) -> list[PublishedBySource]:
    """What the class statement of this path says. Raises `SourceUnclear`."""
    place = places_of(class_path, more_places)[-1]
    try:
        module = ast.parse(Path(place.file).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceUnclear(f"{place.file} cannot be read: {error}") from error
    numbers = dict(_numbers(module))
    name = class_path.rpartition(".")[2]
    found = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == name]
    return [said for node in found[-1:] for method in node.body for said in _of_method(method, numbers)]


def topics_in_source(class_path: str, more_places: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The topics on which the class statement of this path publishes, and to which it subscribes. Raises
    `SourceUnclear`."""
    place = places_of(class_path, more_places)[-1]
    try:
        module = ast.parse(Path(place.file).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceUnclear(f"{place.file} cannot be read: {error}") from error
    name, published, heard = class_path.rpartition(".")[2], list[str](), list[str]()
    found = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node.name == name]
    for method in (it for node in found[-1:] for it in node.body):
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark, options in map(_mark, method.decorator_list):
            topic = str(options.get("topic") or f"{name}.{method.name}")
            if mark == "ether_pub":
                published.append(topic)
            elif mark == "ether_sub":
                heard.append(topic)
            elif mark == "ether_start":
                heard.append("start")
    return published, heard


def _numbers(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The whole numbers that the module names at its top level."""
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(number))):
                yield name, number
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=int(number))):
                yield name, number
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for target, value in zip(names, values, strict=False):
                    match target, value:
                        case ast.Name(id=name), ast.Constant(value=int(number)):
                            yield name, number


def _of_method(node: ast.stmt, numbers: dict[str, int]) -> Iterator[PublishedBySource]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    marks = [_mark(decorator) for decorator in node.decorator_list]
    ticks = [every for name, options in marks if name == "ether_every" and (every := options.get("when"))]
    size, shape = _size_of(node.returns, numbers)
    for name, options in marks:
        if name == "ether_pub":
            every = options.get("every") or (ticks[0] if ticks else None)
            yield PublishedBySource(
                node.name, str(options.get("topic") or ""), bool(options.get("save")),
                every if isinstance(every, str) else None, size, shape,
            )  # fmt: skip


def _mark(decorator: ast.expr) -> tuple[str, dict[str, object]]:
    """The name of a decorator, and its options that are literal."""
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = call.attr if isinstance(call, ast.Attribute) else call.id if isinstance(call, ast.Name) else ""
    options: dict[str, object] = {}
    if isinstance(decorator, ast.Call):
        options = {
            one.arg: one.value.value for one in decorator.keywords if one.arg and isinstance(one.value, ast.Constant)
        }
        if decorator.args and isinstance(first := decorator.args[0], ast.Constant):
            options["when"] = first.value
    return name, options


def _size_of(hint: ast.expr | None, numbers: dict[str, int]) -> tuple[float | None, str]:
    """The bytes of a value with this hint, and the array in words."""
    if isinstance(hint, ast.Name) and hint.id in _PLAIN_BYTES:
        return _PLAIN_BYTES[hint.id], hint.id
    for node in ast.walk(hint) if hint is not None else ():
        match node:
            case ast.Call(func=ast.Name(id="ArraySpec") | ast.Attribute(attr="ArraySpec")):
                given = dict(zip(("dtype", "shape"), node.args, strict=False))
                given |= {one.arg: one.value for one in node.keywords if one.arg}
                return _array(given.get("dtype"), given.get("shape"), numbers)
    return None, ""


def _array(dtype: ast.expr | None, shape: ast.expr | None, numbers: dict[str, int]) -> tuple[float | None, str]:
    match dtype:
        case ast.Constant(value=str(name)) | ast.Attribute(attr=name):
            item = _item_bytes(name)
        case _:
            return None, ""
    if not isinstance(shape, ast.Tuple) or item is None:
        return None, ""
    sizes = [_number(size, numbers) for size in shape.elts]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None, ""
    return float(item * prod(known)), f"{name} {' × '.join(map(str, known))}"


def _number(node: ast.expr, numbers: dict[str, int]) -> int | None:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return numbers.get(name)
    return None


def _item_bytes(dtype: str) -> int | None:
    """Of `uint16`, `<f8` or `bool`."""
    if dtype in ("bool", "?"):
        return 1
    if (named := re.fullmatch(r"(?:u?int|float|complex)(8|16|32|64|128)", dtype)) is not None:
        return int(named[1]) // 8
    if (short := re.fullmatch(r"[<>=|]?[biufc]([1-9]\d?)", dtype)) is not None:
        return int(short[1])
    return None


def import_places() -> list[str]:
    """Where the classes of a configuration in the working directory are looked for, beside the import path."""
    here = str(Path.cwd())
    return [] if here in sys.path else [here]
