"""Masking: passwords and other secrets are replaced by `***` before anything is recorded.

A value is a secret because of its name: `password`, `api_key`, `authToken`, … (`is_secret_name`), or because a
configuration says so (`!secret NAME`), whatever its name. The password inside of a URL is a secret wherever the URL
stands. None, true and false are never masked: they say only whether there is a
secret.

Promise: masked data keeps its structure; only scalars become `***`. The trap: a secret under a name that is not
recognised is recorded like any other value. In a program's source only passwords of URLs are recognised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ether.secret_values import MASK, hidden

_SECRET_WORDS = frozenset((
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "tokens", "key", "keys",
    "apikey", "credential", "credentials", "authorization", "bearer",
))  # fmt: skip
# The words of a name: `labKey`, `lab_key` and `LABKey` all have the word `key`.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# scheme://user:password@ ; the repetitions are bounded, so that a long text without an @ costs little.
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s:/@\"']{0,200}:)(?P<password>[^\s/\"'@]+)@"
)
# One line of settings: `name: value`, `- name: value`, `export NAME=value`; in a diff after +, - or a space.
_SETTING = re.compile(
    r"(?P<before>^[+\- ]?\s*(?:[#;]+\s*)?(?:-\s+)?(?:export\s+)?[\"']?(?P<name>[\w.-]{1,80})[\"']?\s*[:=]\s*)"
    r"(?P<value>\S.*)$"
)


def is_secret_name(name: str) -> bool:
    """Whether one of the words of the name means a secret: `key`, `lab_key`, `apiKey`; not `keyboard`."""
    return any(word.lower() in _SECRET_WORDS for word in _WORDS.findall(name))


def without_url_passwords(text: str) -> str:
    """The text with `***` for the password of every URL, and for each secret of this process."""
    text = hidden(text)
    return _URL_PASSWORD.sub(rf"\g<before>{MASK}@", text) if "://" in text else text


def masked(value: Any, *, secret: bool = False, place: tuple[str, ...] = ()) -> Any:
    """Plain JSON data with its secrets masked.

    `secret`: the value stands under a secret's name. Then everything inside of it is masked, too, at any depth: of
    `password: {old: a, new: b}` both. `place`: the keys that lead to the value in a configuration, () for other data.
    The place matters because some keys of a configuration are names of the user's own: an instance called `key` is no
    secret, and its settings must stay readable. Lists hold no such names, so the place ends at a list.
    """
    if isinstance(value, Mapping):
        named = _has_user_names(place)
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
    """YAML with its secrets masked and everything else as it was written, comments included: the parser gives the
    positions of the secrets, and the text is cut there. Text that is no YAML is masked line by line."""
    try:
        return masked_yaml_documents(text)
    except ValueError:
        return masked_settings(text)


def masked_yaml_documents(text: str) -> str:
    """The same for any number of documents. Raises `ValueError` for text that is no YAML."""
    import yaml  # 18 ms, which only a process that records a configuration spends

    try:
        roots = [root for root in yaml.compose_all(text, Loader=yaml.SafeLoader) if root is not None]
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is no YAML: {error}") from error
    spans = sorted(span for root in roots for span in _secret_spans(root, ()))
    for begin, end in reversed(spans):  # from the end, so that earlier positions stay right
        tail = text[begin:end]
        text = text[:begin] + MASK + tail[len(tail.rstrip()) :] + text[end:]
    return without_url_passwords(text)


def masked_settings(text: str) -> str:
    """A text of settings (`name: value`, `name = value`) or a diff of one, masked line by line."""
    return without_url_passwords("\n".join(map(_masked_line, text.split("\n"))))


def _has_user_names(place: tuple[str, ...]) -> bool:
    """Whether the keys at this place of a configuration are names that the user chose (of instances, classes, methods,
    properties), and not names of settings."""
    inside_class = (("methods",), ("properties",))
    return place in (("instances",), ("registry",)) or (place[:1] == ("registry",) and place[2:] in inside_class)


def _masked_line(line: str) -> str:
    found = _SETTING.match(line)
    if found is None or not is_secret_name(found["name"]):
        return line
    return f"{found['before']}{MASK}"


def _secret_spans(node: Any, place: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Begin and end of each secret's value, as offsets in the text. Each node is visited once."""
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
        named = _has_user_names(at)
        for key, value in here.value:
            name = str(key.value)
            if not named and is_secret_name(name) and not _says_nothing(value):
                seen.add(id(value))
                yield value.start_mark.index, value.end_mark.index
            else:
                waiting.append((value, (*at, name)))


def _says_nothing(node: Any) -> bool:
    return str(node.tag) in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool")
