"""Paths into an object as the registry writes them: `ch[0].voltage`, `input_A.kelvin`, `data["ch 1"]`, `ch1.get()`.

Pure: text in, steps out. The trap: a path is never evaluated as Python. It has names, indexes (whole numbers, texts in
quotes) and empty parentheses, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ether.errors import ConfigError

PATH_RULE = (
    "expected names with dots between them, numbers or quoted texts in brackets, and () for a call without arguments,"
    ' such as ch[0].voltage, data["ch 1"] or motor.position.get()'
)
_STEP = re.compile(
    r"""(?P<dot>\.?)(?P<name>[^\W\d]\w*) | \[\s*(?P<number>-?\d+)\s*\] | \[\s*"(?P<double>[^"\\]*)"\s*\]
    | \[\s*'(?P<single>[^'\\]*)'\s*\] | (?P<call>\(\s*\))""",
    re.VERBOSE,
)
_MAX_STEPS = 16
_FRAMES = frozenset(
    (
        "gi_frame", "gi_code", "cr_frame", "cr_code", "ag_frame", "ag_code", "tb_frame",
        "f_back", "f_builtins", "f_code", "f_globals", "f_locals",
    )
)  # fmt: skip
"""A generator and a coroutine have their frame, and by that all that Python can do, `eval` among it."""


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step: to an attribute, to an item, or the call of what stands there, without arguments."""

    kind: Literal["name", "item", "call"]
    key: str | int = ""

    def __str__(self) -> str:
        if self.kind == "call":
            return "()"
        return f".{self.key}" if self.kind == "name" else f"[{self.key!r}]"


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """The steps of a path, and how it is written."""

    text: str
    steps: tuple[PathStep, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that it goes through."""
        return tuple(str(step.key) for step in self.steps if step.kind == "name")

    @property
    def is_plain(self) -> bool:
        """Whether it is one name alone."""
        return len(self.steps) == 1 and self.steps[0].kind == "name"

    @property
    def as_name(self) -> str:
        """A name made of it: `ch[0].voltage` becomes `ch0_voltage`."""
        words = [re.sub(r"\W", "_", str(step.key).replace("-", "minus_")) for step in self.steps if step.kind != "call"]
        text = words[0]
        for word, step in zip(words[1:], [s for s in self.steps if s.kind != "call"][1:], strict=True):
            text += word if step.kind == "item" and word.isdigit() else f"_{word}"
        return text


def parse_path(text: object) -> ObjectPath:
    """The path; raises `ConfigError`."""
    return ObjectPath(str(text), _steps(text, begins_with_name=True))


def parse_rest(text: object) -> ObjectPath:
    """What may follow a value: `.magnitude`, `[1]`, `.tolist()`; raises `ConfigError`."""
    return ObjectPath(str(text), _steps(text, begins_with_name=False))


def _steps(text: object, *, begins_with_name: bool) -> tuple[PathStep, ...]:
    if not isinstance(text, str):
        raise ConfigError(f"found {text!r:.60}; {PATH_RULE}.")
    steps: list[PathStep] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        first = at == 0 and begins_with_name
        if found is None or (found["name"] is not None and bool(found["dot"]) == first):
            raise ConfigError(f"{text!r:.80} is not a name or a path, from {text[at:]!r:.30} on: {PATH_RULE}.")
        if first and found["name"] is None:
            raise ConfigError(f"{text!r:.80} does not begin with a name: {PATH_RULE}.")
        steps.append(_step_of(found))
        at = found.end()
    names = [str(step.key) for step in steps if step.kind == "name"]
    inner = [name for name in names if name.startswith("__") or name in _FRAMES]
    if inner and (len(steps) > 1 or not begins_with_name):
        raise ConfigError(f"{text!r:.80} goes through {inner[0]}, which is Python's own and no part of a device.")
    if not steps and begins_with_name:
        raise ConfigError(f"found an empty text; {PATH_RULE}.")
    if len(steps) > _MAX_STEPS:
        raise ConfigError(f"{text!r:.80} has {len(steps)} steps; at most {_MAX_STEPS} are taken.")
    return tuple(steps)


def _step_of(found: re.Match[str]) -> PathStep:
    if found["name"] is not None:
        return PathStep("name", found["name"])
    if found["number"] is not None:
        return PathStep("item", int(found["number"]))
    if found["call"] is not None:
        return PathStep("call")
    return PathStep("item", found["double"] if found["double"] is not None else found["single"])
