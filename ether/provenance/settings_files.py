"""Files of settings without their secrets: the whole file is parsed, masked, and only then compared.

A difference shows lines, and a secret need not stand in one line with its name: inside of braces, below a key, in a
list. So both versions of a file are masked as a whole. Promise: text that was not understood is not returned; whoever
keeps a difference leaves such a file out.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ether.provenance.secrets import is_secret_name, masked, masked_settings, masked_yaml_documents

_KINDS = (
    (re.compile(r"\.ya?ml$"), "yaml"),
    (re.compile(r"\.json$"), "json"),
    (re.compile(r"\.toml$"), "toml"),
    (re.compile(r"\.(?:ini|cfg|conf)$"), "ini"),
    (re.compile(r"(?:^|/)\.env(?:rc|\.[^/]*)?$|\.env$|\.properties$"), "env"),
)
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(?P<name>[\w.-]+)\s*[=:]\s*(?P<value>.*)", re.DOTALL)
_PLAIN = re.compile(
    r"\s*(?:[#;!].*)?|\s*(?:source_up|source_env_if_exists|layout|use|path_add|PATH_add|dotenv)\b[\w\s./-]*"
)


def kind_of(path: str) -> str | None:
    """Which kind of settings a file holds, by its name; None for any other file."""
    return next((kind for pattern, kind in _KINDS if pattern.search(path.lower())), None)


def without_secrets_both(kind: str, old: str, new: str) -> tuple[str, str] | None:
    """Both versions of a file with their secrets masked, in the same form; None where one cannot be understood. A file
    in which nothing is secret, and YAML, keeps its text; the rest is written as JSON, a line for each value."""
    try:
        if kind == "yaml":
            return tuple(masked_settings(masked_yaml_documents(text)) for text in (old, new))  # type: ignore[return-value]
        if kind == "env":
            return _masked_lines(old), _masked_lines(new)
        values = [_parsed(kind, text) for text in (old, new)]
    except (ValueError, RecursionError):
        return None
    if all(masked(value) == value for value in values):
        return masked_settings(old), masked_settings(new)
    first, second = (json.dumps(masked(value), indent=1, ensure_ascii=False, default=str) + "\n" for value in values)
    return first, second


def _parsed(kind: str, text: str) -> Any:
    """Plain data. Raises `ValueError`."""
    if not text.strip():
        return {}
    if kind == "json":
        return json.loads(text)
    if kind == "toml":
        import tomllib

        return json.loads(json.dumps(tomllib.loads(text), default=str))
    import configparser

    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True, delimiters=("=", ":"))
    try:
        parser.read_string(text if re.match(r"\s*(?:[#;].*\s*)*\[", text) else f"[-]\n{text}")
    except configparser.Error as error:
        raise ValueError(str(error)) from error
    return {name: dict(section.items()) for name, section in parser.items()}


def _masked_lines(text: str) -> str:
    """Assignments as a shell reads them, one by one, with quoted values over several lines. Raises `ValueError` for
    anything else."""
    done: list[str] = []
    held = ""
    for line in text.splitlines():
        held = f"{held}\n{line}" if held else line
        if _is_open(held):
            continue
        done.append(_masked_assignment(held))
        held = ""
    if held:
        raise ValueError("a quotation mark is not closed")
    return masked_settings("".join(f"{line}\n" for line in done))


def _is_open(text: str) -> bool:
    """Whether a value goes on in the next line."""
    if _PLAIN.fullmatch(text):
        return False
    mark, escaped = "", False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\" and mark != "'":
            escaped = True
        elif mark:
            mark = "" if char == mark else mark
        elif char in "\"'":
            mark = char
    return bool(mark) or escaped


def _masked_assignment(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    found = _ASSIGNMENT.fullmatch(text)
    if found is None:
        raise ValueError("it is no assignment")
    return f"{text[: found.start('value')]}***" if is_secret_name(found["name"]) and found["value"] else text
