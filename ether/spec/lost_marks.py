"""Marks of a class that nobody can see: a decorator above them has put another function in their place.

`functools.wraps` copies marks, a wrapper without it does not; then the method would just never be called. Looked for
where wrappers keep what they wrap: in their closures, and as `func` of a `partial` or a cached property.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from ether.spec.marks import Mark, marks_of, underlying
from ether.spec.methods import ClassSpec


def lost_marks(cls: type, spec: ClassSpec) -> list[str]:
    """A sentence for each method of the class whose mark is hidden."""
    seen = {method.name for method in spec.methods}
    found = []
    for name in dict.fromkeys(name for klass in reversed(cls.__mro__) for name in vars(klass)):
        if name in seen:
            continue
        static = inspect.getattr_static(cls, name)
        if (hidden := next(_hidden(static), None)) is not None:
            mark, function = hidden
            code = getattr(function, "__code__", None)
            where = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
            found.append(
                f"{cls.__name__}.{name} is marked {mark.kind.value}{where}, and a decorator above has hidden that: put"
                f" @{mark.kind.value} above it, or use functools.wraps in it"
            )
    return found


def _hidden(static: object, depth: int = 0) -> Iterator[tuple[Mark, object]]:
    """The marks of what is wrapped in an attribute, which has none itself."""
    if depth > 3 or isinstance(static, type):
        return
    for inner in _wrapped(underlying(static)):
        if marks := marks_of(inner):
            yield marks[0], underlying(inner)
        else:
            yield from _hidden(inner, depth + 1)


def _wrapped(outer: object) -> Iterator[object]:
    for attribute in ("func", "fget", "__wrapped__"):
        inner = inspect.getattr_static(outer, attribute, None)
        inner = getattr(outer, attribute, None) if inner is not None else None
        if callable(inner):
            yield inner
    for cell in getattr(outer, "__closure__", None) or ():
        try:
            if inspect.isfunction(cell.cell_contents) or inspect.ismethod(cell.cell_contents):
                yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
