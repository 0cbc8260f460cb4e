"""What a plain YAML word means: the core schema of YAML 1.2, and a refusal where YAML 1.1 disagrees.

A plain `no`, `off`, `010` or `1_000` is a boolean or a number to a YAML 1.1 reader, and a word or another number to a
YAML 1.2 reader. The author meant one of the two, and nobody can tell which: a laser with `on: off` must not receive the
text "off", which is true in Python. So these words are refused, and the message shows both clear spellings. `12:30` and
`2025-01-16` are text.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_OLD_BOOLEAN = re.compile(r"yes|Yes|YES|on|On|ON|(no|No|NO|off|Off|OFF)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_OLD_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9]*_[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|0[xob][0-9a-fA-F_]+)")
# Reading a decimal integer takes time quadratic in its length; CPython itself refuses more than 4300 digits.
_MAX_NUMBER_LENGTH = 1000


def resolve(text: str) -> Scalar:
    """The value of a plain scalar. Call `objection` first: it refuses the ambiguous ones."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def spelled(key: object) -> str:
    """A key as YAML spells it: `true` and not `True`."""
    return str(key).lower() if isinstance(key, bool) else "null" if key is None else str(key)


def objection(text: str, *, as_key: bool = False) -> str | None:
    """Why a plain scalar is refused, and what to write instead; None for one that is accepted.

    A key (`as_key`) is a name, so the booleans of YAML 1.1 are accepted there, as words: `on: 1`.
    """
    old = None if as_key else _OLD_BOOLEAN.fullmatch(text)
    if old:
        meant = "false" if old.group(1) else "true"
        return f"{text} is {meant} in YAML 1.1 and a word in YAML 1.2; write {meant}, or '{text}' in quotes."
    if _LEADING_ZERO.fullmatch(text):
        return f"{text:.60} has a leading zero, which not every YAML reader takes for decimal; {_QUOTE_OR_PLAIN}"
    if _OLD_NUMBER.fullmatch(text) and not _INTEGER.fullmatch(text):
        return f"{text:.60} is a number in YAML 1.1 and a word in YAML 1.2; {_QUOTE_OR_PLAIN}"
    return _too_large(text)


_QUOTE_OR_PLAIN = "write the number in plain decimal, or put it in quotes if it is text."


def _too_large(text: str) -> str | None:
    if not _FLOAT.fullmatch(text) and not _INTEGER.fullmatch(text):
        return None
    if len(text) > _MAX_NUMBER_LENGTH:
        return f"a number of {len(text)} characters is too long; put it in quotes if it is text."
    if not _INTEGER.fullmatch(text) and math.isinf(float(text)):
        return f"{text:.60} is beyond what a float can hold; write .inf if that is meant."
    return None
