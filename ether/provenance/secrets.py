"""What is not kept: passwords and other secrets, replaced by `***` before anything is written.

A value is a secret by the name that it is given under: `password`, `api_key`, `authToken`, … (`is_secret_name`), and so
is the password inside of a URL, wherever one stands. None, true and false are shown: they say that there is none.

Promise: what is masked here has the shape that it had. The trap: a secret under an innocent name is a value like any
other, and is kept. In a program's own text only passwords of URLs are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MASK = "***"

_SECRET_WORDS = frozenset((
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "tokens", "key", "keys",
    "apikey", "credential", "credentials", "authorization",
))  # fmt: skip
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s:/@\"']{0,200}:)(?P<password>[^\s/\"'@]+)@"
)
_SETTING = re.compile(
    r"(?P<before>^[+\- ]?\s*(?:-\s+)?(?:export\s+)?[\"']?(?P<name>[\w.-]{1,80})[\"']?\s*[:=]\s*)(?P<value>\S.*)$"
)


def is_secret_name(name: str) -> bool:
    """True for a name one of whose words is that of a secret: `key`, `lab_key`, `apiKey`; not `keyboard`."""
    return any(word.lower() in _SECRET_WORDS for word in _WORDS.findall(name))


def without_url_passwords(text: str) -> str:
    """The text with `***` for the password of every URL."""
    return _URL_PASSWORD.sub(rf"\g<before>{MASK}@", text) if "://" in text else text


def masked(value: Any, *, secret: bool = False, place: tuple[str, ...] = ()) -> Any:
    """Plain JSON data with its secrets masked. `secret`: its name is that of one. `place` is where in a configuration
    it stands."""
    if isinstance(value, Mapping):
        named = _names_things(place)
        return {
            key: masked(
                item,
                secret=secret or (not named and is_secret_name(str(key))),
                place=(*place, str(key)) if place else (),
            )
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(item, secret=secret) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if secret:
        return MASK
    return without_url_passwords(value) if isinstance(value, str) else value


def masked_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A merged configuration with its secrets masked."""
    return {key: masked(value, secret=is_secret_name(key), place=(key,)) for key, value in configuration.items()}


def masked_yaml(text: str) -> str:
    """YAML with its secrets masked and everything else as it was written, comments included. What is no YAML is taken
    line by line."""
    import yaml  # 18 ms that only who keeps a configuration spends

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return masked_settings(text)
    spans = sorted(_secret_spans(root, ())) if root is not None else []
    for begin, end in reversed(spans):
        tail = text[begin:end]
        text = text[:begin] + MASK + tail[len(tail.rstrip()) :] + text[end:]
    return without_url_passwords(text)


def masked_settings(text: str) -> str:
    """A text of settings (`name: value`, `name = value`) or a difference of such, masked line by line."""
    return without_url_passwords("\n".join(map(_masked_line, text.split("\n"))))


_NAMED = (("methods",), ("properties",))


def _names_things(place: tuple[str, ...]) -> bool:
    """Places of a configuration whose keys are names of the user's things, and not of settings."""
    return place in (("instances",), ("registry",)) or (place[:1] == ("registry",) and place[2:] in _NAMED)


def _masked_line(line: str) -> str:
    found = _SETTING.match(line)
    if found is None or not is_secret_name(found["name"]):
        return line
    return f"{found['before']}{MASK}"


def _secret_spans(node: Any, place: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where the values of secrets stand, as offsets in the text."""
    import yaml

    waiting: list[tuple[Any, tuple[str, ...]]] = [(node, place)]
    seen: set[int] = set()  # an alias leads to its anchor's node again
    while waiting:
        here, at = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, yaml.SequenceNode):
            waiting += [(item, (*at, "-")) for item in here.value]
        if not isinstance(here, yaml.MappingNode):
            continue
        named = _names_things(at)
        for key, value in here.value:
            name = str(key.value)
            if not named and is_secret_name(name) and not _says_nothing(value):
                seen.add(id(value))
                yield value.start_mark.index, value.end_mark.index
            else:
                waiting.append((value, (*at, name)))


def _says_nothing(node: Any) -> bool:
    return str(node.tag) in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool")
