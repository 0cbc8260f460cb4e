"""Reads YAML as data, with the line of every key, and refuses everything that expands, executes or hides.

Refused: anchors and aliases, merge keys, tags, duplicate keys, a second document, more than `MAX_DEPTH` levels,
`MAX_BYTES` bytes or `MAX_VALUES` values. It works on the parser's events, one by one, without PyYAML's composer and
constructor: so nothing can expand or run, and reading stops at the first event that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from ether.config.scalars import Scalar, objection, resolve, spelled
from ether.config.secrets import SecretName, check_secret_name
from ether.errors import ConfigError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000

SECRET_TAG = "!secret"
"""The one tag that is read: see `ether.config.secrets`."""

# The C parser reads 1 MiB about twenty times faster; not every build of PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_IN_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The content of a file. `lines` maps the path of each key or list item to its line, 1-based."""

    file: str
    data: dict[Any, Any]
    lines: dict[Place, int]

    def line_of(self, path: Sequence[str | int]) -> int | None:
        """The line of `path`, or of the nearest enclosing key that the file has."""
        place = tuple(str(part) for part in path)
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def read_yaml(raw: bytes, file: str) -> YamlDocument:
    """Read the bytes of a file; `file` is its name for messages. An empty file is an empty mapping.

    Raises `ConfigError` with file and line.
    """
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES:,} bytes; a configuration is not.", file=file)
    return _Reader(_decoded(raw, file), file).document()


def _decoded(raw: bytes, file: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x}"
        raise ConfigError(f"the file is not UTF-8 ({found}); save it as UTF-8.", file=file, line=line) from error
    unprintable = _NOT_IN_YAML.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise ConfigError(f"the character {unprintable.group()!a} cannot stand in YAML.", file=file, line=line)
    return text


class _Reader:
    """Turns the parser's events into data; for one file. `place` is the path of the value that is being read."""

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._last_line = max(1, len(text.splitlines()))
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._lines: dict[Place, int] = {}
        self._values = 0

    def document(self) -> YamlDocument:
        try:
            data = self._root()
        except yaml.YAMLError as error:
            raise self._not_yaml(error) from None  # the new error contains the whole text of the parser
        return YamlDocument(self._file, data, self._lines)

    def _root(self) -> dict[Any, Any]:
        next(self._events)  # the stream starts
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return {}
        event = next(self._events)
        self._lines[()] = event.start_mark.line + 1
        data = self._value(event, ())
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(after, "a second document starts (`---`); a configuration is one document.")
        if not isinstance(data, dict | None):
            found = "a list" if isinstance(data, list) else f"{data!r:.60}"
            self._refuse(event, f"found {found}; a configuration is a mapping with keys such as `instances:`.")
        return data or {}

    def _value(self, event: Any, place: Place) -> Any:
        self._check(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event) if event.tag is None else self._secret(event)
        if len(place) >= MAX_DEPTH:
            self._refuse(event, f"more than {MAX_DEPTH} levels inside each other.")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place)
        return self._list(place)

    def _check(self, event: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            self._refuse(event, f"more than {MAX_VALUES:,} values; keep data in a file of its own.")
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"found the alias *{event.anchor:.60}; write the value out, aliases are not read.")
        if event.anchor is not None:
            self._refuse(event, f"found the anchor &{event.anchor:.60}; anchors and aliases are not read.")
        if event.tag is not None and not (event.tag == SECRET_TAG and isinstance(event, yaml.ScalarEvent)):
            self._refuse(
                event,
                f"found the tag {event.tag:.60}; tags are not read, only plain values and `{SECRET_TAG} NAME` are.",
            )

    def _secret(self, event: Any) -> SecretName:
        try:
            return SecretName(check_secret_name(event.value))
        except ConfigError as error:
            self._refuse(event, error.problem)

    def _scalar(self, event: Any, *, as_key: bool = False) -> Scalar:
        text: str = event.value
        if event.style:  # quoted or block: text, whatever it looks like
            return text
        problem = objection(text, as_key=as_key)
        if problem:
            self._refuse(event, problem)
        return resolve(text)

    def _mapping(self, place: Place) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            inside = (*place, spelled(key))
            if key in result:
                self._refuse_twice(event, inside)
            self._lines[inside] = event.start_mark.line + 1
            result[key] = self._value(next(self._events), inside)
        return result

    def _key(self, event: Any) -> Scalar:
        self._check(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "found a list or a mapping as a key; a key is a word.")
        if event.tag is not None:
            self._refuse(event, f"found {SECRET_TAG} in a key; it stands for a value.")
        if event.value == "<<" and not event.style:
            self._refuse(event, "found the merge key <<; write the keys out, merging is not read.")
        return self._scalar(event, as_key=True)

    def _list(self, place: Place) -> list[Any]:
        result: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            inside = (*place, str(len(result)))
            self._lines[inside] = event.start_mark.line + 1
            result.append(self._value(event, inside))
        return result

    def _refuse_twice(self, event: Any, place: Place) -> NoReturn:
        # The keys 1 and 1.0 are equal in Python, but two places in `_lines`.
        first = f" (first on line {self._lines[place]})" if place in self._lines else ""
        self._refuse(event, f"the key {event.value!r:.80} is given twice{first}.", place)

    def _refuse(self, event: Any, problem: str, place: Place = ()) -> NoReturn:
        line = event.start_mark.line + 1
        raise ConfigError(problem, file=self._file, line=line, path=".".join(place) or None)

    def _not_yaml(self, error: yaml.YAMLError) -> ConfigError:
        mark = getattr(error, "problem_mark", None)
        parts = [getattr(error, name, None) for name in ("context", "problem")]
        said = ", ".join(part for part in parts if part) or str(error)
        hint = " YAML is indented with spaces, never with tabs." if "character" in said else ""
        # At the end of the file the parser may count a line that no editor shows.
        line = min(mark.line + 1, self._last_line) if mark else None
        return ConfigError(f"this is not YAML: {said:.200}.{hint}", file=self._file, line=line)
