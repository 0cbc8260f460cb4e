"""Parses the words of a command line: arguments of a call, durations, points in time. Pure.

`key=value` is read as JSON where the value is JSON (`exposure=0.1`, `on=true`, `roi=[0,0,10,10]`), else as text
(`mode=fast`). The trap: `serial=12345` is a number, which a method with a text parameter refuses. So a parameter that
is announced as text gets the word as it was written; for every other parameter, `serial='"12345"'` gives text.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Collection, Sequence

from ether.cli.exits import CommandMistake
from ether.cli.output import json_harmless

ReadFile = Callable[[str], bytes]

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_params(words: Sequence[str], texts: Collection[str], read: ReadFile) -> object:
    """The payload of a call: a dict of the `key=value` words; or the value of a single word without `=`; None for no
    words.

    `texts` are the parameters that take text alone. `key=@file.json`, or `@file.json` alone, is read from a file.
    """
    if len(words) == 1 and not _is_pair(words[0]):
        return parse_value(words[0], read)
    params: dict[str, object] = {}
    for word in words:
        if not _is_pair(word):
            raise CommandMistake(f"found {word!r:.80}; arguments are written key=value, or one value alone")
        key, _, text = word.partition("=")
        if key in params:
            raise CommandMistake(f"the argument {key!r} is given twice")
        params[key] = text if key in texts else parse_value(text, read)
    return params or None


def _is_pair(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


def parse_value(text: str, read: ReadFile) -> object:
    """The value of JSON text, the content of a JSON file after `@`, else the text itself (`@@` stands for one `@`)."""
    if text.startswith("@@"):
        return text[1:]
    if text.startswith("@"):
        return _from_file(text[1:], read)
    try:
        return _json(text)
    except ValueError:
        return text


def _from_file(name: str, read: ReadFile) -> object:
    try:
        return _json(read(name))
    except OSError as error:
        raise CommandMistake(f"cannot read {name!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise CommandMistake(f"{name!r} does not hold JSON: {error}") from error


def _json(text: str | bytes) -> object:
    """The value of JSON text. Raises `ValueError`, also for NaN and infinities, which are not JSON, and for deep
    nesting."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _refuse(token: str) -> object:
    raise ValueError(f"{token} is not JSON")


def parse_pairs(words: Sequence[str], form: str) -> dict[str, str]:
    """A dict of texts from `name=value` words; `form` tells in the error's message what is expected."""
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise CommandMistake(f"found {word!r:.80}; expected {form}")
        pairs[name] = value
    return pairs


def parse_duration_s(text: str) -> float:
    """Seconds: `90`, `1.5`, `500ms`, `90s`, `5m`, `2h`, `1d`, `1h30m`."""
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return float(compact)
    if _DURATION.fullmatch(compact):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PIECE.findall(compact))
    raise CommandMistake(f"found {text!r:.40}; a duration is a number of seconds, or such as 500ms, 5m, 2h, 1h30m, 1d")


def parse_since(text: str, now: float) -> float:
    """A point in time in unix seconds: how long ago (`10m`), or a date and time (`2025-01-16 11:28`), which is local
    where it has no offset."""
    try:
        return now - parse_duration_s(text)
    except CommandMistake:
        pass
    try:
        return datetime.datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise CommandMistake(
            f"found {text!r:.40}; expected how long ago (10m, 2h, 1d) or a date and time (2025-01-16 11:28)"
        ) from None


def shown_value(value: object, limit: int = 2000) -> str:
    """A value as one line of JSON, cut after `limit` characters."""
    text = json_harmless(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
