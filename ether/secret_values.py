"""The values of this process's secrets, so that what is written down can be without them.

`!secret NAME` in a configuration stands for a value (`ether.config.secrets`). In a file its name says that it is a
secret; once it is an argument called `pin`, or a part of an exception's text, only the value itself can be recognised.
So each process remembers the values of the secrets that it was given, and what is recorded, logged, announced or
printed goes through `hidden`.

Promise: without secrets nothing is looked at. The trap: a value of fewer than `SHORTEST` characters is hidden only
where it is a whole text, because it would be found in half of all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote

MASK = "***"
SHORTEST = 4

_values: set[str] = set()
_forms: tuple[str, ...] = ()
"""The values and how they look inside of JSON, of a `repr`, of a URL; the longest first, as one may hold another."""


def learn(values: Iterable[str]) -> None:
    """Remember the values of secrets. From any thread."""
    global _forms
    _values.update(value for value in values if value)
    forms = {form for value in set(_values) if len(value) >= SHORTEST for form in _forms_of(value)}
    _forms = tuple(sorted(forms, key=len, reverse=True))


def forget() -> None:
    """Forget all of them, for tests."""
    global _forms
    _values.clear()
    _forms = ()


def hidden(text: str) -> str:
    """The text with `***` in the place of each secret."""
    if not _values:
        return text
    if text in _values:
        return MASK
    for form in _forms:
        if form in text:
            text = text.replace(form, MASK)
    return text


def secrets_in(value: object) -> list[str]:
    """The secrets that are somewhere in plain data, or inside of a text in it."""
    found: dict[str, None] = {}
    waiting = [value] if _values else []
    while waiting:
        here = waiting.pop()
        if isinstance(here, str):
            found |= {each: None for each in _values if each == here or (len(each) >= SHORTEST and each in here)}
        elif isinstance(here, Mapping):
            waiting += [*here.keys(), *here.values()]
        elif isinstance(here, (list, tuple)):
            waiting += here
    return sorted(found)


def _forms_of(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1],
            quote(value, safe="")}  # fmt: skip
